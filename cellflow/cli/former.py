"""Settings of earlier versions on the command line, under their present names."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from cellflow.cli import documents
from cellflow.cli.kinds import read

KINDS: dict[str, Any] = {
    "noise": bool,
    "sampling_steps": int | None,
    "jumps": int | None,
    "taught": bool,
    "score": Literal["two_heads", "two_networks", "shared", "separate"] | None,
    "bend": float,
    "forget": float,
    "judge": str | None,
}
"""What the former settings are."""


def modern_words(words: list[str]) -> list[str]:
    """Return the settings ``name=value`` of a command line under their present names, with a warning for old ones.

    Examples
    --------
    >>> modern_words(["model=runs/first"])
    ['model=runs/first']
    """
    given = dict(word.split("=", 1) for word in words if "=" in word)
    then = {name: _value(name, text) for name, text in given.items() if _is_old(name, text)}
    if not then:
        return words
    from cellflow.cli.former_rules import modern_settings

    known = modern_settings(then)
    old = list(then)
    new = [word for name in known for word in _said(name, known[name])]
    if old:
        was, now = " ".join(f"{name}={given[name]}" for name in old), " ".join(new) or "the default"
        message = f"`{was}` is now `{now}`; the old setting will go in the next version."
        warnings.warn(message, FutureWarning, stacklevel=2)
    return [word for word in words if word.split("=", 1)[0] not in old] + new


def _is_old(name: str, text: str) -> bool:
    """Whether a word is one of an earlier version: by its name, or by what ``growth`` once could be."""
    return name in KINDS or (name == "growth" and text in ("null", *(f"two_{each}" for each in ("heads", "networks"))))


def _value(name: str, text: str) -> Any:
    """Return the value of a former setting; several of a sweep stay as they are."""
    if name == "growth":
        return documents.parse(text)
    for each in text.split(","):
        found = read(each, KINDS[name], name=name)
    return found if "," not in text else text


def _said(name: str, value: Any) -> list[str]:
    """Return settings as words: a part as the name of its file, then what is set of it."""
    if not isinstance(value, Mapping):
        return [f"{name}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"]
    part = [f"{name}={value['_target_'].rpartition('.')[2].lower()}"] if "_target_" in value else []
    return part + [f"{name}.{key}={each}" for key, each in value.items() if key != "_target_"]
