"""A fitted `SnapshotFlow` in the user's times and units: its verbs, bound in its class."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from cellflow import integrate, paths
from cellflow.cells.clock import TimeLike, as_times
from cellflow.cells.states import StatesLike
from cellflow.cells.stores import Stored
from cellflow.estimators import prediction
from cellflow.estimators.conditional import Condition
from cellflow.estimators.portions import Portion, few_at_once
from cellflow.estimators.snapshot_states import inputs_of
from cellflow.fields import outputs
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy, Trajectory
from cellflow.integrate.failures import check_finite
from cellflow.integrate.trajectory import saved_times
from cellflow.signature import checked, checked_but

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.snapshots import SnapshotFlow


@checked_but("solver", "condition")
def transport(
    self: "SnapshotFlow",
    x: StatesLike,
    *,
    start: TimeLike,
    stop: TimeLike,
    save: int = 2,
    condition: Condition | None = None,
    solver: Fixed | Adaptive | Jumps | str | int = Fixed(),
    extrapolate: bool = False,
    **old: Any,
) -> Trajectory:
    """Carry states from one time to another, forward or backward; if growth was learned, with their weights.

    Parameters
    ----------
    x
        States ``(n, d)``, in units of the representation; each weighs 1/n at ``start``.
    start, stop
        Times in the user's units, or as the time column writes them, "day 1": one for all states, or one each ``(n,)``.
    save
        Number of equally spaced times to return, including both ends.
    condition
        With a flow that has conditions: one for all states, such as ``{"drug": "A", "dose": 3.0}``, a column of values
        each, or what the field sees, ``(n, width)``, as in ``flow.read(adata).condition``.
    solver
        `cellflow.integrate.Fixed`, `Adaptive`, or, once there is a flow map (`distill`), `Jumps`; or the name of a
        method, or a number of steps.
    extrapolate
        Whether times outside the fitted range are allowed.

    Returns
    -------
    Trajectory
        Times in the user's units, float64, and states ``(save, n, d)``, on the CPU; if growth was learned, log weights
        ``(save, n)``. Its ``mass()`` is the size of the population relative to that at ``start``.

    Raises
    ------
    NotFittedError
        Before ``fit``; with ``Jumps``, before ``distill``.
    TypeError
        For a solver with noise: `simulate` takes it.
    ValueError
        When a time is outside the fitted range, or the states have another width than the model's.
    """
    chosen = integrate.resolve(solver, default=Fixed(), verb="SnapshotFlow.transport", noisy="simulate", old=old)
    self._check_fitted()
    ends = _ends(self, start, stop)
    given = inputs_of(self, x, ends, condition, extrapolate=extrapolate)
    grows = self.growth_ and not isinstance(chosen, Jumps)
    field = few_at_once(self.field_ if grows else self._velocity(), self.n_features_in_)

    def carry(some: Portion) -> Trajectory:
        span = _span(some, save)
        if grows:
            return integrate.grow(field, some.x, solver=chosen, log_weight=given.log_weight(some), **span)
        if self.growth_ and self.distilled and self.flow_map_.growth:
            span["log_weight"] = given.log_weight(some)
        return self._carry(field, some.x, chosen, **span)

    return _in_users_time(given.carried(carry, solver=chosen), *ends)


@checked_but("solver", "condition")
def simulate(
    self: "SnapshotFlow",
    x: StatesLike,
    *,
    start: TimeLike,
    stop: TimeLike,
    save: int = 2,
    condition: Condition | None = None,
    solver: Noisy | str | int = Noisy(),
    seed: int = 0,
    extrapolate: bool = False,
    **old: Any,
) -> Trajectory:
    """Carry states from one time to another with noise, forward or backward.

    The distribution and the growth of the population are those of `transport`, but each state has many outcomes:
    call it again with another seed, or repeat the states.

    Parameters
    ----------
    x, start, stop, save, condition, extrapolate
        As for `transport`.
    solver
        `cellflow.integrate.Noisy`; or its method, or its number of steps.
    seed
        Seed of the noise.

    Returns
    -------
    Trajectory
        Times in the user's units, float64, and states ``(save, n, d)``, on the CPU; if growth was learned, log weights
        ``(save, n)``.

    Raises
    ------
    TypeError
        When the flow was fitted without a score, or for a solver without noise: `transport` takes it.
    ValueError
        When a time is outside the fitted range, or the states have another width than the model's.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> path = cf.paths.BrownianBridge(0.5)
    >>> flow = cf.SnapshotFlow(rep="X_latent", path=path, stochastic=True, steps=20).fit(adata)
    >>> flow.simulate(adata.obsm["X_latent"][:3], start=4, stop=0, save=5).x.shape
    torch.Size([5, 3, 2])
    """
    chosen = integrate.resolve(solver, default=Noisy(), verb="SnapshotFlow.simulate", smooth="transport", old=old)
    self._check_fitted()
    if not self.stochastic:
        raise TypeError(
            "This flow was fitted without a score and cannot be simulated with noise. Fit one with "
            "`SnapshotFlow(path=cf.paths.BrownianBridge(sigma), stochastic=True)`, or use `transport`."
        )
    ends = _ends(self, start, stop)
    given = inputs_of(self, x, ends, condition, extrapolate=extrapolate)
    field, sigma = few_at_once(self.field_, self.n_features_in_), paths.resolve(self.path).sigma

    def carry(some: Portion) -> Trajectory:
        weighs: dict[str, Any] = {"growth": True, "log_weight": given.log_weight(some)} if self.growth_ else {}
        noise = some.noise(seed)
        return integrate.sde(field, some.x, sigma=sigma, solver=chosen, generator=noise, **weighs, **_span(some, save))

    return _in_users_time(given.carried(carry, solver=chosen), *ends)


@checked_but("solver", "condition")
def grow(
    self: "SnapshotFlow",
    x: StatesLike,
    *,
    start: TimeLike,
    stop: TimeLike,
    save: int = 2,
    condition: Condition | None = None,
    solver: Fixed | Adaptive | Jumps | str | int = Fixed(),
    extrapolate: bool = False,
    **old: Any,
) -> Trajectory:
    """Carry states and their weights, as `transport` does if growth was learned.

    Parameters
    ----------
    x, start, stop, save, condition, solver, extrapolate
        As for `transport`.

    Returns
    -------
    Trajectory
        As of `transport`.

    Raises
    ------
    TypeError
        When the flow was fitted without growth, or for a solver with noise.
    ValueError
        When a time is outside the fitted range, or the states have another width than the model's.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> coupling = cf.couplings.UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", coupling=coupling, growth=True, steps=20).fit(adata)
    >>> flow.grow(adata.obsm["X_latent"][:3], start=0, stop=4, save=5).log_weight.shape
    torch.Size([5, 3])
    """
    chosen = integrate.resolve(solver, default=Fixed(), verb="SnapshotFlow.grow", noisy="simulate", old=old)
    _check_growth(self)
    if isinstance(chosen, Jumps):
        check_weighs(self)
    span: dict[str, Any] = {"start": start, "stop": stop, "save": save, "condition": condition}
    return self.transport(x, solver=chosen, extrapolate=extrapolate, **span)


@checked_but("adata", "y")
def score(self: "SnapshotFlow", adata: "AnnData | Stored", y: None = None) -> float:
    """Return minus the mean W1 between predicted and given cells, so that higher is better.

    The given cells of each fitted time are carried to the next fitted time and compared with the given cells there;
    at times that were not fitted, cells are interpolated from the given ones on both sides. Weights count if growth was
    learned. With conditions, each is scored by itself, and all count equally in the mean. scikit-learn can select
    settings by it: ``GridSearchCV(flow, {"steps": [500, 3000]}).fit(adata)``, with ``cv=KFold(shuffle=True)`` if cells
    are sorted by time.

    Parameters
    ----------
    adata
        Cells with the time and the representation, of the fit or held out, or their files.
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
        When there are cells neither at two consecutive fitted times nor between them.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> flow.score(adata) < 0
    True
    """
    return prediction.score(self, self.read(adata))


@checked_but("condition")
def velocity(
    self: "SnapshotFlow",
    x: StatesLike,
    time: TimeLike,
    *,
    condition: Condition | None = None,
    extrapolate: bool = False,
) -> np.ndarray:
    """Return the velocity ``(n, d)`` of states at their times, per unit of the user's time.

    Parameters
    ----------
    x
        States ``(n, d)``, in units of the representation.
    time
        One time for all states, or one each ``(n,)``.
    condition
        As for `transport`.
    extrapolate
        Whether times outside the fitted range are allowed.
    """
    given = inputs_of(self, x, (time,), condition, extrapolate=extrapolate)
    field = few_at_once(self._velocity(), self.n_features_in_)

    def evaluate(some: Portion) -> Tensor:
        velocity = outputs(field(*some.times, some.x, some.condition)).velocity
        check_finite(velocity, *some.times, field=self.field_, x=some.x, start=some.x)
        return velocity * self.clock_.per_time

    return np.asarray(given.evaluated(evaluate).numpy())


@checked_but("condition")
def growth_rate(
    self: "SnapshotFlow",
    x: StatesLike,
    time: TimeLike,
    *,
    condition: Condition | None = None,
    extrapolate: bool = False,
) -> np.ndarray:
    """Return the rate ``(n,)`` at which the log of mass grows at states and times, per unit of the user's time.

    Parameters
    ----------
    x, time, condition, extrapolate
        As for `velocity`.

    Raises
    ------
    TypeError
        When the flow was fitted without growth.
    """
    _check_growth(self)
    given = inputs_of(self, x, (time,), condition, extrapolate=extrapolate)
    field = few_at_once(self.field_, self.n_features_in_)

    def evaluate(some: Portion) -> Tensor:
        growth = cast("Tensor", outputs(field(*some.times, some.x, some.condition), growth=True).growth)
        check_finite(growth, *some.times, field=self.field_, x=some.x, start=some.x)
        return growth * self.clock_.per_time

    return np.asarray(given.evaluated(evaluate).numpy())


def _check_growth(flow: "SnapshotFlow") -> None:
    flow._check_fitted()
    if not flow.growth_:
        raise TypeError(
            "This flow was fitted without growth, so its cells keep their weights. Fit one with "
            "`SnapshotFlow(coupling=cf.couplings.UnbalancedSinkhorn(), growth=True)`."
        )


@checked
def check_weighs(flow: "SnapshotFlow") -> None:
    """Raise for a flow map without growth from a flow that has learned growth, as earlier versions made them.

    Raises
    ------
    ValueError
        With what to do.
    """
    if flow.growth_ and flow.distilled and not flow.flow_map_.growth:
        raise ValueError(
            "This flow has learned growth, and its flow map, of an earlier version, would lose the weights of cells. "
            "Call `distill` again, or use `Fixed()`."
        )


def _ends(flow: "SnapshotFlow", start: TimeLike, stop: TimeLike) -> tuple[np.ndarray, np.ndarray]:
    like = flow.clock_.labels
    return as_times(start, what="`start`", like=like), as_times(stop, what="`stop`", like=like)


def _span(some: Portion, save: int) -> dict[str, Any]:
    """Return from when to when states are carried, and under what, as integrators take it."""
    start, stop = some.times
    return {"start": start, "stop": stop, "save": save, "condition": some.condition}


def _in_users_time(found: Trajectory, start: np.ndarray, stop: np.ndarray) -> Trajectory:
    """Return a trajectory on the CPU, with the user's own times in place of those of the model, which are rounded."""
    log_weight = None if found.log_weight is None else found.log_weight.cpu()
    like = torch.empty(found.x.shape[1], dtype=torch.float64)
    t = saved_times(like, torch.as_tensor(start), torch.as_tensor(stop), len(found.x))
    return found._replace(t=t, x=found.x.cpu(), log_weight=log_weight)
