"""What can be said of the ends of a bridge between images without a network: the best linear guess."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from cellflow.networks.embedding import check_inputs
from cellflow.shapes import per_sample
from cellflow.signature import checked
from cellflow.time_laws import LARGEST

_LEAST = 1e-12
"""Variance that a frequency has at least: of even images most have none."""


class Guess(NamedTuple):
    """Both ends as they are guessed, and how far from the truth.

    Attributes
    ----------
    x0, x1
        The guesses, shaped as the states.
    missed0, missed1
        Standard deviation of what they miss, over all pixels of a channel, ``(n, c, 1, 1)``.
    seen
        The states with about mean 0 and variance 1.
    """

    x0: Tensor
    x1: Tensor
    missed0: Tensor
    missed1: Tensor
    seen: Tensor


@checked
class EndGuess(nn.Module):
    """The best linear guess of both ends of a Brownian bridge between images, from a state on it.

    A cosine transform divides a state into frequencies, and each of them is divided among source, target and noise by
    their variances there. Images have little in high frequencies, where noise has as much as everywhere: so grain is
    taken for noise from the first step of a training on.

    It is exact where both ends are Gaussian and independent, and so are their frequencies. Elsewhere it is where a
    network begins: see `EndPoints`.

    Parameters
    ----------
    shape
        Shape of an image, ``(c, h, w)``.
    sigma
        Scale of the noise of the bridge.

    Raises
    ------
    ValueError
        For a shape that is not that of an image, or a scale that is not above 0.

    Source
    ------
    Wiener 1949, for the filter; Karras et al. 2022, section 5, for a network that predicts what a guess misses, in
    units of it, where the guess is a multiple of the state.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x0, x1 = torch.randn(2, 50, 1, 8, 8, generator=cf.generator(seed=0))
    >>> guess = EndGuess((1, 8, 8), 0.3).measure(x0, x1 / 2 + 3)
    >>> found = guess(torch.full((4,), 0.5), torch.full((4, 1, 8, 8), 1.5))
    >>> round(found.x0.mean().item(), 1), round(found.x1.mean().item(), 1)
    (0.0, 3.0)
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, shape: Sequence[int], sigma: float) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"Expected the shape of an image, (channels, height, width); found {tuple(shape)}.")
        if not 0 < sigma <= LARGEST:
            raise ValueError(
                f"Expected a finite sigma > 0, at most {LARGEST:g}; found {sigma}. Without noise take `guess=None`."
            )
        self.sigma = sigma
        self.register_buffer("mean", torch.zeros(2, *shape))
        self.register_buffer("variance", torch.ones(2, *shape))

    def measure(self, x0: Tensor, x1: Tensor) -> Self:
        """Take means and variances of frequencies from images of both ends, ``(n, c, h, w)`` and ``(m, c, h, w)``.

        Raises
        ------
        ValueError
            When images have another shape, or not all of their numbers are finite.
        """
        for k, x in enumerate((x0, x1)):
            if not isinstance(x, Tensor):
                raise TypeError(f"Expected images as a tensor (n, c, h, w); found {type(x).__name__}.")
            if x.ndim != 4 or x.shape[1:] != self.mean.shape[1:] or not len(x) or not torch.isfinite(x).all():
                raise ValueError(
                    f"Expected images (n, {', '.join(map(str, self.mean.shape[1:]))}) of finite numbers, at least one; "
                    f"found shape {tuple(x.shape)} of {x.dtype}."
                )
            images = x.to(self.mean)
            self.mean[k] = images.mean(0)
            self.variance[k] = self._waves(images - self.mean[k]).square().mean(0).clamp(min=_LEAST)
        return self

    def forward(self, t: Tensor, x: Tensor) -> Guess:
        """Return the guess at times ``t`` ``(n,)``, inside (0, 1), and states ``x`` ``(n, c, h, w)``.

        ``autocast`` does not round it: little of the noise is to be left.
        """
        check_inputs(t, x, None, self.mean)
        with torch.autocast(x.device.type, enabled=False):
            age = per_sample(t, x).to(x)
            shares, own, whole = self._shares(age)
            moved = x - shares[0] * self.mean[0] - shares[1] * self.mean[1]
            waves = self._waves(moved) / whole
            x0, x1 = (
                mean + self._waves(share * variance * waves, back=True)
                for share, mean, variance in zip(shares, self.mean, self.variance, strict=True)
            )
            return Guess(x0, x1, *self._missed(own, whole), moved / whole.mean((2, 3), keepdim=True).sqrt())

    def missed(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the standard deviations of what is missed of source and target at times ``t`` ``(n,)``."""
        return self._missed(*self._shares(t[:, None, None, None].to(self.mean))[1:])

    def _shares(self, age: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        """Return the shares of source and target in a state; the variances of these parts, and of all of it."""
        own = (1 - age).square() * self.variance[0], age.square() * self.variance[1]
        return (1 - age, age), own, own[0] + own[1] + self.sigma**2 * age * (1 - age)

    def _missed(self, own: tuple[Tensor, Tensor], whole: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (
            (variance * (whole - mine) / whole).clamp(min=0).mean((2, 3), keepdim=True).sqrt()
            for variance, mine in zip(self.variance, own, strict=True)
        )
        return first, second

    def _waves(self, x: Tensor, *, back: bool = False) -> Tensor:
        """Return the cosine transform of images, or images from it."""
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
