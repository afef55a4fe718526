"""Old keywords: taken for one version, with a warning that shows the new spelling; and warnings at the user's line."""

import contextlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from cellflow.errors import unknown

Rules = dict[str | tuple[str, ...], Callable[..., Mapping[str, Any]]]
"""New keywords for each old one, see `renamed`."""
PACKAGE = f"{Path(__file__).parent}{os.sep}"
DOOR = f"{PACKAGE}signature.py"
DECORATORS = contextlib.__file__
"""Where arguments are checked, before the function itself is entered."""


def renamed(
    owner: str,
    given: Mapping[str, Any],
    rules: Mapping[Any, Callable[..., Mapping[str, Any]]],
) -> dict[str, Any]:
    """Turn old keywords into the new ones, with a warning at the user's line.

    A function takes its old keywords as ``**given`` and translates them here.

    Parameters
    ----------
    owner
        Name of the function or class, as it is shown: ``"SnapshotFlow.transport"``.
    given
        The keywords that are not in its signature.
    rules
        For each old keyword, a function of its value that returns the new keywords and their values. Where several were
        merged into one, the key is the tuple of their names, and the function takes those that were given as keywords.

    Returns
    -------
    dict
        The new keywords and their values.

    Raises
    ------
    TypeError
        For a keyword that is neither old nor new, as Python would, with the choices.

    Warns
    -----
    FutureWarning
        For each rule that applies.

    Examples
    --------
    >>> import warnings
    >>> def fit(*, recipe=None, **given):
    ...     return renamed("fit", given, {"lr": lambda value: {"recipe": {"learning_rate": value}}})
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit(lr=0.1)
    {'recipe': {'learning_rate': 0.1}}
    >>> print(caught[0].message)
    `fit(lr=0.1)` is now `fit(recipe={'learning_rate': 0.1})`; the old keyword will go in the next version.
    """
    if not given:
        return {}
    frame, level = entered()
    grouped = {(names,) if isinstance(names, str) else names: rule for names, rule in rules.items()}
    for name in given:
        if not any(name in names for names in grouped):
            message = f"{owner}() got an unexpected keyword argument {name!r}."
            raise TypeError(f"{message} {unknown('keyword', name, _keywords(frame)).partition('. ')[2]}")
    found: dict[str, Any] = {}
    for names, rule in grouped.items():
        if old := {name: given[name] for name in names if name in given}:
            new = rule(**old) if names in rules else rule(*old.values())
            now, word = f"`{owner}({_shown(new)})`", "keyword" if len(old) == 1 else "keywords"
            message = f"`{owner}({_shown(old)})` is now {now}; the old {word} will go in the next version."
            warnings.warn(message, FutureWarning, stacklevel=level)
            found.update(new)
    return found


def entered() -> tuple[FrameType, int]:
    """Return the frame in which the user's call entered the package, and the ``stacklevel`` of the user's line.

    The frame is that of the function which was called, not that of the check of its arguments, nor of a decorator that
    passes everything on.
    """
    frame, level = sys._getframe(), 0
    inside = frame
    while frame.f_back is not None and _ours(frame.f_back):
        frame, level = frame.f_back, level + 1
        if frame.f_code.co_filename != DOOR and (len(_keywords(frame)) > 1 or not _passes_on(frame)):
            inside = frame
    return inside, level + 1


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's line: the one that called cellflow, however deep inside the warning is raised.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("Few cells.")
    >>> caught[0].message
    UserWarning('Few cells.')
    """
    warnings.warn(message, category, stacklevel=entered()[1])


def _ours(frame: FrameType) -> bool:
    """Say whether a frame is of this package: its files, what decorates them, constructors of `dataclasses` for it."""
    file = frame.f_code.co_filename
    made = file == "<string>" and str(frame.f_globals.get("__name__")).startswith("cellflow.")
    return made or file.startswith(PACKAGE) or file == DECORATORS


def _passes_on(frame: FrameType) -> bool:
    """Say whether the function of a frame takes any arguments, as decorators do."""
    return bool(frame.f_code.co_flags & inspect.CO_VARKEYWORDS)


def _keywords(frame: FrameType) -> list[str]:
    """Return the names that the function of a frame takes."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [name for name in names if name not in ("self", "cls")]


def _shown(keywords: Mapping[str, Any]) -> str:
    def short(value: object) -> str:
        text = repr(value)
        return text if len(text) <= 100 and "\n" not in text else f"<{type(value).__name__}>"

    return ", ".join(f"{name}={short(value)}" for name, value in keywords.items())
