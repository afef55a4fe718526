"""What a field sees beside time and state: conditions read, given in words, and known to its network."""

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from torch import Tensor, nn

from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.conditions import Conditions, resolve
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.shapes import as_states

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.snapshots import SnapshotFlow

log = logging.getLogger(__name__)

Condition: TypeAlias = Mapping[str, Any] | pd.DataFrame | np.ndarray | Tensor
"""A condition in words, from columns to values; a table of such; or what a field sees of it, ``(n, width)``."""


def fitted_to(conditions: Conditions | str | None, adata: "AnnData") -> FittedConditions | None:
    """Return the conditions of cells as fitted; ``None`` if there are none."""
    chosen = resolve(conditions)
    return None if chosen is None else chosen.fit(adata.obs, adata.uns)


def note_no_control(fitted: FittedConditions | None, table: ConditionTable | None) -> None:
    """Log a warning if there are treatments but no untreated cells."""
    if fitted is None or table is None or not fitted.effects.width or table.is_control.any():
        return
    where = fitted.treatment or fitted.dose
    log.warning(
        "No cells are controls (%r in %r): treatments are known only relative to each other, and predictions for "
        "untreated cells, or for treatments that were not fitted, rest on no measurement",
        fitted.control if fitted.treatment else 0,
        " or ".join(where),
    )


def of_cells(
    flow: "SnapshotFlow", adata: "AnnData", rows: np.ndarray, condition: Condition | None
) -> np.ndarray | None:
    """Return what a flow sees of some cells, ``(n, width)``: their own conditions, or the given ones.

    Categories and numbers that a mapping leaves out are each cell's own.
    """
    fitted = known_to(flow, condition)
    if fitted is None:
        return None
    obs = adata.obs.iloc[rows]
    if condition is None:
        table = fitted.read(obs)
        return np.asarray(table.vectors[table.index])
    if isinstance(condition, Mapping | pd.DataFrame):
        return fitted.encode(condition, len(rows), obs=obs)
    return _encoded(condition, len(rows), fitted)


def seen(flow: "SnapshotFlow", condition: Condition | None, n: int) -> Tensor | None:
    """Return what the field of a flow sees of the conditions of ``n`` states, ``(n, width)``; ``None`` without any.

    Raises
    ------
    ValueError
        When a flow with conditions gets none, or one without conditions gets some.
    KeyError, ValueError
        As `FittedConditions.encode`.
    """
    fitted = known_to(flow, condition)
    if fitted is None:
        return None
    if condition is None:
        such = ", ".join(f"{name!r}: ..." for name in fitted.columns)
        raise ValueError(
            f"This flow was fitted with conditions, which states alone do not have. Pass "
            f"`condition={{{such}}}`, or `condition=flow.read(adata).condition` for each cell's own."
        )
    if isinstance(condition, Mapping | pd.DataFrame):
        rows = fitted.encode(condition, n)
    else:
        rows = _encoded(condition, n, fitted)
    return as_states(rows, what="`condition`")


def known_to(flow: "SnapshotFlow", condition: Condition | None) -> FittedConditions | None:
    """Return the conditions of the fit; ``None`` if there are none and none is given."""
    fitted = flow.conditions_
    if fitted is None and condition is not None:
        raise ValueError(
            "This flow was fitted without conditions. Leave out `condition`, or fit one with "
            "`SnapshotFlow(conditions=...)`."
        )
    return fitted


def seeing(make: Callable[..., nn.Module], fitted: FittedConditions | None) -> Callable[..., nn.Module]:
    """Return a factory of networks that see conditions.

    Raises
    ------
    TypeError
        When the factory takes no ``condition_dim``.

    Examples
    --------
    >>> import cellflow as cf
    >>> fitted = cf.Conditions("drug").fit(pd.DataFrame({"drug": ["control", "A", "B"] * 2}))
    >>> seeing(cf.networks.MLP, fitted)(5).condition_dim
    2
    """
    if fitted is None:
        return make
    parameters = inspect.signature(make).parameters.values()
    if not any(one.name == "condition_dim" or one.kind == one.VAR_KEYWORD for one in parameters):
        raise TypeError(
            "Expected a network that can be made with `condition_dim=`, the width of the conditions, as "
            f"`cf.networks.MLP` can; found {make!r}."
        )
    return partial(make, condition_dim=fitted.width)


def refuse(flow: "SnapshotFlow", what: str, instead: str) -> None:
    """Raise for a flow with conditions, where conditions are not supported.

    Raises
    ------
    ValueError
        With what to do instead.
    """
    if flow.conditions is not None:
        raise ValueError(f"`{what}` does not support conditions yet. {instead}")


def _encoded(condition: np.ndarray | Tensor, n: int, fitted: FittedConditions) -> np.ndarray:
    """Return conditions that are encoded already, provided that there is a row for each of ``n`` states."""
    rows: np.ndarray = as_states(condition, what="`condition`").cpu().numpy().astype(np.float32)
    if rows.shape != (n, fitted.width) or not np.isfinite(rows).all():
        raise ValueError(
            f"Expected `condition` as a mapping from {list(fitted.columns)} to values, or as finite numbers of shape "
            f"({n}, {fitted.width}), a row for each state; found shape {tuple(rows.shape)}."
        )
    return rows
