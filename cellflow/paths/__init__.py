"""Paths: how a pair ``(x0, x1)`` is joined, and the laws from which times are drawn."""

from cellflow.errors import unknown
from cellflow.paths.forms import BrownianBridge, Linear, Trigonometric, VariancePreserving
from cellflow.paths.laws import LogitNormal, Stratified, TimeLaw, Uniform
from cellflow.paths.path import GaussianPath, PathPoint

__all__ = [
    "PATHS",
    "BrownianBridge",
    "GaussianPath",
    "Linear",
    "LogitNormal",
    "PathPoint",
    "Stratified",
    "TimeLaw",
    "Trigonometric",
    "Uniform",
    "VariancePreserving",
    "resolve",
]

PATHS = {"linear": Linear(), "trigonometric": Trigonometric(), "variance_preserving": VariancePreserving()}
"""Paths that need no choice of the user's, by name; `BrownianBridge` asks for a sigma."""


def resolve(path: GaussianPath | str) -> GaussianPath:
    """Return the path itself, or the one of that name in ``PATHS``.

    Raises
    ------
    ValueError
        When no path has that name.
    TypeError
        When it is no path, such as a class of paths.

    Examples
    --------
    >>> resolve("linear")
    Linear(sigma=0.0)
    """
    if isinstance(path, str):
        if path not in PATHS:
            raise ValueError(f"{unknown('path', path, PATHS)} Or pass one, such as `cf.paths.BrownianBridge(0.3)`.")
        return PATHS[path]
    if not isinstance(path, GaussianPath):
        raise TypeError(f"Expected a path such as `cf.paths.Linear()`, or the name of one; found {path!r}.")
    return path
