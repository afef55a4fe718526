"""What can be said of the ends of a bridge between images without a network: the best linear guess."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cellflow.networks.embedding import check_inputs
from cellflow.networks.frequencies import Frequencies, waves
from cellflow.shapes import per_sample
from cellflow.signature import checked
from cellflow.time_laws import LARGEST


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
class EndGuess(Frequencies):
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

    def __init__(self, shape: Sequence[int], sigma: float) -> None:
        super().__init__(shape)
        if not 0 < sigma <= LARGEST:
            raise ValueError(
                f"Expected a finite sigma > 0, at most {LARGEST:g}; found {sigma}. Without noise take `guess=None`."
            )
        self.sigma = sigma

    def forward(self, t: Tensor, x: Tensor) -> Guess:
        """Return the guess at times ``t`` ``(n,)``, inside (0, 1), and states ``x`` ``(n, c, h, w)``.

        ``autocast`` does not round it: little of the noise is to be left.
        """
        check_inputs(t, x, None, self.mean)
        with torch.autocast(x.device.type, enabled=False):
            age = per_sample(t, x).to(x)
            shares, own, whole = self._shares(age)
            moved = x - shares[0] * self.mean[0] - shares[1] * self.mean[1]
            found = waves(moved) / whole
            x0, x1 = (
                mean + waves(share * variance * found, back=True)
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
