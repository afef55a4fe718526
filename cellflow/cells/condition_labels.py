"""Names of conditions for people: two conditions of one fit have the same only where they are the same."""

from typing import TYPE_CHECKING

from cellflow.cells.condition_rows import Key, names_tuple
from cellflow.cells.doses import digits
from cellflow.cells.treatments import quoted

if TYPE_CHECKING:
    from cellflow.cells.conditions import Conditions
    from cellflow.cells.fitted_conditions import FittedConditions


def label_of(key: Key, columns: "FittedConditions | Conditions") -> str:
    """Return the readable name of a condition.

    It depends only on the condition and is unique among the same columns: doses have all of their digits, and names
    that contain a separator of labels are in quotes.

    Examples
    --------
    >>> import cellflow as cf
    >>> both = cf.Conditions("drug", dose="dose")
    >>> label_of(((("A", 1000001.0),), (), ()), both), label_of(((("A, dose 1", 3.0),), (), ()), both)
    ('A, dose 1000001', "'A, dose 1', dose 3")
    """
    (effect, levels, numbers), named = key, names_tuple(columns.dose)
    joint, marks = _joint(columns), _marks(columns)
    names = [quoted(name, marks) for name, _ in effect]
    doses = [digits(dose) for _, dose in effect]
    if not effect:
        first = quoted(columns.control, marks) if columns.treatment else " + ".join(f"{name} 0" for name in named)
    elif not columns.treatment:
        first = ", ".join(f"{name} {dose}" for (name, _), dose in zip(effect, doses, strict=True))
    elif len(set(doses)) == 1:
        first = joint.join(names) + (f", {named[0]} {doses[0]}" if named else "")
    else:
        first = joint.join(f"{name} {dose}" for name, dose in zip(names, doses, strict=True))
    rest = [f"{name} {quoted(value, marks)}" for name, value in zip(columns.categories, levels, strict=True)]
    rest += [f"{name} {digits(value)}" for name, value in zip(columns.numbers, numbers, strict=True)]
    return ", ".join([first, *rest])


def _joint(columns: "FittedConditions | Conditions") -> str:
    """Return what stands between the names of a combination: the separator, unless it is easily taken for more."""
    given = columns.separator or "+"
    return "+" if ", " in given or any(sign.isdigit() or sign in "\"'" for sign in given) else given


def _marks(columns: "FittedConditions | Conditions") -> tuple[str, ...]:
    """Return what a name in a label cannot hold; nothing where a label is one name."""
    parts = (", ",) if columns.dose or columns.categories or columns.numbers else ()
    combined = columns.separator or len(names_tuple(columns.treatment)) > 1
    return (*parts, _joint(columns)) if combined else parts
