"""Times as laboratories write them: "d0", "E8.5", "24h", "day 3", "P7", all with one prefix and one suffix."""

import re
from collections.abc import Iterable, Mapping

from cellflow.renamed import warn

NAMED = 5
"""Offending labels that a message shows."""
WORDS = {
    "a", "d", "day", "dpa", "dpc", "dpf", "dpi", "dpt", "e", "embryonic", "h", "hour", "hpf", "hpi", "hr", "m", "min",
    "minute", "mo", "month", "p", "pi", "postnatal", "s", "sec", "second", "stage", "t", "time", "timepoint", "tp", "u",
    "w", "week", "wk", "wpc", "y", "year", "yr",
}  # fmt: skip
"""Words that stand beside times."""
_FORM = re.compile(r"\s*(?P<prefix>[^\d+.,]*?)(?P<number>[+-]?\d+(?:\.\d+)?)(?P<suffix>[^\d]*?)\s*")
_DATE = re.compile(r"\s*(\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./]\d{1,2}[./]\d{2,4})")
_JOINTS = " _:.-"
"""What stands between a word and a number, and means nothing."""


def read_time_labels(labels: Iterable[str], *, what: str) -> tuple[dict[str, float], str]:
    """Return the number in each label, and in words how they were read.

    Parameters
    ----------
    labels
        Different labels.
    what
        How the column is called in a message.

    Raises
    ------
    ValueError
        When a label has no number, or several; when what stands around the numbers differs, so that they may be in
        different units or count from different times ("E8.5" and "P0", "24h" and "3d"); when a line before a number
        may be a hyphen or a minus.

    Examples
    --------
    >>> read_time_labels(["E8.5", "E9"], what="`adata.obs['stage']`")
    ({'E8.5': 8.5, 'E9': 9.0}, "`adata.obs['stage']` is read as the numbers after 'E': 'E8.5' is 8.5.")
    """
    given = list(labels)
    found = {label: _FORM.fullmatch(label) for label in given}
    bad = [label for label, match in found.items() if match is None]
    if bad:
        raise ValueError(
            f"{what} holds {_shown(bad)}: not numbers, nor one number with a word before or after it, such as 'day 3'. "
            f"{_cure(what, given)}"
        )
    parts = {label: _parts(match) for label, match in found.items() if match is not None}
    words: dict[tuple[str, str], str] = {}
    for label, (before, _, after) in parts.items():
        words.setdefault((_word(before), _word(after)), label)
    if len(words) > 1:
        raise ValueError(
            f"{what} holds {_shown(words.values())}, which need not be in one unit, nor count from one day. "
            f"{_cure(what, given)}"
        )
    prefix, suffix = next(iter(words))
    minus = _minus(list(parts.values()), what)
    numbers = {label: float(number.lstrip("-") if not minus else number) for label, (_, number, _) in parts.items()}
    unknown = [word for word in (prefix, suffix) if word and word.strip("=").lower() not in WORDS]
    if unknown:
        warn(
            f"{what} holds {_shown(given)}, which is read as times by the numbers beside {unknown[0]!r}. If that names "
            "samples or donors and not times, take another column; if it does not, make the column numbers."
        )
    shown = f"'{given[0]}' is {numbers[given[0]]:g}"
    around = " and ".join(f"{side} {word!r}" for side, word in (("after", prefix), ("before", suffix)) if word)
    return numbers, f"{what} is read as the numbers {around}: {shown}." if around else f"{what}: {shown}."


def read_alike(labels: Iterable[str], like: Mapping[str, float], *, what: str) -> dict[str, float]:
    """Return the number in each label that is written as those of a column of times are.

    Parameters
    ----------
    labels
        Labels of times.
    like
        The labels of the column, and their numbers, see `read_time_labels`.
    what
        How the labels are called in a message.

    Raises
    ------
    ValueError
        When a label is written otherwise, and may be in another unit.

    Examples
    --------
    >>> read_alike(["day 1"], {"day 0": 0.0, "day 2": 2.0}, what="`at`")
    {'day 1': 1.0}
    """
    given, known = list(labels), list(like)
    shapes = {label: _FORM.fullmatch(label) for label in [*known, *given]}
    words = {label: None if m is None else (_word(m["prefix"]), _word(m["suffix"])) for label, m in shapes.items()}
    other = [label for label in given if words[label] != words[known[0]]]
    if other:
        raise ValueError(
            f"{what} holds {_shown(other)}: not numbers, nor written as the time column is, such as {known[0]!r}. "
            "Write it so, or give a number in the unit of that column."
        )
    numbers, _ = read_time_labels(dict.fromkeys([*known, *given]), what=what)
    return {label: numbers[label] for label in given}


def _parts(match: re.Match[str]) -> tuple[str, str, str]:
    return match["prefix"], match["number"], match["suffix"]


def _word(text: str) -> str:
    """Return a word without what joins it to a number; whole words in lower case and in the singular."""
    word = text.strip(_JOINTS)
    return word.lower().removesuffix("s") if len(word) > 2 else word


def _minus(parts: list[tuple[str, str, str]], what: str) -> bool:
    """Return whether a line before a number is a minus: where it is not before all of them.

    Raises
    ------
    ValueError
        When it may be either.
    """
    lines = [number for before, number, _ in parts if before.strip(_JOINTS) and number.startswith("-")]
    if len(lines) < len(parts):
        return True
    words = {before.strip(_JOINTS) for before, *_ in parts}
    if any(float(number) == 0 for number in lines) and min(map(len, words)) > 2:  # "T-0" counts down
        return False
    raise ValueError(
        f"{what} holds {_shown(f'{before}{number}' for before, number, _ in parts)}: a hyphen, or a minus? Write "
        "numbers: `adata.obs['time'] = adata.obs[...].str.extract(r'(\\d+)')[0].astype(float)` for a hyphen."
    )


def _cure(what: str, labels: list[str]) -> str:
    """Return how to make a column of numbers."""
    some = ", ".join(f"{label!r}: ..." for label in labels[:3])  # numbers of ours would be taken for times
    more = ", ..." if len(labels) > 3 else ""
    column = what.strip("`")
    if all(_DATE.match(label) for label in labels):
        dates = f"pd.to_datetime({column}.astype(str))"
        return f"Count from the first, in days: `adata.obs['days'] = ({dates} - {dates}.min()) / pd.Timedelta(days=1)`."
    return (
        "Say when each was taken, in one unit, with your numbers for the dots: "
        f"`adata.obs['time'] = {column}.astype(str).map({{{some}{more}}}).astype(float)`."
    )


def _shown(labels: Iterable[str]) -> str:
    several = list(labels)
    more = f" and {len(several) - NAMED} more" if len(several) > NAMED else ""
    return ", ".join(map(repr, several[:NAMED])) + more
