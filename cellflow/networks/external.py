"""Image networks of other libraries, as fields."""

import torch
from torch import Tensor, nn


class DiffusersField(nn.Module):
    """A ``UNet2DModel`` or ``DiTTransformer2DModel`` of diffusers, as a field.

    Nothing of diffusers is imported here: any module that is called as ``network(images, timesteps, class_labels=...)``
    and answers with an object that holds ``sample`` will do. These networks see one time, so they cannot serve a
    `FlowMap`; and what they computed as noise predictors is no velocity until they are trained here.

    Parameters
    ----------
    network
        The network. Its ``out_channels`` must be its ``in_channels``: a DiT that also predicts a variance has twice as
        many.
    time_scale
        Time step that model time 1 stands for: these networks tell apart times that differ by about 1.

    Notes
    -----
    A condition is a one-hot label ``(n, k)``. A row of zeros, no class, becomes label ``k``: a UNet2DModel then needs
    ``num_class_embeds = k + 1``; a DiT has that label already. A DiT always wants a class: give a condition of ones
    ``(n, 1)`` where there is one class only. In training mode a DiT drops labels by itself, and draws from torch's
    global generator as it does so.

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
        found = self.network(x, self.time_scale * t, class_labels=labels).sample
        if found.shape != x.shape:
            raise ValueError(
                f"Expected a field shaped as the images, {tuple(x.shape)}; found {tuple(found.shape)}. Build the "
                f"network with `out_channels={x.shape[1]}` and the size of the images."
            )
        return found


def _labels(condition: Tensor) -> Tensor:
    """Return the place of the one in each row ``(n,)``; ``k`` where there is none."""
    empty = condition.shape[1] * torch.ones_like(condition[:, 0], dtype=torch.long)
    return torch.where(condition.any(dim=1), condition.argmax(dim=1), empty)
