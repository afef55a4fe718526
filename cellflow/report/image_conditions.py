"""Images of a model of conditions: one input in each condition, beside real images of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cellflow.estimators.conditional_verbs import Condition, Conditional
from cellflow.images import ImageSet

MOST = 6
"""Maximum number of conditions to draw: the first, the last, and others evenly between."""


def in_turn(model: Conditional, real: ImageSet, n: int) -> dict[str, Any]:
    """Return the conditions of real images for ``n`` others, as a keyword argument; empty without conditions.

    Parameters
    ----------
    model
        The fitted model.
    real
        Images with the columns of its conditions.
    n
        Number of conditions: if few, real images are taken evenly; if many, in turn.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> in_turn(SimpleNamespace(conditions_=None), None, 3)
    {}
    """
    if model.conditions_ is None:
        return {}
    rows = np.arange(n) * len(real) // n if n < len(real) else np.arange(n) % len(real)
    table = _table(model, real).iloc[rows]
    return {"condition": table.reset_index(drop=True)}


def condition_rows(
    model: Conditional, make: Callable[[Condition], Tensor], real: ImageSet, *, shown: int
) -> list[tuple[str, Tensor]]:
    """Return rows of images for a figure: for each condition generated images, and real ones below.

    Parameters
    ----------
    model
        The fitted model.
    make
        Makes images ``(shown, c, h, w)`` of a condition.
    real
        Images with the columns of its conditions.
    shown
        Images in a row.
    """
    if model.conditions_ is None:
        return []
    table = model.conditions_.read(_table(model, real))
    chosen = np.unique(np.linspace(0, len(table) - 1, min(MOST, len(table))).round().astype(int))
    rows: list[tuple[str, Tensor]] = []
    for k in chosen.tolist():
        known = table.rows(k)
        first = _table(model, real).iloc[known[0]]
        condition = {str(name): value for name, value in first.items()}
        rows += [(_broken(table.labels[k]), make(condition)), ("real", real.scaled(known[:shown].tolist()))]
    return rows


def _table(model: Conditional, real: ImageSet) -> pd.DataFrame:
    if model.conditions_ is None or real.obs is None:
        raise ValueError("Expected images with a table `obs` of their conditions; found none. Read them with `table=`.")
    return real.obs[list(model.conditions_.columns)]


def _broken(label: str) -> str:
    """Return a label on two lines where it is long."""
    return label.replace(", ", "\n") if len(label) > 12 else label
