"""Which settings there are, and of which kind each is: those of a command, and those of its parts."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from cellflow.cli import parts
from cellflow.cli.kinds import check, read
from cellflow.cli.parts import TARGET
from cellflow.cli.schema import GROUPS, OF_RUNS, OF_THE_USER, PARTS, SHORT, kind_of
from cellflow.cli.words import nearest

MISSING: Any = ...
"""Value of a setting that has to be given."""


def leaves(settings: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its full name.

    Examples
    --------
    >>> list(leaves({"data": {"path": "a.h5ad"}, "masses": {0: 1.0}}))
    [('data.path', 'a.h5ad'), ('masses', {0: 1.0})]
    """
    for key, value in settings.items():
        if isinstance(value, Mapping) and (TARGET in value or (not under and key in GROUPS)):
            yield from leaves(value, f"{under}{key}.")
        else:
            yield f"{under}{key}", value


def check_all(settings: Mapping[str, Any], command: str) -> None:
    """Check settings from YAML files, which may include the user's own.

    Raises
    ------
    ValueError
        When the setting does not exist, or its value is of another kind.
    """
    for name, value in list(leaves(settings)):
        if value is not MISSING and not (name.endswith(f".{TARGET}") and value is None):
            check(value, _kind(name, settings, command), name=name)


def check_part(part: Mapping[str, Any], under: str) -> None:
    """Check the settings of a part.

    Raises
    ------
    ValueError
        When it has no such setting, or a value is of another kind.
    """
    for name, value in part.items():
        try:
            check(value, _kind_in(part, [name], under), name=f"{under}.{name}")
        except KeyError:
            raise ValueError(f"{part[TARGET]} has no setting `{name}`.") from None


def set_word(settings: dict[str, Any], name: str, text: str, command: str) -> None:
    """Apply one word of a command line.

    Raises
    ------
    ValueError
        When the setting does not exist, or the text is not a value of its kind.
    """
    name = _whole_name(name, settings)
    top, dot, column = name.partition(".")
    if dot and column and top in OF_THE_USER and top in settings:
        value = read(text, str, name=name)
        settings[top] = (settings[top] if isinstance(settings[top], dict) else {}) | {column: value}
        return
    value = read(text, _kind(name, settings, command), name=name)
    *outer, last = name.split(".")
    node = settings
    for key in outer:
        node[key] = node[key] if isinstance(node.get(key), dict) else {}
        node = node[key]
    if last == TARGET and node.get(last) != value:
        taken = parts.parameters(parts.find(value, name=name))
        for key in [key for key in node if not parts.takes(taken, key)]:
            del node[key]  # a default of the part that was there before
    node[last] = value


def _whole_name(name: str, settings: Mapping[str, Any]) -> str:
    """Return the setting that a word in its place stands for, where the command has it, and none of that name."""
    meant, known = SHORT.get(name, name), settings.keys() - GROUPS
    return (
        meant
        if name not in known and (isinstance(settings.get(name), Mapping) or meant in dict(leaves(settings)))
        else name
    )


def complete(settings: Mapping[str, Any], command: str) -> None:
    """Raise if settings are missing, or do not make the parts that they describe.

    Raises
    ------
    ValueError
        With the names of what is missing, or the error of a part.
    """
    missing = [name for name, value in leaves(settings) if value is MISSING]
    finished = settings.get("model") is not None
    chosen = [group for group in PARTS if _is_chosen(settings.get(group)) and not (finished and group in OF_RUNS)]
    for group in chosen:
        missing += [f"{group}.{name}" for name in parts.lacking(settings[group], _taken(settings[group], group))]
    if missing:
        wanted = " ".join(f"{key}=..." for key in sorted(missing))
        raise ValueError(f"missing {wanted}. `cellflow {command} --help` explains every setting.")
    for group in chosen:
        parts.build(settings[group])


def _is_chosen(part: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(part, Mapping) and part.get(TARGET) is not None


def _taken(part: Mapping[str, Any], under: str) -> dict[str, Any]:
    return parts.parameters(parts.find(part[TARGET], name=f"{under}.{TARGET}"))


def _kind(name: str, settings: Mapping[str, Any], command: str) -> Any:
    """Return the kind of a setting, or say that there is none."""
    known = [each for each, _ in leaves(settings)]
    top, *inner = name.split(".")
    part = settings.get(top)
    try:
        if top in PARTS and inner and isinstance(part, Mapping):
            if inner == [TARGET] or _is_chosen(part):
                return _kind_in(part, inner, top)
            if name not in known:
                raise ValueError(_not_chosen(name, command))
        elif top in PARTS and inner and command in ("translate", "generate", "perturb", "demo", "fit"):
            raise ValueError(_not_chosen(name, command))
        if name not in known:
            raise KeyError(name)
        return kind_of(name, command)
    except KeyError:
        more = [f"{top}.{each}" for each in _taken(part, top)] if top in PARTS and _is_chosen(part) else []
        raise ValueError(nearest(name, command, [*known, *more])) from None


def _kind_in(part: Mapping[str, Any], inner: list[str], under: str) -> Any:
    """Return the kind of a setting of a part, or of a part of it."""
    first, *rest = inner
    if first == TARGET:
        return str
    kind = parts.kind_in(_taken(part, under), first)
    if not rest:
        return kind
    within = part.get(first)
    if rest == [TARGET]:
        return str
    if not isinstance(within, Mapping) or TARGET not in within:
        raise KeyError(first)
    return _kind_in(within, rest, f"{under}.{first}")


def _not_chosen(name: str, command: str) -> str:
    top = name.partition(".")[0]
    if command in ("interpolate", "velocity", "fate", "report", "distill") and top in OF_RUNS:
        return f"`{command}` takes its {top} from the run. `{name}` needs your own `{top}.{TARGET}=`."
    return f"`{name}` belongs to a {top} that is not chosen. Choose it with `{top}=`."
