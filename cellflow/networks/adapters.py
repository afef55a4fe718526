"""Adapters: networks on standardised states, and networks of other libraries, as fields."""

import torch
from torch import Tensor, nn

from cellflow.fields import Field
from cellflow.networks.embedding import check_inputs
from cellflow.shapes import check_points
from cellflow.signature import checked


@checked
class Standardized(nn.Module):
    """A field in units of the data around a network on standardised states.

    States and velocities are in units of the data. The network itself sees ``(x - shift) / scale`` and returns
    velocities in units of ``speed``.

    Parameters
    ----------
    network
        Any field on states ``(n, d)``.
    shift, scale, speed
        Centre, spread and typical velocity of the data per dimension, each ``(d,)``.

    Raises
    ------
    ValueError
        When a state has another width than the data.

    Examples
    --------
    >>> import torch
    >>> inner = lambda t, x, condition: torch.ones_like(x)
    >>> field = Standardized(inner, shift=torch.zeros(2), scale=torch.ones(2), speed=torch.tensor([1.0, 10.0]))
    >>> field(torch.zeros(1), torch.zeros(1, 2))
    tensor([[ 1., 10.]])
    """

    shift: Tensor
    scale: Tensor
    speed: Tensor

    def __init__(self, network: Field, *, shift: Tensor, scale: Tensor, speed: Tensor) -> None:
        super().__init__()
        for name, part in (("shift", shift), ("scale", scale), ("speed", speed)):
            check_points(part, name=name, axes=1)
            # Several heads have a speed each.
            if len(part) != len(shift) and (name != "speed" or len(part) % len(shift)):
                raise ValueError(f"Expected `{name}` as long as `shift`, {len(shift)}; found {len(part)}.")
        self.network = network
        self.register_buffer("shift", shift)
        self.register_buffer("scale", torch.where(scale > 0, scale, 1))
        self.register_buffer("speed", torch.where(speed > 0, speed, 1))

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the field at times ``t`` ``(n,)`` and states ``x`` ``(n, d)``, in units of the data."""
        check_inputs(t, x, condition, x)
        if x.shape[-1] != len(self.shift):
            raise ValueError(f"The model was fitted on states of width {len(self.shift)}; found {x.shape[-1]}.")
        found = self.network(t, (x - self.shift) / self.scale, condition)
        if not isinstance(found, Tensor):
            raise TypeError(f"Expected a network that returns a tensor; found {type(found).__name__}.")
        return self.speed * found


@checked
class DiffusersField(nn.Module):
    """A ``UNet2DModel`` or ``DiTTransformer2DModel`` of diffusers, as a field.

    diffusers is not imported here: any module works that is called as ``network(images, timesteps, class_labels=...)``
    and returns an object with ``sample``. These networks take one time, so they cannot serve as a `FlowMap`; one that
    was trained to predict noise must be retrained to predict velocities.

    Parameters
    ----------
    network
        The network. Its ``out_channels`` must be its ``in_channels``: a DiT that also predicts a variance has twice as
        many.
    time_scale
        Time step that corresponds to model time 1: these networks distinguish times that differ by about 1.

    Notes
    -----
    A condition is a one-hot label ``(n, k)``. A row of zeros, no class, becomes label ``k``: a UNet2DModel then needs
    ``num_class_embeds = k + 1``; a DiT has that label already. A DiT always needs a class: give a condition of ones
    ``(n, 1)`` if there is only one class. In training mode a DiT drops labels by itself, and draws from torch's global
    generator.

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> class Decay(torch.nn.Module):
    ...     def forward(self, sample, timestep, class_labels=None):
    ...         return SimpleNamespace(sample=-sample)
    >>> DiffusersField(Decay())(torch.zeros(1), torch.ones(1, 1, 2, 2)).flatten()
    tensor([-1., -1., -1., -1.])
    """

    def __init__(self, network: nn.Module, *, time_scale: float = 1000.0) -> None:
        super().__init__()
        self.network, self.time_scale = network, time_scale

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the field at times ``t`` ``(n,)``, images ``x`` ``(n, c, h, w)`` and one-hot labels ``(n, k)``.

        Raises
        ------
        ValueError
            When the network returns images of another shape, or there are two times.
        """
        if t.ndim != 1:
            raise ValueError(
                f"Expected one time for each image, (n,); found shape {tuple(t.shape)}. diffusers' networks see one "
                "time: use `cf.networks.UNet(times=2)` for flow maps."
            )
        labels = None if condition is None else _labels(condition)
        found: Tensor = self.network(x, self.time_scale * t, class_labels=labels).sample
        if found.shape != x.shape:
            raise ValueError(
                f"Expected a field shaped as the images, {tuple(x.shape)}; found {tuple(found.shape)}. Build the "
                f"network with `out_channels={x.shape[1]}` and the size of the images."
            )
        return found


def _labels(condition: Tensor) -> Tensor:
    """Return the column of the one in each row ``(n,)``; ``k`` where there is none."""
    empty = condition.shape[1] * torch.ones_like(condition[:, 0], dtype=torch.long)
    return torch.where(condition.any(dim=1), condition.argmax(dim=1), empty)
