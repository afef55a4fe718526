"""The errors of cellflow, and two sentences that they share."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any


class ConvergenceError(RuntimeError):
    """A solver stopped before it reached its tolerance; the message names the cure."""


class NotFittedError(ValueError, AttributeError):
    """An estimator was used before ``fit``."""


class MissingDependencyError(ImportError):
    """An optional package is needed; the message says how to install it."""


class CheckpointError(RuntimeError):
    """A saved model or training state is truncated, foreign, or does not fit what it is loaded into."""


def unknown(kind: str, name: object, choices: Iterable[object]) -> str:
    """Say that ``name`` is not a known ``kind``, and list what is known.

    Examples
    --------
    >>> unknown("coupling", "exakt", ["exact", "independent"])
    "Unknown coupling 'exakt'. Choose from: 'exact', 'independent'."
    """
    return f"Unknown {kind} {name!r}. Choose from: {', '.join(repr(choice) for choice in choices)}."


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
