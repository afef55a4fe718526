"""The velocity of a flow between images from a network that corrects the best linear guess of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cellflow.fields import Field
from cellflow.networks.embedding import check_inputs
from cellflow.networks.frequencies import Frequencies, waves
from cellflow.shapes import per_sample
from cellflow.signature import checked
from cellflow.time_laws import LARGEST


class GuessOfVelocity(NamedTuple):
    """A velocity as it is guessed, and how far from the truth.

    Attributes
    ----------
    velocity
        The guess, shaped as the states.
    missed
        Standard deviation of what it misses, over all pixels of a channel, ``(n, c, 1, 1)``.
    seen
        The states with about mean 0 and variance 1.
    """

    velocity: Tensor
    missed: Tensor
    seen: Tensor


@checked
class VelocityGuess(Frequencies):
    """The best linear guess of the velocity of a straight path between images, from a state on it.

    A cosine transform divides a state into frequencies, and each of them is divided between source and target by their
    variances there. Where one side has much more in high frequencies, such as noise, these are known to belong to it
    before any training.

    It is exact where both ends are Gaussian and independent, and so are their frequencies. Elsewhere it is where a
    network begins: see `GuessedVelocity`.

    Parameters
    ----------
    shape
        Shape of an image, ``(c, h, w)``.
    sigma
        Scale of the noise of the path, see `cellflow.paths.Linear`.

    Raises
    ------
    ValueError
        For a shape that is not that of an image, or a scale below 0.

    Source
    ------
    Wiener 1949, for the filter; Karras et al. 2022, section 5, for a network that predicts what a guess misses, where
    the guess is a multiple of the state.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x0, x1 = torch.randn(2, 50, 1, 8, 8, generator=cf.generator(seed=0))
    >>> guess = VelocityGuess((1, 8, 8)).measure(x0, x1 / 2 + 3)
    >>> round(guess(torch.full((4,), 0.5), torch.full((4, 1, 8, 8), 1.5)).velocity.mean().item(), 1)
    3.0
    """

    def __init__(self, shape: Sequence[int], sigma: float = 0.0) -> None:
        super().__init__(shape)
        if not 0 <= sigma <= LARGEST:
            raise ValueError(f"Expected a finite sigma >= 0, at most {LARGEST:g}; found {sigma}.")
        self.sigma = sigma

    def forward(self, t: Tensor, x: Tensor) -> GuessOfVelocity:
        """Return the guess at times ``t`` ``(n,)`` and states ``x`` ``(n, c, h, w)``.

        ``autocast`` does not round it.
        """
        check_inputs(t, x, None, self.mean)
        with torch.autocast(x.device.type, enabled=False):
            age, noise = per_sample(t, x).to(x), self.sigma**2
            (m0, m1), (v0, v1) = self.mean, self.variance
            whole = (1 - age).square() * v0 + age.square() * v1 + noise
            off = x - torch.lerp(m0, m1, age)
            velocity = m1 - m0 + waves((age * v1 - (1 - age) * v0) / whole * waves(off), back=True)
            missed = ((v0 * v1 + noise * (v0 + v1)) / whole).mean((2, 3), keepdim=True).sqrt()
            return GuessOfVelocity(velocity, missed, off / whole.mean((2, 3), keepdim=True).sqrt())


@checked
class GuessedVelocity(nn.Module):
    """A velocity between images: the best linear guess, and what a network says that it misses.

    The network sees states of about unit variance and answers in units of what the guess misses, so that it learns no
    more than what is not linear. Flows that trained for a few hundred steps gain most. Untrained, the field is that of
    the guess.

    Parameters
    ----------
    network
        A module called as ``network(t, x, condition)`` that returns what is shaped as ``x``, as
        `cellflow.networks.UNet`.
    guess
        The guess, measured on images of both sides.

    Source
    ------
    As for `VelocityGuess`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = GuessedVelocity(cf.networks.UNet(3, width=8, multipliers=(1, 2)), VelocityGuess((3, 8, 8)))
    >>> field(torch.rand(5), torch.randn(5, 3, 8, 8)).shape
    torch.Size([5, 3, 8, 8])
    """

    def __init__(self, network: Field, guess: VelocityGuess) -> None:
        super().__init__()
        self.network, self.guess = network, guess

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at times ``t`` ``(n,)`` and states ``x`` ``(n, c, h, w)``.

        Of a flow map's two times ``(n, 2)`` the first is that of the state.
        """
        check_inputs(t, x, condition, x)
        t, x = self.guess.widened(t, x)
        guess: GuessOfVelocity = self.guess(t if t.ndim == 1 else t[:, 0], x)
        return torch.addcmul(guess.velocity, guess.missed, self.network(t, guess.seen, condition))
