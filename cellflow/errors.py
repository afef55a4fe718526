"""The errors of cellflow, one of its warnings, and two sentences that they share."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

FEW = 3
"""Up to so many choices are seen at a glance."""


class ConvergenceError(RuntimeError):
    """A solver stopped before it reached its tolerance; the message names the cure."""


class NotFittedError(ValueError, AttributeError):
    """An estimator was used before ``fit``."""


class MissingDependencyError(ImportError):
    """An optional package is needed; the message says how to install it."""


class CheckpointError(RuntimeError):
    """A saved model or training state is truncated, foreign, or does not fit what it is loaded into."""


class OutsideLevelsWarning(UserWarning):
    """Images are much brighter or darker than those with whose levels they are read, and are clipped."""


def unknown(kind: str, name: object, choices: Iterable[object]) -> str:
    """Say that ``name`` is not a known ``kind``, and list what is known; of more than a few, which one is alike.

    Examples
    --------
    >>> unknown("coupling", "exakt", ["exact", "independent"])
    "Unknown coupling 'exakt'. Choose from: 'exact', 'independent'."
    >>> unknown("keyword", "stepz", ["path", "rep", "seed", "steps", "within"])
    "Unknown keyword 'stepz'. Choose from: 'path', 'rep', 'seed', 'steps', 'within'. Did you mean 'steps'?"
    """
    known = list(choices)
    said = f"Unknown {kind} {name!r}. Choose from: {', '.join(map(repr, known))}."
    words = [choice for choice in known if isinstance(choice, str)]
    alike = get_close_matches(name, words, n=1) if isinstance(name, str) and len(known) > FEW else []
    return f"{said} Did you mean {alike[0]!r}?" if alike else said


def optional(module: str, *, install: str) -> Any:
    """Import an optional package, or say how to install it.

    Raises
    ------
    MissingDependencyError
        When ``module`` is not installed.

    Examples
    --------
    >>> optional("math", install="pip install math").sqrt(4.0)
    2.0
    """
    try:
        return import_module(module)
    except ImportError as error:
        message = f"`{module}` is needed for this and could not be imported ({error}). Install it with `{install}`."
        raise MissingDependencyError(message) from error
