"""The levels of the images that a model was fitted on: what black and white are in its cameras' numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from cellflow.images.levels import Levels
from cellflow.images.pixels import to_bytes, to_steps

Known = tuple[Levels | None, ...]
"""The levels of each domain; ``None`` of bytes, and of what is no image."""


def levels_of(*domains: object) -> Known:
    """Return the levels of domains.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> levels_of(cf.images.ImageSet(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)))
    (None,)
    """
    return tuple(getattr(domain, "levels", None) for domain in domains)


def recorded(levels: Known) -> list[dict[str, Any] | None] | None:
    """Return levels as a saved model has them: ``None`` if no domain has any.

    Examples
    --------
    >>> recorded((None, None)) is None
    True
    """
    if not any(levels):
        return None
    return [None if known is None else known.record() for known in levels]


def restored(record: Sequence[Mapping[str, Any] | None] | None, *, domains: int) -> Known:
    """Return the levels of a saved model; empty if it is from an earlier version."""
    return tuple(map(Levels.of, record or [None] * domains))


def check_levels(known: Levels | None, given: object, *, again: str) -> None:
    """Refuse images whose black and white levels differ from the fit.

    Parameters
    ----------
    known
        Levels of the fit.
    given
        The images.
    again
        What the levels to read them with are called.

    Raises
    ------
    ValueError
        Naming both.
    """
    found = getattr(given, "levels", None)
    if not hasattr(given, "levels") or found is known:
        return
    if known is None:
        raise ValueError(not_bytes(cast("Levels", found).kind))
    if found and (found.low, found.high) == (known.low, known.high):
        _check_channels(known, found)
        return
    was = "bytes" if found is None else f"{_range(found)}"
    raise ValueError(
        f"Expected images with the levels of the fit, from black to white {_range(known)}; found {was}. Read them with "
        f"`read_images(..., levels={again})`."
    )


def not_bytes(kind: str) -> str:
    """Say that images have another kind of numbers than those of a fit on bytes.

    Examples
    --------
    >>> not_bytes("uint16")
    'Expected images as bytes, as in the fit; found uint16 numbers. Fit on images of their kind, or save these with ...
    """
    return (
        f"Expected images as bytes, as in the fit; found {kind} numbers. Fit on images of their kind, or save these "
        "with 8 bits."
    )


def check_order(source: Levels | None, target: Levels | None) -> None:
    """Refuse domains with the same channels in another order; they may well have different ones.

    Raises
    ------
    ValueError
        Naming both.

    Examples
    --------
    >>> brightfield, dna = (Levels((0.0,), (9.0,), channels=(name,)) for name in ("brightfield", "DNA"))
    >>> check_order(brightfield, dna)
    """
    one, other = (None if levels is None else levels.channels for levels in (source, target))
    if one and other and one != other and sorted(one) == sorted(other):
        raise ValueError(
            f"Expected the same channels in the same order; found {', '.join(one)} in the source and "
            f"{', '.join(other)} in the target. Write the channels of all images in one order."
        )


def _check_channels(known: Levels, found: Levels) -> None:
    if known.channels and found.channels and known.channels != found.channels:
        raise ValueError(
            f"Expected the channels of the fit, {', '.join(known.channels)}; found {', '.join(found.channels)}. Give "
            "images with these, in that order."
        )


def as_images(states: Tensor, levels: Levels | None) -> Tensor:
    """Return pixels from -1 to 1 as an `cellflow.images.ImageSet` of such levels keeps them."""
    return to_bytes(states) if levels is None else to_steps(states)


def _range(levels: Levels) -> str:
    ends = [f"{low:g} to {high:g}" for low, high in zip(levels.low, levels.high, strict=True)]
    return ", ".join(ends[:3]) + (", ..." if len(ends) > 3 else "")
