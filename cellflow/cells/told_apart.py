"""Treatments that the vectors given for names do not tell apart: from the control, or from each other."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.condition_labels import label_of
from cellflow.cells.condition_rows import Key
from cellflow.cells.name_vectors import listed
from cellflow.cells.treatments import Treated

if TYPE_CHECKING:
    from cellflow.cells.fitted_conditions import FittedConditions

log = logging.getLogger(__name__)

TOLD = 1e-5
"""Share of the length of the terms of a sum that two sums differ by, if it is by more than an error of rounding."""


def check_told_apart(keys: list[Key], fitted: "FittedConditions") -> None:
    """Refuse treatments that a field would take for the control, and log which it would take for each other.

    Parameters
    ----------
    keys
        The conditions of a training.
    fitted
        What was learned of them.

    Raises
    ------
    ValueError
        When the vectors of some treatments are 0, or cancel.

    Examples
    --------
    >>> import pandas as pd, cellflow as cf
    >>> obs = pd.DataFrame({"drug": ["control", "A", "B"] * 2})
    >>> cf.Conditions("drug", embeddings={"drug": {"A": [1.0], "B": [0.0]}}).fit(obs)
    Traceback (most recent call last):
    ValueError: In `embeddings`, the vectors of 'B' are 0, or cancel: they would be taken for the control. Give ...
    """
    if fitted.effects.vectors is None:
        return
    alone = replace(fitted, categories=(), numbers=(), levels=(), moments=())
    different = sorted({treated for treated, *_ in keys if treated})
    terms = [_terms(treated, fitted) for treated in different]
    labels = [label_of((treated, (), ()), alone) for treated in different]
    sums = [each.sum(axis=0) for each in terms]
    least = [TOLD * float(np.linalg.norm(each, axis=1).sum()) for each in terms]
    nothing = [label for label, found, small in zip(labels, sums, least, strict=True) if np.linalg.norm(found) <= small]
    if nothing:
        raise ValueError(
            f"In `embeddings`, the vectors of {listed(nothing)} are 0, or cancel: they would be taken for the control. "
            "Give vectors that differ from 0 and do not cancel, or leave these cells out."
        )
    seen: dict[bytes, int] = {}
    for k, found in enumerate(sums):
        first = seen.setdefault((np.round(found, 5) + 0.0).tobytes(), k)  # -0.0 is 0.0
        if [name for name, _ in different[first]] != [name for name, _ in different[k]]:
            log.warning(
                "In `embeddings`, the vectors of %r and %r are the same: they are learned, and predicted, as one.",
                *(labels[first], labels[k]),
            )
            return


def _terms(treated: Treated, fitted: "FittedConditions") -> np.ndarray:
    """Return the vectors of some treatments, times their amounts, ``(names, width)``."""
    amounts = [1.0 if dose != dose else fitted.scales[name].amount(dose) for name, dose in treated]
    vectors = [fitted.effects.of(name, what="embeddings") for name, _ in treated]
    return np.asarray(np.array(amounts)[:, None] * np.array(vectors, dtype=np.float64))
