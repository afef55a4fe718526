"""Building the field of a flow: its width, its scales, and its outputs beside the velocity."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from cellflow import networks
from cellflow.cells.single import moments
from cellflow.cells.snapshots import Snapshots
from cellflow.errors import unknown
from cellflow.modes import single_precision
from cellflow.networks import EndGuess, EndPoints, GuessedVelocity, Heads, Standardized, VelocityGuess
from cellflow.networks.sizes import unet_for
from cellflow.objectives.draw import Unit

Make = Callable[..., nn.Module]
"""From the width of vectors, or the channels of images, to a network."""

SPREADS = (1e-30, 1e30)
"""Spreads of data at which nothing leaves single precision."""
NARROW = 1e-3
"""Spread of a column, relative to the widest, below which it has no say: its squares count a millionth."""
LOSS = "loss"
"""The ``standardize`` with which errors are in units of each column's spread."""
_WITHOUT_SAY = {
    False: "the loss nor in the coupling: their velocities may come out as 0",
    True: "the coupling: the matching depends on the others only",
}
UNSTANDARDIZED = (1e-3, 1e3)
"""Spreads of data that a network can be trained on as they are."""
HEADS = ("shared", "separate")
"""Whether one network returns all outputs, or each output has a network of its own."""
ENDS = "ends"
"""Heads of images alone: a network predicts both ends of a bridge, from which velocity and score follow."""


class Scales(NamedTuple):
    """Scales by which the network's inputs and outputs are standardised.

    Centre, spread and typical velocity per dimension, each ``(d,)``, and a typical growth rate, one number; rates are
    per unit of model time.
    """

    shift: Tensor
    scale: Tensor
    speed: Tensor
    rate: float


def spreads(snapshots: Snapshots) -> Scales:
    """Return the scales of the cells, which typically move by their spread, and grow e-fold, in an interval."""
    # In double precision: sums over a million cells lose their digits in single.
    shift, scale = (torch.from_numpy(moment).float() for moment in moments(snapshots.x))
    intervals = len(snapshots.clock.times) - 1
    return Scales(shift, scale, scale * intervals, float(intervals))


def blank(dim: int) -> Scales:
    """Return scales of one, to be overwritten by saved ones."""
    ones = torch.ones(dim, dtype=torch.float32)
    return Scales(ones, ones, ones, 1.0)


def overall(scales: Scales) -> float:
    """Return the spread over all dimensions together: the unit of length of errors."""
    spread = float(scales.scale.double().square().mean().sqrt())
    return spread if spread > 0 else 1.0


def unit_of(scales: Scales, standardize: bool | str) -> Unit:
    """Return the unit of length of errors: the overall spread, or for ``"loss"`` that of each dimension.

    Examples
    --------
    >>> unit_of(Scales(torch.zeros(2), torch.tensor([3.0, 0.0]), torch.ones(2), 1.0), "loss")
    (3.0, 1.0)
    """
    if standardize != LOSS:
        return overall(scales)
    return tuple(spread if spread > 0 else 1.0 for spread in scales.scale.tolist())


@single_precision()
def build_field(
    make: Callable[..., nn.Module],
    scales: Scales,
    beside: Sequence[str] = (),
    *,
    heads: str = "shared",
    alone: Sequence[str] = (),
    sigma: float = 0.0,
    standardize: bool | str = True,
    guess: EndGuess | VelocityGuess | None = None,
) -> nn.Module:
    """Return an untrained field.

    Parameters
    ----------
    make
        A callable from the width of the states to a module; it takes ``heads=`` where several outputs share one.
    scales
        Scales of the data, whose width is that of the states.
    beside
        Outputs besides the velocity that an objective requires: ``"score"``, ``"growth"``, both or none.
    heads
        One of `HEADS`; or `ENDS`, for images with a score and nothing else.
    alone
        Those outputs that have their own network whatever ``heads`` is.
    sigma
        Scale of the noise, which sets that of the score drift.
    standardize
        Whether the network's inputs and outputs are standardised; ``"loss"`` for these and the loss.
    guess
        What the network corrects, of images: a guess of both ends with ``ENDS``, or of the velocity if that is all.

    Raises
    ------
    ValueError
        For unknown ``heads`` or another unknown word, or data whose spread exceeds single precision.
    TypeError
        When outputs share a network that cannot be made with ``heads=``.

    Examples
    --------
    >>> import cellflow as cf
    >>> field = build_field(cf.networks.MLP, blank(2), ("score", "growth"), sigma=0.5)
    >>> field.velocity.network.last.out_features
    6
    """
    if heads == ENDS and tuple(beside) == ("score",) and not standardize:
        return EndPoints(_of_several(make, len(scales.shift), 2), cast("EndGuess | None", guess))
    if isinstance(guess, VelocityGuess):
        return GuessedVelocity(make(len(scales.shift)), guess)
    if heads not in HEADS:
        raise ValueError(unknown("heads", heads, HEADS))
    if isinstance(standardize, str) and standardize != LOSS:
        raise ValueError(f"Expected `standardize` to be True, False or {LOSS!r}; found {standardize!r}.")
    check_scales(scales, standardize=standardize)
    dim = len(scales.shift)
    units = {"score": torch.full_like(scales.speed, sigma), "growth": torch.full_like(scales.speed, scales.rate)}

    def scaled(network: nn.Module, *speeds: Tensor) -> nn.Module:
        if not standardize:
            return network
        return Standardized(network, shift=scales.shift, scale=scales.scale, speed=torch.cat(speeds))

    if not beside:
        return scaled(make(dim), scales.speed)
    shared = [name for name in beside if heads == "shared" and name not in alone]
    whole = _of_several(make, dim, 1 + len(shared)) if shared else make(dim)
    velocity = scaled(whole, scales.speed, *(units[name] for name in shared))
    others = {name: scaled(make(dim), units[name]) for name in beside if name not in shared}
    return Heads(velocity, **dict.fromkeys(shared, "shared"), **others)


def check_scales(scales: Scales, *, standardize: bool | str) -> None:
    """Refuse data beyond single precision, and warn of scales that would silently give wrong results.

    Errors and distances are over all columns together: a column whose spread is below a thousandth of the widest does
    not affect them. The principal components of cells differ by some tens.

    Parameters
    ----------
    scales
        Scales of the data.
    standardize
        Whether the network sees standardised states, and the loss is in units of each column's spread.

    Raises
    ------
    ValueError
        When the spread is beyond single precision.

    Warns
    -----
    UserWarning
        For narrow columns; or, if states are not standardised, a spread unsuitable for a network.

    Examples
    --------
    >>> check_scales(blank(2), standardize=True)
    """
    if scales.scale.is_meta:  # of an outline, as a model is loaded
        return
    widest, spread = float(scales.scale.max()), overall(scales)
    if not SPREADS[0] < spread < SPREADS[1]:
        raise ValueError(
            f"Expected data with a spread between {SPREADS[0]:g} and {SPREADS[1]:g}, within single precision; found "
            f"{spread:.2g}. Divide them by {spread:.0e}."
        )
    narrow = torch.nonzero((scales.scale > 0) & (scales.scale < NARROW * widest)).flatten().tolist()
    if narrow:
        named = ", ".join(map(str, narrow[:10])) + (f" and {len(narrow) - 10} more" if len(narrow) > 10 else "")
        warnings.warn(
            f"Columns {named} of the representation (counted from 0) spread less than {NARROW:g} times as far as the "
            f"widest, so they have no effect in {_WITHOUT_SAY[standardize == LOSS]}. Bring columns to one scale first, "
            "for example by dividing each by its standard deviation.",
            stacklevel=_calls_inside(),
        )
    if not standardize and not UNSTANDARDIZED[0] < spread < UNSTANDARDIZED[1]:
        warnings.warn(
            f"The data spread by {spread:.2g}, and with `standardize=False` the network sees them as they are: it "
            "needs numbers of order 1. Leave `standardize=True`, or rescale the data.",
            stacklevel=_calls_inside(),
        )


def _calls_inside() -> int:
    """Return how many calls up the first one is that is neither of cellflow nor of a context around it."""
    frame, calls = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("cellflow", "contextlib"):
        frame, calls = frame.f_back, calls + 1
    return calls


def takes_heads(make: Callable[..., nn.Module]) -> bool:
    """Say whether a network can be made with ``heads=``, for several outputs.

    Examples
    --------
    >>> takes_heads(networks.MLP), takes_heads(lambda dim: networks.MLP(dim))
    (True, False)
    """
    try:
        parameters = inspect.signature(make).parameters.values()
    except ValueError:  # of some built-in functions
        return False
    return any(parameter.name == "heads" or parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)


def _of_several(make: Callable[..., nn.Module], dim: int, heads: int) -> nn.Module:
    try:
        return make(dim, heads=heads)
    except TypeError as error:
        raise TypeError(
            f"Expected a network that can be made with `heads={heads}`; making one failed: {error}. Let it take "
            '`heads`, as `cf.networks.MLP` does, or give each output its own network: heads="separate".'
        ) from error


def network_for(network: Make | str | None, shape: tuple[int, ...]) -> Make:
    """Return the factory of the network: the given one, or the default for the shape of a sample.

    Vectors get an `MLP`, images the `UNet` of `cellflow.networks.sizes.unet_for`.

    Raises
    ------
    ValueError
        For images that are larger than any default, or a network of vectors for images.

    Examples
    --------
    >>> network_for(None, (3, 32, 32)).keywords
    {'width': 32, 'multipliers': (1, 2, 2, 2), 'attention': (1, 2, 3)}
    """
    if network == "mlp" and len(shape) == 3:
        raise ValueError("network='mlp' is for vectors; found images. Leave `network` out, or take network='unet'.")
    if network is not None:
        return networks.resolve(network)
    return networks.MLP if len(shape) == 1 else unet_for(shape)
