"""Parts as settings: ``_target_`` names a class or a function, and the other settings are what it takes."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, partial
from importlib import import_module
from typing import Any

TARGET = "_target_"
MARKS = {TARGET: str, "_partial_": bool, "_convert_": str}
"""Settings that say how a part is made: ``_partial_`` if it gets more arguments later."""


def find(target: str, *, name: str = TARGET) -> Any:
    """Return the class or function of a dotted name.

    Raises
    ------
    ValueError
        When there is none; ``name`` is that of the setting.

    Examples
    --------
    >>> find("cellflow.paths.Linear").__name__
    'Linear'
    >>> find("cellflow.paths.Line", name="path._target_")
    Traceback (most recent call last):
    ...
    ValueError: `path._target_` names nothing: `cellflow.paths` has no `Line`. Did you mean `Linear`?
    """
    words = target.split(".")
    if len(words) < 2 or not all(word.isidentifier() for word in words):
        raise ValueError(f"Expected `{name}` to be a dotted name such as `mine.Network`; found {target!r}.")
    found, reached = _module(words, name)
    for word in words[reached:]:
        if not hasattr(found, word):
            close = get_close_matches(word, dir(found), n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            shown = ".".join(words[:reached])
            raise ValueError(f"`{name}` names nothing: `{shown}` has no `{word}`.{hint}")
        found, reached = getattr(found, word), reached + 1
    if not callable(found):
        raise ValueError(f"Expected `{name}` to name a class or a function; found {target!r}, which is neither.")
    return found


@cache
def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Return the arguments of a class or a function by name, with their kinds.

    Examples
    --------
    >>> from cellflow.integrate import Jumps
    >>> parameters(Jumps)["steps"].annotation
    <class 'int'>
    """
    try:
        found = inspect.signature(target, eval_str=True).parameters
    except NameError:  # annotations of names that only type checkers import
        plain = inspect.signature(target).parameters.values()
        found = {p.name: p.replace(annotation=inspect.Parameter.empty) for p in plain}  # type: ignore[assignment]
    except ValueError:  # written in C
        found = {"given": inspect.Parameter("given", inspect.Parameter.VAR_KEYWORD)}  # type: ignore[assignment]
    return {name: each for name, each in found.items() if each.kind is not inspect.Parameter.VAR_POSITIONAL}


def kind_in(taken: Mapping[str, inspect.Parameter], name: str) -> Any:
    """Return the kind of a setting among those that a part takes, or raise `KeyError`."""
    if name in MARKS:
        return MARKS[name]
    if name in taken and taken[name].kind is not inspect.Parameter.VAR_KEYWORD:
        return taken[name].annotation
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values()):
        return Any
    raise KeyError(name)


def takes(taken: Mapping[str, inspect.Parameter], name: str) -> bool:
    """Whether a part takes a setting."""
    try:
        kind_in(taken, name)
    except KeyError:
        return False
    return True


def lacking(settings: Mapping[str, Any], taken: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return the settings that a part needs but lacks; empty for one that is made later."""
    if settings.get("_partial_"):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [each for each in taken.values() if each.kind in named and each.default is inspect.Parameter.empty]
    return [each.name for each in needed if each.name not in settings]


def build(settings: Any) -> Any:
    """Return the part that settings describe, or the settings if they describe none.

    Parameters
    ----------
    settings
        What YAML holds; parts of a part are built too.

    Examples
    --------
    >>> build({"_target_": "cellflow.paths.Linear", "sigma": 0.5})
    Linear(sigma=0.5)
    """
    if isinstance(settings, list):
        return [build(each) for each in settings]
    if not isinstance(settings, Mapping):
        return settings
    given = {key: build(each) for key, each in settings.items() if key not in MARKS}
    if TARGET not in settings:
        return given
    made = partial(find(settings[TARGET]), **given)
    if settings.get("_partial_"):
        return made
    try:
        return made()
    except (TypeError, ValueError) as error:
        if settings[TARGET].startswith("cellflow."):
            raise
        raise ValueError(f"`{settings[TARGET]}` makes nothing of {given}: {error}") from error


def _module(words: list[str], name: str) -> tuple[Any, int]:
    """Return the module with which a dotted name begins, and how many words its name has."""
    for reached in range(len(words) - 1, 0, -1):
        module = ".".join(words[:reached])
        try:
            return import_module(module), reached
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # something that the module itself imports
    raise ValueError(f"`{name}` names nothing: there is no module `{words[0]}` to import.")
