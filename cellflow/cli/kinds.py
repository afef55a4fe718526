"""What a setting may be: a word of the command line is read, a value from YAML is checked, by the same kinds.

A kind is what Python writes as an annotation: ``bool``, ``int | None``, ``list[float]``, ``Literal["auto"] | int``,
`Path`, or numbers in a range: ``Annotated[int, Between(1)]``. Text stays as it is, without any syntax.
"""

import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cellflow.cli.documents import parse_texts

YES, NO = ("true", "yes", "on"), ("false", "no", "off")
NULL = ("null", "~")
WHOLE = re.compile(r"[-+]?[0-9][0-9_]*")
NUMBER = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)([eE][-+]?[0-9]+)?")
INFINITE = re.compile(r"[-+]?\.?inf", re.IGNORECASE)
SIDES = re.compile(r"([0-9]+) ?[x\u00d7*] ?([0-9]+)", re.IGNORECASE)
"""How people write two sides: 512x384."""
LARGEST = 2**63
"""Whole numbers are below this: more do not fit where they go."""


@dataclass(frozen=True)
class Between:
    """A range of numbers, its ends included unless ``open``."""

    low: float
    high: float = math.inf
    open: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in the range."""
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        if self.open:
            return f"between {self.low} and {self.high}"
        return f"of at least {self.low}" if math.isinf(self.high) else f"from {self.low} to {self.high}"


COUNT = Annotated[int, Between(1)]
SEED = Annotated[int, Between(0)]
TIMES = float | str | list[float | str]
"""One time or several; text is read as elsewhere, see `cellflow.cells.clock.distinct_times`."""


class Unfit(Exception):
    """A value that is not of its kind."""


def read(text: str, kind: Any, *, name: str) -> Any:
    """Return the value of a word.

    Parameters
    ----------
    text
        The text after the equals sign.
    kind
        What it should be.
    name
        Name of the setting, for the error.

    Raises
    ------
    ValueError
        When it has another kind.

    Examples
    --------
    >>> read("off", bool, name="validate"), read("[0.5, 2e1]", list[float], name="at"), read("a,(b", Path, name="out")
    (False, [0.5, 20.0], 'a,(b')
    >>> read("maybe", bool, name="validate")
    Traceback (most recent call last):
    ...
    ValueError: Expected `validate` to be true or false; found 'maybe'.
    """
    try:
        if not text or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise Unfit
        return _convert(_tree(text, kind), kind, said=True)
    except Unfit:
        raise ValueError(_refusal(name, kind, text)) from None


def check(value: Any, kind: Any, *, name: str) -> Any:
    """Return a value from YAML if it is of its kind.

    Raises
    ------
    ValueError
        When it is not.

    Examples
    --------
    >>> check([1, 2], list[int], name="multipliers")
    [1, 2]
    >>> check("yes", bool, name="resume")
    Traceback (most recent call last):
    ...
    ValueError: Expected `resume` to be true or false; found 'yes'.
    """
    try:
        return _convert(value, kind, said=False)
    except Unfit:
        raise ValueError(_refusal(name, kind, value)) from None


def unquoted(text: str) -> str:
    """Return a text without surrounding quotes left by a shell.

    Examples
    --------
    >>> unquoted("'a b'"), unquoted("it's"), unquoted("'a' and 'b'")
    ('a b', "it's", "'a' and 'b'")
    """
    mark = text[:1]
    if len(text) < 2 or mark not in ("'", '"') or text[-1] != mark:
        return text
    inner = text[1:-1]
    return text if mark in inner.replace(f"\\{mark}", "") else inner.replace(f"\\{mark}", mark)


def described(kind: Any) -> str:
    """Describe a kind in words.

    Examples
    --------
    >>> described(COUNT | Literal["auto"] | None), described(list[float])
    ("a whole number of at least 1, 'auto' or null", 'a list of numbers')
    """
    choices = [each for one in _alternatives(kind) for each in _choices(one)]
    *most, last = dict.fromkeys(choices)
    return f"{', '.join(most)} or {last}" if most else last


def _refusal(name: str, kind: Any, value: Any) -> str:
    found = repr(value) if value != "" else "nothing"
    found = found if len(found) <= 100 else f"{found[:96]} ..."
    return f"Expected `{name}` to be {described(kind)}; found {found}.{_as_list(name, kind, value)}"


def _as_list(name: str, kind: Any, value: Any) -> str:
    """Say how a list is written, where text between commas would be one that fits.

    Examples
    --------
    >>> _as_list("data.genes", list[str], "Gata1,Mpo")
    " A list is written in brackets: 'data.genes=[Gata1,Mpo]'."
    >>> _as_list("size", int | tuple[int, int], "512x384")
    " A list is written in brackets: 'size=[512,384]', height first."
    """
    if not isinstance(value, str) or not value:
        return ""
    sides = SIDES.fullmatch(value)
    parts = list(sides.groups()) if sides else [part.strip() for part in value.split(",")]
    try:
        _convert(parts, kind, said=True)
    except Unfit:
        return ""
    return f" A list is written in brackets: '{name}=[{','.join(parts)}]'{', height first' * (name == 'size')}."


def _alternatives(kind: Any) -> list[Any]:
    """Return the kinds of which a value may be one, those last that take most."""
    if get_origin(kind) in (Union, types.UnionType):
        return sorted((each for arg in get_args(kind) for each in _alternatives(arg)), key=_width)
    return [kind]


def _width(kind: Any) -> int:
    order: list[Any] = [bool, int, float, Literal, list]
    plain = _plain(kind)
    return 9 if plain in (str, Path) else 8 if plain is type(None) else order.index(plain) if plain in order else 7


def _plain(kind: Any) -> Any:
    """Return a kind without its arguments or its range."""
    origin = get_origin(kind)
    if origin is Annotated:
        return get_args(kind)[0]
    return list if origin in (list, Sequence, tuple) else origin or (type(None) if kind is None else kind)


def _tree(text: str, kind: Any) -> Any:
    """Return the word of a command line as text, or as lists and mappings of texts where its kind has some."""
    kinds = {_plain(each) for each in _alternatives(kind)}
    structured = kinds & {list, dict, Mapping, Any, Parameter.empty}
    if text[0] in "[{" and structured:
        try:
            return parse_texts(text)
        except ValueError:
            if Path not in kinds:  # a file may be called "[a].h5ad"
                raise Unfit from None
    return unquoted(text) if str in kinds or Path in kinds or _anything(kind) else text


def _anything(kind: Any) -> bool:
    return kind is Any or kind is Parameter.empty


def _convert(value: Any, kind: Any, *, said: bool) -> Any:
    """Return a value as its kind; ``said`` on the command line, where everything is text at first."""
    if _anything(kind):
        return _guess(value) if said else value
    for each in _alternatives(kind):
        try:
            return _one(value, each, said=said)
        except Unfit:
            continue
    raise Unfit


def _guess(value: Any) -> Any:
    """Return the value of a setting of which nothing is known."""
    if isinstance(value, list):
        return [_guess(each) for each in value]
    if isinstance(value, dict):
        return {_guess(key): _guess(each) for key, each in value.items()}
    return _convert(value, bool | int | float | None | str, said=True) if value else value


def _one(value: Any, kind: Any, *, said: bool) -> Any:
    origin, args, plain = get_origin(kind), get_args(kind), _plain(kind)
    if origin is Annotated:
        found = _one(value, args[0], said=said)
        return _require(found, args[1].holds(found))
    if origin is Literal:
        return _require(value, isinstance(value, str) and value in args)
    if plain is list:
        items = _require(value, isinstance(value, Sequence) and not isinstance(value, str))
        if origin is tuple and Ellipsis not in args:
            _require(items, len(items) == len(args))
        return [_convert(item, args[0] if args else Any, said=said) for item in items]
    if plain in (dict, Mapping):
        _require(value, isinstance(value, Mapping))
        key, inner = args or (Any, Any)
        return {_convert(k, key, said=said): _convert(v, inner, said=said) for k, v in value.items()}
    if plain in SCALARS:
        return SCALARS[plain](value, said)
    return _require(value, isinstance(value, Mapping) and "_target_" in value)  # a part


def _require(value: Any, fits: bool) -> Any:
    if not fits:
        raise Unfit
    return value


def _bool(value: Any, said: bool) -> bool:
    if said and isinstance(value, str) and value.lower() in YES + NO:
        return value.lower() in YES
    return bool(_require(value, isinstance(value, bool)))


def _int(value: Any, said: bool) -> int:
    if said and isinstance(value, str) and WHOLE.fullmatch(value) and len(value) < 30:
        value = int(value)
    _require(value, isinstance(value, int) and not isinstance(value, bool))
    return int(_require(value, abs(value) < LARGEST))


def _float(value: Any, said: bool) -> float:
    if said and isinstance(value, str):
        if WHOLE.fullmatch(value):
            return _int(value, said)
        if INFINITE.fullmatch(value):
            return float(value.replace(".", ""))
        value = float(_require(value, NUMBER.fullmatch(value) is not None))
        _require(value, math.isfinite(value))
    _require(value, isinstance(value, int | float) and not isinstance(value, bool) and value == value)
    return value if isinstance(value, float) else _int(value, said)


def _none(value: Any, said: bool) -> None:
    _require(value, value is None or (said and isinstance(value, str) and value.lower() in NULL))


def _text(value: Any, said: bool) -> str:
    return str(_require(value, isinstance(value, str) and value != "" and "\0" not in value))


def _path(value: Any, said: bool) -> str:
    found = _text(value, said)
    return str(Path(found).expanduser()) if found.startswith("~/") else found


SCALARS: dict[Any, Callable[[Any, bool], Any]] = {
    bool: _bool, int: _int, float: _float, type(None): _none, str: _text, Path: _path,
}  # fmt: skip


def _choices(kind: Any) -> list[str]:
    """Return what a kind is, or each of its words."""
    return [repr(word) for word in get_args(kind)] if get_origin(kind) is Literal else [_described(kind)]


def _described(kind: Any) -> str:
    origin, args, plain = get_origin(kind), get_args(kind), _plain(kind)
    if origin is Annotated:
        return f"{_described(args[0])} {args[1]}"
    if plain is list:
        inner = _plural(described(args[0])) if args else "values"
        several = origin is tuple and Ellipsis not in args
        return f"a list (in square brackets) of {len(args)} {inner}" if several else f"a list of {inner}"
    names = {
        bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path",
        type(None): "null", dict: f"a mapping such as {'{drug: A}' if args[:1] == (str,) else '{0: 1.0, 3: 2.5}'}",
    }  # fmt: skip
    return names.get(dict if plain is Mapping else plain, "a part with `_target_`")


def _plural(words: str) -> str:
    for one, several in (("a number ", "numbers "), ("a whole number ", "whole numbers ")):
        if words.startswith(one):
            return several + words.removeprefix(one)
    return {
        "a whole number": "whole numbers",
        "a number": "numbers",
        "text": "texts",
        "a path": "paths",
        "a mapping such as {drug: A}": "mappings",
    }.get(words, words)
