"""The network for images: a U-Net on several resolutions, whose layers are in `cellflow.networks.stages`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellflow.networks.embedding import TimeEmbedding, check_inputs, require_sizes
from cellflow.networks.stages import Downsample, Norm, Stage, Upsample, zeroed
from cellflow.signature import checked


@checked
class UNet(nn.Module):
    """A convolutional network on several resolutions, modulated by time and condition.

    Images are ``(n, channels, height, width)`` of any height and width: an odd side is halved rounding up, and the
    excess after doubling is cropped. They are processed in the channels-last memory format, which is faster. The last
    layer starts at zero, so an untrained network is the zero field. How many levels suit a size says
    `cellflow.networks.sizes.unet_for`.

    Parameters
    ----------
    channels
        Channels of the images.
    width
        Channels of the first level.
    multipliers
        Channels of each level, as multiples of ``width``; every level after the first has half the resolution.
    blocks
        Residual blocks per level of the encoder; the decoder has one more.
    attention
        Levels with attention, counted from 0, the full resolution: level 1 of images of 32 x 32 works on 16 x 16.
        ``None`` for level 1 if there is one. The coarsest level always has attention.
    head_dim
        Maximum number of channels per attention head.
    dropout
        Fraction of the inner channels that is dropped in training.
    condition_dim
        Width of the condition, such as the number of classes of a one-hot label; 0 for none.
    harmonics
        Number of Fourier harmonics of time, see `TimeEmbedding`.
    heads
        Number of fields to return side by side, ``(n, heads * channels, height, width)``: see `Heads`.
    times
        Number of times that the network takes: 2 for a `FlowMap`.

    Raises
    ------
    ValueError
        When a size is too small, or attention is on a level that does not exist.

    Source
    ------
    Ho et al. 2020, section 4 and appendix B; Dhariwal and Nichol 2021, section 3.

    Examples
    --------
    >>> import torch
    >>> UNet(3, width=8, multipliers=(1, 2))(torch.rand(5), torch.randn(5, 3, 16, 16)).shape
    torch.Size([5, 3, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] | None = None,
        head_dim: int = 64,
        dropout: float = 0.0,
        condition_dim: int = 0,
        harmonics: int = 8,
        heads: int = 1,
        times: int = 1,
    ) -> None:
        super().__init__()
        attention = (1,)[: len(multipliers) - 1] if attention is None else attention
        if not 0 <= dropout < 1:
            raise ValueError(f"Expected 0 <= dropout < 1; found {dropout}.")
        _check_plan(width, multipliers, blocks, attention)
        require_sizes(channels=channels, head_dim=head_dim, heads=heads)
        require_sizes(0, condition_dim=condition_dim)
        self.channels, self.condition_dim = channels, condition_dim
        context = 2 * width
        self.time = TimeEmbedding(context, harmonics=harmonics, times=times)
        self.condition = nn.Linear(condition_dim, context, bias=False) if condition_dim else None
        self.context = nn.Sequential(nn.SiLU(), nn.Linear(context, context), nn.SiLU())
        plan = _Plan([width * multiplier for multiplier in multipliers], blocks, context, dropout, attention, head_dim)
        self.first = nn.Conv2d(channels, plan.widths[0], 3, padding=1)
        self.down, carried = plan.down()
        self.middle = nn.ModuleList([plan.stage(plan.widths[-1], plan.widths[-1], attends=k == 0) for k in range(2)])
        self.up = plan.up(carried)
        self.norm = Norm(plan.widths[0])
        self.last = nn.Conv2d(plan.widths[0], heads * channels, 3, padding=1)
        zeroed(self.last)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the field at times ``t`` ``(n,)``, images ``x`` and condition ``(n, condition_dim)``.

        Raises
        ------
        ValueError
            When images have other channels than the network, or a condition another width.
        """
        check_inputs(t, x, condition, self.first.weight)
        self._check(x, condition)
        context = self.time(t)
        if self.condition is not None and condition is not None:
            context = context + self.condition(condition)
        context = self.context(context)
        hidden = self.first(x.contiguous(memory_format=torch.channels_last))
        carried = [hidden]
        for layer in self.down:
            hidden = layer(hidden) if isinstance(layer, Downsample) else layer(hidden, context)
            carried.append(hidden)
        for layer in self.middle:
            hidden = layer(hidden, context)
        for layer in self.up:
            if isinstance(layer, Upsample):
                height, width = carried[-1].shape[2:]  # one less than twice as many, of an odd side
                hidden = layer(hidden)[:, :, :height, :width]
            else:
                hidden = layer(torch.cat([hidden, carried.pop()], dim=1), context)
        found: Tensor = self.last(nn.functional.silu(self.norm(hidden)))
        return found

    def _check(self, x: Tensor, condition: Tensor | None) -> None:
        found = 0 if condition is None else condition.shape[-1]
        if found != self.condition_dim:
            raise ValueError(f"Expected a condition of width {self.condition_dim}; found {found}. See `condition_dim`.")
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"Expected images (n, {self.channels}, height, width); found shape {tuple(x.shape)}. See `channels`."
            )


class _Plan:
    """How wide each level is, and which layers follow from that."""

    def __init__(
        self,
        widths: list[int],
        blocks: int,
        context: int,
        dropout: float,
        attention: Sequence[int],
        head_dim: int,
    ) -> None:
        self.widths, self.blocks = widths, blocks
        self.context, self.dropout, self.attention, self.head_dim = context, dropout, attention, head_dim

    def stage(self, inputs: int, outputs: int, *, attends: bool) -> "Stage":
        head_dim = self.head_dim if attends else None
        return Stage(inputs, outputs, context=self.context, dropout=self.dropout, head_dim=head_dim)

    def down(self) -> tuple[nn.ModuleList, list[int]]:
        """Return the layers of the encoder, and the channels of all skip connections."""
        layers, now = nn.ModuleList(), self.widths[0]
        carried = [now]
        for level, wide in enumerate(self.widths):
            if level > 0:
                layers.append(Downsample(now))
                carried.append(now)
            for _ in range(self.blocks):
                layers.append(self.stage(now, wide, attends=level in self.attention))
                carried.append(wide)
                now = wide
        return layers, carried

    def up(self, carried: list[int]) -> nn.ModuleList:
        layers, now = nn.ModuleList(), self.widths[-1]
        for level, wide in reversed(list(enumerate(self.widths))):
            for _ in range(self.blocks + 1):
                layers.append(self.stage(now + carried.pop(), wide, attends=level in self.attention))
                now = wide
            if level > 0:
                layers.append(Upsample(now))
        return layers


def _check_plan(width: int, multipliers: Sequence[int], blocks: int, attention: Sequence[int]) -> None:
    if width < 1 or blocks < 1 or not len(multipliers) or min(multipliers) < 1:
        raise ValueError(
            f"Expected width, blocks and every multiplier of at least 1; found {width}, {blocks}, {tuple(multipliers)}."
        )
    levels = range(len(multipliers))
    if any(level not in levels for level in attention):
        raise ValueError(
            f"Expected levels of attention among {list(levels)}, one for each multiplier; found {tuple(attention)}."
        )
