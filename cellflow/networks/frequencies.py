"""The frequencies of images: a cosine transform, and how much of two sets of images is in each frequency."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from cellflow.signature import checked

_LEAST = 1e-12
"""Variance that a frequency has at least: of even images most have none."""


@checked
class Frequencies(nn.Module):
    """Means of source and target images, and variances of their frequencies: what linear guesses are made of.

    Until they are measured, all means are 0 and all variances 1.

    Parameters
    ----------
    shape
        Shape of an image, ``(c, h, w)``.

    Raises
    ------
    ValueError
        For a shape that is not that of an image.

    Examples
    --------
    >>> import torch
    >>> stripes = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]], [[[1.0, 0.0], [1.0, 0.0]]]])
    >>> Frequencies((1, 2, 2)).measure(None, stripes).variance[1].round(decimals=3)
    tensor([[[0., 1.],
             [0., 0.]]])
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"Expected the shape of an image, (channels, height, width); found {tuple(shape)}.")
        self.register_buffer("mean", torch.zeros(2, *shape))
        self.register_buffer("variance", torch.ones(2, *shape))

    def measure(self, x0: Tensor | None, x1: Tensor) -> Self:
        """Take means and variances from images of both ends, ``(n, c, h, w)`` and ``(m, c, h, w)``.

        ``None`` for a source of standard Gaussian noise, which is known.

        Raises
        ------
        ValueError
            When images have another shape, or not all of their numbers are finite.
        """
        for k, x in enumerate((x0, x1)):
            if x is None and k == 0:
                self.mean[k], self.variance[k] = 0, 1
                continue
            if not isinstance(x, Tensor) or x.layout != torch.strided:
                raise TypeError(f"Expected images as a dense tensor (n, c, h, w); found {type(x).__name__}.")
            if x.ndim != 4 or x.shape[1:] != self.mean.shape[1:] or not len(x) or not torch.isfinite(x).all():
                raise ValueError(
                    f"Expected images (n, {', '.join(map(str, self.mean.shape[1:]))}) of finite numbers, at least one; "
                    f"found shape {tuple(x.shape)} of {x.dtype}."
                )
            images = x.to(self.mean)
            self.mean[k] = images.mean(0)
            self.variance[k] = waves(images - self.mean[k]).square().mean(0).clamp(min=_LEAST)
        return self

    def widened(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return times or states of half precision in that of the variances: little of the noise is to be left."""
        halves = (torch.float16, torch.bfloat16)
        return tuple(one.to(self.mean.dtype) if one.dtype in halves else one for one in given)


def waves(x: Tensor, *, back: bool = False) -> Tensor:
    """Return the cosine transform of images ``(n, c, h, w)``, or with ``back`` the images of a transform.

    Examples
    --------
    >>> even = torch.ones(1, 1, 2, 2)
    >>> waves(even).flatten().round(decimals=3), torch.allclose(waves(waves(even), back=True), even)
    (tensor([2., 0., 0., 0.]), True)
    """
    rows, columns = (cosines(side, like=x) for side in x.shape[-2:])
    return rows.T @ x @ columns if back else rows @ x @ columns.T


def cosines(side: int, *, like: Tensor) -> Tensor:
    """Return the orthonormal basis of waves over so many pixels, ``(side, side)``, one wave a row.

    Its waves do not jump at the edges.

    Source
    ------
    Ahmed, Natarajan and Rao 1974, the discrete cosine transform.

    Examples
    --------
    >>> basis = cosines(4, like=torch.zeros(1))
    >>> torch.allclose(basis @ basis.T, torch.eye(4), atol=1e-6)
    True
    """
    number = torch.arange(side, device=like.device)
    phase = number[:, None] * (2 * number + 1) % (4 * side)  # in whole numbers: large angles have no digits left
    scale = like.new_full((side,), (2 / side) ** 0.5)
    scale[0] = side**-0.5
    return scale[:, None] * torch.cos(phase.to(like) * (torch.pi / (2 * side)))
