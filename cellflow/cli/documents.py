"""YAML from outside, read as data: no tags, no references from one place to another, and of bounded depth."""

from pathlib import Path
from typing import Any

import yaml

DEEPEST = 20
"""Levels of lists within lists: settings have three."""
LONGEST = 1_000_000
"""Bytes of a file of settings: ours have two thousand."""


def parse(text: str) -> Any:
    """Return what a YAML text holds.

    Raises
    ------
    ValueError
        When it is not YAML, is nested too deeply, or has references.

    Examples
    --------
    >>> parse("{rate: 0.002, times: [1, 2]}")
    {'rate': 0.002, 'times': [1, 2]}
    >>> parse("[&a [1], *a]")
    Traceback (most recent call last):
    ...
    ValueError: expected plain YAML, found a reference (`&name` or `*name`); write the value out
    """
    return _parse(text, yaml.SafeLoader)


def parse_texts(text: str) -> Any:
    """Return what a YAML text holds, with every number and word left as its text.

    Examples
    --------
    >>> parse_texts("[1, no, 'a, b']")
    ['1', 'no', 'a, b']
    """
    return _parse(text, yaml.BaseLoader)


def read(file: Path) -> dict[str, Any]:
    """Return the settings in a YAML file.

    Raises
    ------
    ValueError
        When it cannot be read, or holds something other than settings; see `parse`.
    """
    try:
        if file.stat().st_size > LONGEST:
            raise ValueError(f"{file}: expected settings, found a file of {file.stat().st_size:,} bytes.")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected YAML, found bytes that are not text.") from error
    try:
        found = parse(text)
    except ValueError as error:
        raise ValueError(f"{file}: {error}.") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{file}: expected lines such as `steps: 3000`, found none or others.")
    return found


def _parse(text: str, loader: Any) -> Any:
    try:
        problem = _problem(text)
        if problem is None:
            return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"expected YAML, found something else{where}") from error
    except ValueError as error:  # a date that there is not, or a number of thousands of digits
        raise ValueError("expected YAML, found a date or a number that cannot be") from error
    raise ValueError(problem)


def _problem(text: str) -> str | None:
    """Say why nothing is to be built of a text, or return ``None``."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            return "expected plain YAML, found a reference (`&name` or `*name`); write the value out"
        if getattr(event, "tag", None):
            return "expected plain YAML, found a tag (`!name`); leave it out"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return f"expected at most {DEEPEST} lists within lists, found more"
    return None
