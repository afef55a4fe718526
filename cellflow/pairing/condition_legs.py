"""Legs: which points are paired with each other, for each condition, group and stretch of time."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cellflow.shapes import check_dense
from cellflow.signature import checked


@checked
@dataclass(frozen=True, eq=False)
class ConditionLeg:
    """Points that are paired with each other: those of one condition, and of one group, over one stretch of time.

    Parameters
    ----------
    name
        Name of the leg, such as a text or a tuple: the key of its plan.
    source, target
        Rows of the points where it begins, ``(n,)``, and where it ends, ``(m,)``. Legs may share points.
    start, stop
        Model times of both.
    condition
        Row of its condition in the table of conditions.

    Raises
    ------
    TypeError
        When the name cannot be the key of a mapping, such as a list.

    Examples
    --------
    >>> import torch
    >>> leg = ConditionLeg("drug A", torch.arange(5), torch.arange(5, 8))
    >>> leg.of(torch.arange(8) < 7).target
    tensor([5, 6])
    """

    name: Any
    source: Tensor
    target: Tensor
    start: float = 0.0
    stop: float = 1.0
    condition: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, Hashable):
            raise TypeError(f"Expected the name of a leg as text or a tuple; found {type(self.name).__name__}.")

    def of(self, points: Tensor) -> "ConditionLeg":
        """Return the leg of some points only, a mask over all of them ``(p,)``; a side may be left empty."""
        source, target = (rows[points[rows]] for rows in (self.source, self.target))
        return replace(self, source=source, target=target)


def called(name: Any) -> str:
    """Return the name of a leg for messages.

    Examples
    --------
    >>> called("A"), called(("A", 0.0, 3.5, "donor 1"))
    ("'A'", "'A, 0, 3.5, donor 1'")
    """
    parts = name if isinstance(name, tuple) else (name,)
    return repr(", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts))


def balanced(legs: Sequence[ConditionLeg]) -> list[float]:
    """Return the share of each leg in all pairs: conditions have equal shares.

    Within a condition, the intervals have equal shares, and within an interval, each group has its fraction of the
    points at its end.

    Examples
    --------
    >>> rows = torch.arange(4)
    >>> early, late = ConditionLeg("A", rows, rows, 0.0, 0.5, 0), ConditionLeg("A later", rows, rows, 0.5, 1.0, 0)
    >>> balanced([early, late, ConditionLeg("B", rows, rows, 0.0, 0.5, 1)])
    [0.25, 0.25, 0.5]
    """
    stretches: dict[int, dict[tuple[float, float], int]] = {}
    for leg in legs:
        of_condition = stretches.setdefault(leg.condition, {})
        of_condition[leg.start, leg.stop] = of_condition.get((leg.start, leg.stop), 0) + len(leg.target)
    of_legs = (stretches[leg.condition] for leg in legs)
    return [
        len(leg.target) / (len(stretches) * len(known) * known[leg.start, leg.stop])
        for leg, known in zip(legs, of_legs, strict=True)
    ]


def check_legs(legs: Sequence[ConditionLeg], *, points: int, conditions: int | None) -> None:
    """Refuse legs without possible pairs.

    Parameters
    ----------
    legs
        The legs.
    points, conditions
        How many points there are, and conditions in their table.

    Raises
    ------
    ValueError
        With the name of the leg.

    Examples
    --------
    >>> check_legs([ConditionLeg("A", torch.arange(2), torch.arange(2))], points=2, conditions=1)
    """
    for leg in legs:
        if not isinstance(leg, ConditionLeg):
            raise TypeError(f"Expected legs, each a `ConditionLeg`; found {type(leg).__name__} among them.")
    if len(legs) == 0 or len({leg.name for leg in legs}) < len(legs):
        raise ValueError(f"Expected one or more legs, each with its own name; found {len(legs)}.")
    for leg in legs:
        for side, rows in (("source", leg.source), ("target", leg.target)):
            check_dense(rows, what=f"`{side}` of leg {called(leg.name)}")
            if rows.ndim != 1 or not len(rows):
                raise ValueError(
                    f"Expected rows (n,) in `{side}` of leg {called(leg.name)}; found {tuple(rows.shape)}."
                )
            if rows.dtype != torch.int64 or int(rows.min()) < 0 or int(rows.max()) >= points:
                raise ValueError(
                    f"Expected rows of {points} points, as whole numbers (int64), in `{side}` of leg "
                    f"{called(leg.name)}; found {rows.dtype} up to {rows.max()}."
                )
        if not leg.start < leg.stop:
            raise ValueError(f"Expected leg {called(leg.name)} to go forward in time; found {leg.start} to {leg.stop}.")
        if conditions is not None and not 0 <= leg.condition < conditions:
            raise ValueError(
                f"Expected one of {conditions} rows of `conditions` for leg {called(leg.name)}; found {leg.condition}."
            )
