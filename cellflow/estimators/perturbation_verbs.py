"""A fitted `PerturbationFlow` carries cells into any condition: its verbs, bound in its class."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow import integrate, paths
from cellflow.cells.snapshots import read_rep
from cellflow.cells.states import Cells, States, StatesLike, as_states, positions
from cellflow.cells.stores import Stored, as_adata
from cellflow.estimators.arms import Arm, Arms
from cellflow.estimators.portions import Inputs, Portion, few_at_once
from cellflow.fields import outputs
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy, Trajectory
from cellflow.integrate.failures import check_finite
from cellflow.metrics import population_distance
from cellflow.seeds import generator_at
from cellflow.shapes import finite
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.perturbation import PerturbationFlow

WAY = Fixed("midpoint", steps=10)
"""Default solver: trajectories from controls to treated cells are nearly straight; its error is below a thousandth."""
Condition: TypeAlias = Mapping[str, Any] | pd.DataFrame | StatesLike
"""A condition: a value, or values, for each column; or rows that `cellflow.cells.FittedConditions.encode` made."""


@checked_but("adata", "cells", "condition")
def read(
    self: "PerturbationFlow",
    adata: "AnnData | Stored",
    cells: Cells | None = None,
    condition: Condition | None = None,
) -> States:
    """Read the states and conditions of cells, under the keys of this flow.

    Parameters
    ----------
    adata
        Cells with the representation of the fit, or their files.
    cells
        A mask over all cells, names, or rows of ``obs``; ``None`` for all.
    condition
        The condition, for all these cells or for each; ``None`` for their own.

    Returns
    -------
    States
        States ``(n, d)``, times, which are all 0, positions in ``adata`` ``(n,)``, and conditions ``(n, k)``.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    KeyError, ValueError
        When the representation, a column of the conditions or a cell is missing, a name is unknown, or the width or
        loadings of the representation differ from ``fit``.

    Warns
    -----
    UserWarning
        When the states of fitted cells differ from ``fit``, or cells are far from those fitted.

    Examples
    --------
    >>> import cellflow as cf
    """
    self._check_fitted()
    adata = as_adata(adata, rep=self.rep)
    x = read_rep(adata, self.rep)
    rows = np.arange(len(x)) if cells is None else positions(adata, cells)
    if condition is None:
        table = self.conditions_.read(adata.obs)
        vectors, time = table.vectors[table.index[rows]], np.where(table.is_control[table.index], 0.0, 1.0)
    else:
        vectors, time = encoded(self, condition, len(rows)).float().cpu().numpy(), np.full(len(x), np.nan)
    check_cells(self, adata, x, time)
    return States(x[rows], np.zeros(len(rows)), rows, vectors)


def check_cells(flow: "PerturbationFlow", adata: "AnnData", x: np.ndarray, time: np.ndarray | None = None) -> None:
    """Refuse, or warn of, cells whose representation differs from the fit, see `cellflow.cells.fingerprint`.

    Parameters
    ----------
    flow
        A fitted flow.
    adata
        The cells.
    x
        Their states, ``(n, d)``.
    time
        0 for controls and 1 for treated cells, ``(n,)``; ``None`` if unknown.

    Raises
    ------
    ValueError
        When the width, the loadings or the order of columns differ.

    Warns
    -----
    UserWarning
        When the states of fitted cells have changed, or cells are far from those fitted.
    """
    _check_shape(flow, x.shape)
    if flow.fingerprint_ is not None:
        flow.fingerprint_.check(adata, flow.rep, x, np.full(len(x), np.nan) if time is None else time)


@checked_but("solver", "condition")
def transport(
    self: "PerturbationFlow",
    x: StatesLike,
    *,
    condition: Condition,
    reverse: bool = False,
    save: int = 2,
    solver: Fixed | Adaptive | Jumps | str | int = WAY,
) -> Trajectory:
    """Carry control cells to their state under a condition, without noise.

    Parameters
    ----------
    x
        States ``(n, d)``, in units of the representation.
    condition
        A value for each column of the conditions, as ``{"drug": "A+B", "dose": 3.0}``, or a column of ``n`` values; a
        table of ``n`` rows; or rows ``(n, k)`` that ``conditions_.encode`` made.
    reverse
        Whether to carry treated cells back to controls; the inverse, up to the error of the solver.
    save
        Number of equally spaced points to return, both ends included.
    solver
        `cellflow.integrate.Fixed` or `Adaptive`; or the name of a method, or a number of steps. After ``distill``
        also `cellflow.integrate.Jumps`.

    Returns
    -------
    Trajectory
        Model times from 0 (control) to 1 (treated), and states ``(save, n, d)``, on the CPU.

    Raises
    ------
    NotFittedError
        Before ``fit``; for ``Jumps`` before ``distill``.
    TypeError
        For a solver with noise: `simulate` takes it.
    KeyError, ValueError
        When a column of the condition is missing or unknown, a name was not seen in training and has no embedding, or
        the states have another width than the model's.
    """
    chosen = integrate.resolve(solver, default=WAY, verb="PerturbationFlow.transport", noisy="simulate")
    given, field = _inputs(self, x, condition), few_at_once(self._velocity(), self.n_features_in_)
    start, stop = (1.0, 0.0) if reverse else (0.0, 1.0)

    def carry(some: Portion) -> Trajectory:
        return self._carry(field, some.x, chosen, start=start, stop=stop, save=save, condition=some.condition)

    return given.carried(carry, solver=chosen)


@checked_but("solver", "condition")
def simulate(
    self: "PerturbationFlow",
    x: StatesLike,
    *,
    condition: Condition,
    reverse: bool = False,
    save: int = 2,
    solver: Noisy | str | int = Noisy(),
    seed: int = 0,
) -> Trajectory:
    """Carry control cells to a condition with noise: each has many possible outcomes.

    Parameters
    ----------
    x, condition, reverse, save
        As for `transport`.
    solver
        `cellflow.integrate.Noisy`; or its method, or its number of steps.
    seed
        Seed of the noise.

    Returns
    -------
    Trajectory
        As of `transport`.

    Raises
    ------
    TypeError
        When the flow was fitted without a score, or for a solver without noise: `transport` takes it.
    """
    chosen = integrate.resolve(solver, default=Noisy(), verb="PerturbationFlow.simulate", smooth="transport")
    self._check_fitted()
    if not self.stochastic:
        raise TypeError(
            "This flow was fitted without a score and cannot be simulated with noise. Fit one with "
            "`PerturbationFlow(path=cf.paths.BrownianBridge(sigma), stochastic=True)`, or use `transport`."
        )
    given, field = _inputs(self, x, condition), few_at_once(self.field_, self.n_features_in_)
    start, stop = (1.0, 0.0) if reverse else (0.0, 1.0)
    law: dict[str, Any] = {"sigma": paths.resolve(self.path).sigma, "solver": chosen, "save": save}

    def carry(some: Portion) -> Trajectory:
        span: dict[str, Any] = {"start": start, "stop": stop, "condition": some.condition}
        return integrate.sde(field, some.x, generator=some.noise(seed), **law, **span)

    return given.carried(carry, solver=chosen)


@checked_but("condition")
def velocity(self: "PerturbationFlow", x: StatesLike, *, condition: Condition, t: float = 0.0) -> np.ndarray:
    """Return the velocity ``(n, d)`` of states, per unit of model time (the whole way from control to treated).

    Parameters
    ----------
    x, condition
        As for `transport`.
    t
        Model time, from 0 (controls) to 1 (treated).
    """
    given, field = _inputs(self, x, condition), few_at_once(self._velocity(), self.n_features_in_)
    if not 0 <= t <= 1:
        raise ValueError(f"Expected `t` from 0 (control) to 1 (treated); found {t}.")

    def evaluate(some: Portion) -> Tensor:
        at = some.x.new_full((len(some.x),), t)
        found = outputs(field(at, some.x, some.condition)).velocity
        check_finite(found, at, field=self.field_, x=some.x, start=some.x)
        return found

    return np.asarray(given.evaluated(evaluate).numpy())


@checked_but("adata", "y")
def score(self: "PerturbationFlow", adata: "AnnData | Stored", y: None = None) -> float:
    """Return minus the mean W1 between predicted and given treated cells, so that higher is better.

    The given controls of each group are carried to each condition of its treated cells. scikit-learn can select
    settings by it, as with `cellflow.SnapshotFlow.score`.

    Parameters
    ----------
    adata
        Control and treated cells, of the fit or held out, or their files.
    y
        Not used; for compatibility with scikit-learn.

    Returns
    -------
    float
        In units of the representation; at most 0. It depends on the number of cells, see
        `cellflow.metrics.population_distance`.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    ValueError
        When no group has both controls and treated cells.
    """
    self._check_fitted()
    adata = as_adata(adata, rep=self.rep)
    self.read(adata)
    arms = self._arms(adata)
    both = [arm for arm in arms.arms if len(arm.source)]
    if not both:
        raise ValueError("Expected a group with controls and treated cells; found none. Give more of the cells.")
    found = [
        population_distance(
            carried(self, arms, arm), arms.x[arm.target], generator=generator_at(int(self.seed), number)
        )
        for number, arm in enumerate(both)
    ]
    return -sum(found) / len(found)


def carried(flow: "PerturbationFlow", arms: Arms, arm: Arm, solver: Fixed | Adaptive = WAY) -> np.ndarray:
    """Return the controls of an arm, carried to the condition of its treated cells, ``(n, d)``.

    If treated cells differ in covariates, controls take those of treated cells in turn.
    """
    turns = arm.target[np.arange(len(arm.source)) % len(arm.target)]
    rows = torch.from_numpy(arms.table.vectors[arms.table.index[turns]])
    return np.asarray(flow.transport(arms.x[arm.source], condition=rows, solver=solver).x[-1].numpy())


def encoded(flow: "PerturbationFlow", condition: Condition, n: int) -> Tensor:
    """Return a condition as rows for ``n`` states, ``(n, k)``.

    Raises
    ------
    KeyError, ValueError
        When columns are missing or unknown, or rows are of another shape.
    """
    if isinstance(condition, Mapping | pd.DataFrame):
        return torch.from_numpy(flow.conditions_.encode(condition, n))
    rows = as_states(condition, what="`condition`")
    if rows.shape != (n, flow.conditions_.width):
        raise ValueError(
            f"Expected `condition` as a mapping, or encoded in rows ({n}, {flow.conditions_.width}); found shape "
            f"{tuple(rows.shape)}."
        )
    return finite(rows, what="`condition`")


def _inputs(flow: "PerturbationFlow", x: StatesLike, condition: Condition) -> Inputs:
    flow._check_fitted()
    states = as_states(x, what="`x`")
    _check_shape(flow, states.shape)
    rows = encoded(flow, condition, len(states))
    return Inputs(states, next(flow.field_.parameters()), condition=rows, shown=flow.progress)


def _check_shape(flow: "PerturbationFlow", shape: Any) -> None:
    if len(shape) != 2 or shape[1] != flow.n_features_in_:
        raise ValueError(
            f"Expected `x` of shape (cells, {flow.n_features_in_}), as `{flow.rep}` had in `fit`; found {tuple(shape)}."
        )
