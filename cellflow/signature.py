"""The types in a signature, checked at the call: every wrong argument is refused in the same sentence.

Libraries that do the same (typeguard, beartype) know neither numbers of NumPy, which are as good as Python's, nor that
a truth value is no number and a protocol is told by what it is called with; and their messages name annotations.
"""

import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from cellflow.errors import unknown

_LOOKED_AT = 1000
"""Elements of a long list that are looked at."""
T = TypeVar("T", bound=Callable[..., Any])

_WORDS: dict[Any, str] = {
    bool: "True or False", int: "a whole number", float: "a number", str: "text", type(None): "None",
    torch.Tensor: "a torch tensor", torch.Generator: "a generator such as `cf.generator(seed=0)`",
}  # fmt: skip
"""What the commonest types are called in a message."""


def checked(thing: T) -> T:
    """Refuse arguments whose types differ from the signature, before the first line of a function runs.

    On a class it checks the constructor. Numbers are not truth values, and whole numbers have no fraction; a tensor or
    an array without axes counts as a number, and any path-like object as a path, see `as_stated`. A protocol is
    recognised by being callable, and a type that is imported for type checkers only by its name; what the signature
    leaves open stays open. Which values are valid is checked where they are used.

    Parameters
    ----------
    thing
        A function, a method, or a class.

    Raises
    ------
    TypeError
        When called with an argument of another type; the message names it.

    Examples
    --------
    >>> @checked
    ... def doubled(n: int) -> int:
    ...     return 2 * n
    >>> doubled(2)
    4
    >>> doubled("2")
    Traceback (most recent call last):
        ...
    TypeError: doubled() expected `n` to be a whole number; found '2'.
    """
    return checked_but()(thing)


def checked_but(*left: str) -> Callable[[T], T]:
    """Return `checked` for all arguments except some, which the function resolves itself, with its own messages.

    Parameters
    ----------
    *left
        The arguments that are left out.

    Examples
    --------
    >>> @checked_but("solver")
    ... def steps(solver: int, save: int = 2) -> object:
    ...     return solver
    >>> steps("rk4")
    'rk4'
    """

    def door(thing: T) -> T:
        if isinstance(thing, type):
            thing.__init__ = _guarded(thing.__init__, thing.__name__, left)  # type: ignore[misc]
            return thing
        return typing.cast("T", _guarded(thing, thing.__name__, left))

    return door


def check_type(value: object, hint: Any, *, name: str, where: str) -> None:
    """Raise unless a value has the type that a signature states.

    Parameters
    ----------
    value
        The value.
    hint
        The type.
    name
        The name of the argument.
    where
        Whose argument it is.

    Raises
    ------
    TypeError
        When it is of another type.

    Examples
    --------
    >>> check_type(0.5, float | None, name="sigma", where="Linear")
    """
    if _fits(value, hint):
        return
    if _is_huge(value):
        raise TypeError(
            f"{where}() expected `{name}` to be {_said(hint)}, of at most 64 bits if whole; found {_shown(value)}."
        )
    cure = f" Try `torch.as_tensor({name})`." if hint is torch.Tensor and hasattr(value, "__array__") else ""
    raise TypeError(f"{where}() expected `{name}` to be {_said(hint)}; found {_shown(value)}.{cure}")


def as_stated(value: Any, hint: Any, *, name: str, where: str) -> Any:
    """Return a value as a signature states it: a number from a tensor or array without axes, a path as a `Path`.

    Parameters
    ----------
    value, hint, name, where
        As for `check_type`.

    Raises
    ------
    TypeError
        When it is of another type.

    Examples
    --------
    >>> as_stated(torch.tensor(0.5), float, name="sigma", where="Linear")
    0.5
    """
    if _fits(value, hint):
        return value
    plain = _plain(value)
    if plain is not value and _fits(plain, hint):
        return plain
    check_type(value, hint, name=name, where=where)
    return value


def check_stored(owner: object, *left: str) -> None:
    """Raise unless the settings that a constructor has stored have the types of its signature.

    For estimators, whose constructors check nothing: ``fit`` does.

    Parameters
    ----------
    owner
        The estimator.
    *left
        Arguments that are resolved elsewhere.

    Raises
    ------
    TypeError
        When a setting is of another type; the message names it.

    Examples
    --------
    >>> import cellflow as cf
    >>> check_stored(cf.SnapshotFlow(steps=3))
    """
    kind = type(owner)
    for name, hint in _stated(kind.__init__, inspect.signature(kind.__init__)).items():
        if name not in left and hasattr(owner, name):
            check_type(getattr(owner, name), hint, name=name, where=kind.__name__)


def _guarded(function: Any, shown: str, left: tuple[str, ...]) -> Any:
    """Return the function behind a check of its arguments, but for those that are left."""
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}
    sure: dict[str, frozenset[type]] = {}
    names = [name for name, each in signature.parameters.items() if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    rest = next((n for n, each in signature.parameters.items() if each.kind is inspect.Parameter.VAR_POSITIONAL), None)
    positional = names[: names.index(rest)] if rest in names else names
    takes_more = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())

    def taken(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not hints:
            hints.update({name: hint for name, hint in _stated(function, signature).items() if name not in left})
            sure.update({name: _sure(hint) for name, hint in hints.items()})
        if not takes_more and (strange := named.keys() - signature.parameters.keys()):
            name, others = min(strange), [known for known in signature.parameters if known != "self"]
            choices = unknown("keyword", name, others).partition(". ")[2]
            raise TypeError(f"{shown}() got an unexpected keyword argument {name!r}. {choices}")
        # Too many or too few arguments: Python says so when the function itself is called.
        for place, (name, value) in enumerate(chain(zip(positional, given, strict=False), [*named.items()])):
            hint = hints.get(name, Any)
            if hint is Any or type(value) in sure[name]:
                continue
            plain = as_stated(value, hint, name=name, where=shown)
            if plain is not value and name in named:
                named[name] = plain
            elif plain is not value:
                given = (*given[:place], plain, *given[place + 1 :])
        if rest in hints:
            for value in given[len(positional) :]:
                check_type(value, hints[rest], name=rest, where=shown)
        return given, named

    def call(*given: Any, **named: Any) -> Any:
        given, named = taken(given, named)
        return function(*given, **named)

    return in_place_of(function, call)


def in_place_of(function: Any, call: Callable[..., Any]) -> Any:
    """Return ``call`` with the name, module and documentation of the function that it wraps.

    It then belongs to the module of that function, where doctest looks for examples.

    Examples
    --------
    >>> def doubled(n):
    ...     return 2 * n
    >>> in_place_of(doubled, lambda n: doubled(n) + 1)(3), in_place_of(doubled, print).__name__
    (7, 'doubled')
    """

    def there(*given: Any, **named: Any) -> Any:  # of names it uses one, which it brings along
        return call(*given, **named)

    found = types.FunctionType(there.__code__, function.__globals__, function.__name__, None, there.__closure__)
    for name in ("__module__", "__qualname__", "__doc__", "__annotations__"):
        setattr(found, name, getattr(function, name))
    found.__wrapped__ = function  # type: ignore[attr-defined]
    return found


def _stated(function: Any, signature: inspect.Signature) -> dict[str, Any]:
    """Return the type of each argument; the text of it where a name in it is known to type checkers only."""
    found: dict[str, Any] = {}
    for name, hint in function.__annotations__.items():
        if name == "return" or signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            continue
        try:
            found[name] = eval(hint, function.__globals__) if isinstance(hint, str) else hint
        except NameError:
            found[name] = hint
    return found


def _sure(hint: Any) -> frozenset[type]:
    """Return types of which every value fits: what a step of training hands on is not looked at any further."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return frozenset[type]().union(*map(_sure, typing.get_args(hint)))
    if hint is None:
        return frozenset({type(None)})
    plain = isinstance(hint, type) and typing.get_origin(hint) is None and not getattr(hint, "_is_protocol", False)
    return frozenset({hint}) if plain else frozenset()


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type, as far as that can be told."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        names = {kind.__name__ for kind in type(value).__mro__}
        known = names | {"None"} if value is None else names
        return any(not each.isidentifier() or each in known for each in hint.split(" | "))
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is bool or hint is int or hint is float:
        return _fits_number(value, hint)
    if origin is Callable:
        return callable(value)
    if origin is not None and isinstance(origin, type):
        return _fits_collection(value, origin, inner)
    if getattr(hint, "_is_protocol", False):
        called, needed = "__call__" in vars(hint), [name for name in vars(hint) if not name.startswith("_")]
        right = callable(value) if called else all(hasattr(value, name) for name in needed)
        return right and not isinstance(value, type)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _fits_number(value: object, hint: type) -> bool:
    """Whether a value is a truth value, a whole number, or any number."""
    switch = isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if hint is bool or switch:
        return switch and hint is bool
    return isinstance(value, Integral) if hint is int else isinstance(value, Real) and not _is_huge(value)


def _plain(value: Any) -> Any:
    """Return the number in a tensor or an array of no axes, and what stands for a path as a `Path`."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0 and not getattr(value, "is_meta", False):
        number = value.item()
        return number if isinstance(number, bool | int | float) else value
    if isinstance(value, os.PathLike) and isinstance(value.__fspath__(), str):
        return Path(value)
    return value


def _is_huge(value: object) -> bool:
    """Whether a whole number is too large for torch and NumPy, which take 64 bits, where any number would do."""
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _fits_collection(value: object, origin: type, inner: tuple[Any, ...]) -> bool:
    """Whether a value is a collection, of the right things in it: any that has a length will do for a sequence."""
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if not issubclass(origin, (tuple, Iterable)):
        return isinstance(value, origin)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return False
    if origin is Iterable or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        return origin is Iterable
    if hasattr(value, "ndim"):  # tensors, arrays, columns: their numbers have one type
        return value.ndim >= 1 and _fits_array(value, origin, inner)
    held = list(islice(value, _LOOKED_AT))
    if origin is tuple and Ellipsis not in inner:
        return len(held) == len(inner) and all(map(_fits, held, inner))
    number = bool(inner) and inner[0] in (bool, int, float)
    return not inner or all(
        _fits(each, inner[0]) or (hasattr(each, "__array__") and not (number and np.ndim(each))) for each in held
    )


def _fits_array(value: Any, origin: type, inner: tuple[Any, ...]) -> bool:
    """Whether an array may stand for a sequence: of numbers where such are asked for, and as long as a pair is."""
    if origin is tuple and Ellipsis not in inner and len(value) != len(inner):
        return False
    asked = [each for each in inner if each is not Ellipsis]
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if asked == [str] and kind in "biufc":
        return False
    return not asked or not all(each in (int, float) for each in asked) or (kind in "biuf" and value.ndim == 1)


def _said(hint: Any) -> str:
    """Return a type in words."""
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        return hint.replace(" | ", " or ")
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = list(dict.fromkeys(_said(each) for each in inner))
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if origin is Callable or (getattr(hint, "_is_protocol", False) and "__call__" in vars(hint)):
        return "a function"
    if origin is tuple and Ellipsis not in inner:
        return f"{len(inner)} of them: {', '.join(_said(each) for each in inner)}"
    if isinstance(origin, type):
        return "a mapping" if issubclass(origin, Mapping) else f"a sequence of {_said(inner[0])}"
    return _WORDS.get(hint, f"a {hint.__name__}" if isinstance(hint, type) else "something")


def _shown(value: object) -> str:
    """Return a value as it is shown in a message: text and numbers themselves, of anything large its type."""
    if value is None or isinstance(value, (bool, str, Real, os.PathLike)):
        return repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
