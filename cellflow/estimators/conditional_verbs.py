"""What the verbs of translators and generators are asked for: conditions in words, and guidance towards them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import repeat
from typing import Any, Protocol, TypeAlias, Union

import pandas as pd
import torch
from torch import Tensor

from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.condition_words import nothing
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.estimators.conditional_domains import seen
from cellflow.images.sets import ImageSet
from cellflow.integrate import Jumps

Condition: TypeAlias = Union[Mapping[str, Any], pd.DataFrame]  # noqa: UP007
"""A condition in words: a value, or a column of values, for each column that the conditions were read from."""


class Conditional(Protocol):
    """An estimator that may have learned conditions."""

    conditions_: FittedConditions | None
    controls_: bool
    condition_dropout: float


def asked(flow: Conditional, condition: Condition, n: int, *, obs: pd.DataFrame | None = None) -> Tensor:
    """Return what the field sees of a requested condition, ``(n, width)``.

    Parameters
    ----------
    flow
        The fitted estimator.
    condition
        The condition, for all samples or for each.
    n
        Number of samples.
    obs
        The table of the samples, for categories and numbers that the condition does not give.

    Raises
    ------
    ValueError
        When the estimator was fitted without conditions, a name is unknown, or the control is requested and was not
        trained on.
    KeyError
        When a column is missing, or is not one of the conditions.
    """
    if flow.conditions_ is None:
        raise ValueError(
            "This model was fitted without conditions. Fit one with `conditions=cf.Conditions(treatment=...)`, or "
            "leave `condition` out."
        )
    return _seen(flow, flow.conditions_.table(condition, n, obs=obs))


def own(flow: Conditional, obs: pd.DataFrame | None) -> Tensor | None:
    """Return what the field sees of the conditions in the samples' own tables; ``None`` without conditions.

    Raises
    ------
    ValueError
        When the samples have no table.
    KeyError
        When a column is missing.
    """
    if flow.conditions_ is None:
        return None
    if obs is None:
        raise ValueError(
            "This model has learned conditions: expected a `condition` to carry to, or samples whose table `obs` has "
            f"theirs, in columns {list(flow.conditions_.columns)}; found neither."
        )
    return _seen(flow, flow.conditions_.read(obs))


def check_guidance(flow: Conditional, guidance: float, solver: object) -> None:
    """Refuse guidance that the model does not support.

    Raises
    ------
    ValueError
        When no conditions were dropped in training, or for a solver that jumps, whose guidance is fixed.
    TypeError
        When it is not a number.
    """
    check_strength(guidance, dropped=flow.conditions_ is not None and flow.condition_dropout > 0)
    if guidance == 1:
        return
    if isinstance(solver, Jumps):
        raise ValueError("The guidance of jumps is fixed by `distill(..., guidance=...)`. Leave it out here.")


def check_strength(guidance: float, *, dropped: bool) -> None:
    """Refuse a guidance that is not a finite number, or a model whose conditions were not dropped in training.

    Raises
    ------
    ValueError
        Then.

    Examples
    --------
    >>> check_strength(1.0, dropped=False)
    """
    if not math.isfinite(guidance):
        raise ValueError(f"Expected a finite guidance; found {guidance}.")
    if guidance != 1 and not dropped:
        raise ValueError(
            f"Guidance {guidance} needs a model that was trained with dropped conditions. Fit one with "
            "`conditions=...` and `condition_dropout=0.1`."
        )


def check_part(strength: float) -> None:
    """Refuse a strength outside (0, 1].

    Raises
    ------
    ValueError
        Then.

    Examples
    --------
    >>> check_part(0.5)
    """
    if not 0 < strength <= 1:
        raise ValueError(f"Expected a `strength` above 0, where nothing changes, and at most 1; found {strength}.")


def in_turn(rows: Tensor | None, batch_size: int) -> Iterator[Tensor | None]:
    """Yield the conditions batch by batch.

    Examples
    --------
    >>> [len(part) for part in in_turn(torch.zeros(5, 2), 3)]
    [3, 2]
    """
    return repeat(None) if rows is None else iter(rows.split(batch_size))


def relabelled(found: Any, condition: Condition | None, fitted: FittedConditions | None) -> Any:
    """Return samples with their new condition in their table.

    Columns of treatments and doses that the condition leaves out become the control, and 0.

    Examples
    --------
    >>> import cellflow as cf
    >>> fitted = cf.Conditions("drug").fit(pd.DataFrame({"drug": ["A", "control"] * 2}))
    >>> images = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), obs=pd.DataFrame({"drug": ["control"] * 2}))
    >>> relabelled(images, {"drug": "A"}, fitted).obs["drug"].tolist()
    ['A', 'A']
    """
    if condition is None or fitted is None or not (isinstance(found, ImageSet) or hasattr(found, "obsm")):
        return found
    given = {str(name): list(values) if _many(values) else values for name, values in condition.items()}
    columns = nothing(fitted) | given
    index = pd.RangeIndex(len(found)) if found.obs is None else found.obs.index
    obs = pd.DataFrame(columns, index=index)
    if found.obs is not None:
        others = found.obs.drop(columns=list(obs.columns), errors="ignore")
        obs = pd.concat([others, obs], axis=1)[list(dict.fromkeys([*found.obs.columns, *obs.columns]))]
    if isinstance(found, ImageSet):
        return replace(found, obs=obs)
    found.obs = obs
    return found


def _many(values: Any) -> bool:
    return not isinstance(values, str) and hasattr(values, "__len__")


def _seen(flow: Conditional, table: ConditionTable) -> Tensor:
    if not flow.controls_ and table.is_control[table.index].any():
        raise ValueError(
            "The control was not among the conditions of the fit, and a control sample already has it. Choose a "
            f"treatment: {list(flow.conditions_.names) if flow.conditions_ else []}."
        )
    return seen(table.vectors, dropped=flow.condition_dropout > 0)[torch.from_numpy(table.index)]
