"""How cells were matched in a fit, as JSON and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cellflow.pairing.choice import Matched
from cellflow.training.kinds import TEXT, TRUTH, Kind, is_number, many, maybe, whole

MATCHED: dict[str, Kind] = {
    "sizes": many(whole(0), least=2, most=2),
    "coupling": TEXT,
    "at_once": maybe(whole(1)),
    "keeps_mass": TRUTH,
    "instead_of": maybe(TEXT),
}
"""What is saved of each."""
_PARTS = many(Kind("a text or a number", lambda value: TEXT.holds(value) or is_number(value)), least=1)
_NAME = Kind("a text, or a list of texts and numbers", lambda value: TEXT.holds(value) or _PARTS.holds(value))
MATCHED_SOMETIMES = {"of": _NAME}
"""And with conditions: of which, by the name that it has in a mapping."""


def matching_record(found: Sequence[Matched] | Mapping[Any, Matched]) -> list[dict[str, Any]]:
    """Return how intervals, or the legs of a mapping, were matched, as JSON.

    Examples
    --------
    >>> matching_record({("A", 0.0, 3.0): Matched((4, 5), "Exact()", None, True)})[0]["of"]
    ['A', 0.0, 3.0]
    """
    if isinstance(found, Mapping):
        return [{"of": _plain(name), **_entry(one)} for name, one in found.items()]
    return [_entry(one) for one in found]


def matched_list(rows: Sequence[Mapping[str, Any]]) -> list[Matched]:
    """Return what `matching_record` made of a list."""
    return [_matched(row) for row in rows]


def matched_by_name(rows: Sequence[Mapping[str, Any]]) -> dict[Any, Matched]:
    """Return what `matching_record` made of a mapping.

    Raises
    ------
    KeyError
        When one has no name.
    ValueError
        When two have the same.

    Examples
    --------
    >>> found = {("A", 0.0, 3.0): Matched((4, 5), "Exact()", None, True)}
    >>> matched_by_name(matching_record(found)) == found
    True
    """
    names = [tuple(row["of"]) if isinstance(row["of"], list) else row["of"] for row in rows]
    if len(set(names)) != len(names):
        raise ValueError("Expected each row of `learned.matching` to be of another condition; found two of the same.")
    return dict(zip(names, matched_list(rows), strict=True))


def _plain(name: Any) -> Any:
    return list(name) if isinstance(name, tuple) else name


def _entry(one: Matched) -> dict[str, Any]:
    return asdict(one) | {"sizes": [int(size) for size in one.sizes]}


def _matched(row: Mapping[str, Any]) -> Matched:
    given = {name: row[name] for name in MATCHED}
    return Matched(**given | {"sizes": tuple(row["sizes"])})
