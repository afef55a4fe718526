"""Linear guesses that the networks of images correct."""

import torch
from torch import Tensor, nn

from cellflow import paths
from cellflow.estimators.domains import Domain, some_of
from cellflow.networks import VelocityGuess
from cellflow.networks.frequencies import Frequencies
from cellflow.paths import GaussianPath, Linear
from cellflow.renamed import warn

MEASURED, NUMBERS = 2000, 2**26
"""Images of each side whose frequencies are measured, and numbers in them, at most."""
LACKING, NOTABLE = 0.01, 0.1
"""A side lacks a frequency where it has less than this share of the other's variance; how much of that is notable."""


def of_velocity(shape: tuple[int, ...], path: GaussianPath | str) -> VelocityGuess:
    """Return the guess of the velocity of a flow, to be measured.

    Parameters
    ----------
    shape
        Shape of a state.
    path
        Path of the flow.

    Raises
    ------
    ValueError
        When samples are no images, or the path is not straight.

    Examples
    --------
    >>> of_velocity((1, 8, 8), "linear")
    VelocityGuess()
    """
    known = paths.resolve(path)
    if len(shape) != 3 or not isinstance(known, Linear):
        what = f"path={path!r}" if len(shape) == 3 else f"samples of shape {shape}"
        raise ValueError(f"`guess` is for images on straight paths; found {what}. Leave it out.")
    return VelocityGuess(shape, known.sigma)


def measure(field: nn.Module, source: Domain | None, target: Domain) -> None:
    """Measure what the guess of a field is made of, if it has one; without a source, from noise.

    Warns
    -----
    UserWarning
        When the guess is of a velocity without noise between images, and one side varies much where the other hardly
        varies: there the guess is certain, whatever the network says.
    """
    for part in field.modules():
        if isinstance(part, Frequencies):
            part.measure(None if source is None else _some(source), _some(target))
            certain = isinstance(part, VelocityGuess) and part.sigma == 0 and source is not None
            if certain and (share := lopsided(part.variance)) > NOTABLE:
                warn(
                    f"{share:.0%} of the variance of one side of the images is in frequencies or channels in which the "
                    "other side hardly varies. There the linear guess is certain, and the network cannot correct it: "
                    "leave out `guess`."
                )


def lopsided(variance: Tensor) -> float:
    """Return how much of the variance of one side is where the other side has next to none: the larger share of both.

    Parameters
    ----------
    variance
        Variances of source and target, ``(2, ...)``.

    Examples
    --------
    >>> lopsided(torch.tensor([[1.0, 1.0], [1.0, 1e-6]]))
    0.5
    """
    shares = [float(own[other < LACKING * own].sum() / own.sum()) for own, other in (variance, variance.flip(0))]
    return max(shares)


def _some(domain: Domain) -> Tensor:
    size = int(torch.Size(domain.shape).numel())
    return some_of(domain, max(2, min(MEASURED, NUMBERS // size)))
