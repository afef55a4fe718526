"""`SnapshotFlow`: one field through all snapshots of an AnnData."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from cellflow import couplings, integrate, networks, paths, training
from cellflow.couplings import Coupling
from cellflow.data.clock import Clock
from cellflow.data.pairing import PairedBatches, snapshot_batches
from cellflow.data.snapshots import Snapshots, read_snapshots, to_numbers
from cellflow.errors import unknown
from cellflow.estimators.base import FlowEstimator
from cellflow.estimators.field import SCORES, build_field, overall, spreads
from cellflow.estimators.parts import encode
from cellflow.field import BridgeField, Field
from cellflow.integrate import Trajectory
from cellflow.objectives import BridgeMatching, Objective, VelocityHead, VelocityMatching
from cellflow.paths import GaussianPath
from cellflow.seeds import generator, seeded
from cellflow.shapes import time_of
from cellflow.training import Recipe

if TYPE_CHECKING:
    from anndata import AnnData


class SnapshotFlow(FlowEstimator):
    """A flow through snapshots of a cell population taken at several times.

    One field covers all intervals. Times keep their real spacing, snapshots may have any sizes, and whatever comes
    out is in the units of the representation and of the time column.

    Parameters
    ----------
    time_key
        Column of ``obs`` with the time: numbers, categories that are numbers, or Timedelta (counted in days).
    rep
        Key of the representation in ``obsm``, or ``"X"``.
    path
        How paired cells are joined, with ``sigma`` in units of the representation: a path, or the name of one. That
        of `BrownianBridge` is the spread gathered from the first snapshot to the last.
    coupling
        How the cells of neighbouring snapshots are paired: a coupling, or the name of one.
    steps
        Optimiser steps.
    batch_size
        Pairs per interval and step.
    network
        A callable from the width of the representation to a module, or the name of one.
    score
        What is learned beside the velocity, on a path with noise: None for nothing; ``"two_networks"`` or
        ``"two_heads"`` for the score, which makes the flow a Schrödinger bridge that can be simulated with noise,
        forward and backward; in a network of its own, or as a second head (a network that takes ``heads=2``).
    recipe
        How the optimiser runs.
    standardize
        Whether the network sees standardised states inside the model; inputs and outputs keep their units.
    ot_batch_size
        Cells a side that are paired at once, see `cellflow.data.paired_batches`.
    seed
        Seed of everything random.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for the GPU where there is one.
    progress
        Whether to show a bar while fitting.

    Attributes
    ----------
    field_
        The fitted velocity field, in model time.
    clock_
        The time points, and how they become model time.
    history_
        Terms of the objective at every step.
    plans_
        For each interval the plan over the whole snapshots, or None where super-batches were used.
    n_features_in_
        Width of the representation.
    n_cells_
        Cells at each time point.

    Source: Tong et al. 2024 (TMLR), section 4.2, for each interval; one field over all, in real time.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(time_key="time", rep="X_latent", steps=20).fit(adata)
    >>> flow.velocity(adata.obsm["X_latent"][:3], 1.0).shape
    (3, 2)
    """

    def __init__(
        self,
        *,
        time_key: str = "time",
        rep: str = "X_pca",
        path: GaussianPath | str = "linear",
        coupling: Coupling | str = "exact",
        steps: int = 3000,
        batch_size: int = 256,
        network: Callable[..., nn.Module] | str = "mlp",
        score: str | None = None,
        recipe: Recipe | None = None,
        standardize: bool = True,
        ot_batch_size: int | str = "auto",
        seed: int = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.time_key = time_key
        self.rep = rep
        self.path = path
        self.coupling = coupling
        self.steps = steps
        self.batch_size = batch_size
        self.network = network
        self.score = score
        self.recipe = recipe
        self.standardize = standardize
        self.ot_batch_size = ot_batch_size
        self.seed = seed
        self.device = device
        self.progress = progress

    def fit(self, adata: "AnnData", y: None = None, *, folder: str | Path | None = None, resume: bool = False) -> Self:
        """Fit the field; an earlier fit is forgotten. ``adata`` is not changed.

        Parameters
        ----------
        adata
            Cells with a time and a representation; a view or a backed file will do.
        y
            Not used; there for scikit-learn.
        folder
            Where the state of the training is kept, so that it can be resumed after an interruption.
        resume
            Whether to go on from the state in ``folder``.

        Raises
        ------
        KeyError, ValueError
            When the time or the representation is missing or unusable, or a part has an unknown name.
        FileExistsError
            When ``folder`` holds a training already, and it is not to be resumed.
        CheckpointError
            When the state in ``folder`` is damaged, or of other data or settings; the message names the difference.
        """
        path, coupling = paths.resolve(self.path), couplings.resolve(self.coupling)
        self._check_settings()
        snapshots = read_snapshots(adata, time_key=self.time_key, rep=self.rep)
        rng = generator(seed=int(self.seed))
        with seeded(rng):
            scales = spreads(snapshots)
            field = self._field(*scales).to(self._device())
        batches = self._pair(snapshots, coupling, rng)
        history = training.fit(
            field,
            self._objective(path, unit=overall(scales)),
            batches,
            steps=self.steps,
            generator=rng,
            recipe=self.recipe,
            folder=folder,
            resume=resume,
            about=self._about(snapshots),
            progress=self.progress,
        )
        self.field_, self.history_, self.plans_ = field, history, batches.plans
        self.clock_, self.n_features_in_ = snapshots.clock, snapshots.x.shape[1]
        self.n_cells_ = tuple(len(cloud) for cloud in snapshots.clouds())
        return self

    def transport(
        self,
        x: np.ndarray | Tensor,
        *,
        start: float | np.ndarray,
        stop: float | np.ndarray,
        save: int = 2,
        steps: int | None = None,
        method: str = "rk4",
        extrapolate: bool = False,
    ) -> Trajectory:
        """Carry states from one time to another, forward or backward.

        Parameters
        ----------
        x
            States ``(n, d)``, in units of the representation.
        start, stop
            Times in the user's units: one for all states, or one each ``(n,)``.
        save
            How many equally spaced moments to return, both ends included.
        steps
            Steps of a fixed-step solver; None for its default, and for adaptive methods.
        method
            Any method of `cellflow.integrate.ode`.
        extrapolate
            Whether times outside the fitted range are allowed.

        Returns
        -------
        Trajectory
            Times in the user's units and states ``(save, n, d)``, on the CPU.

        Raises
        ------
        ValueError
            When a time is outside the fitted range, or the states have another width than the model's.
        """
        self._check_fitted()
        begin, end = (self._model_times(time, extrapolate=extrapolate) for time in (start, stop))
        found = integrate.ode(
            self._velocity_field(), self._states(x), start=begin, stop=end, save=save, steps=steps, method=method
        )
        return self._in_users_time(found)

    def simulate(
        self,
        x: np.ndarray | Tensor,
        *,
        start: float | np.ndarray,
        stop: float | np.ndarray,
        save: int = 2,
        steps: int = 100,
        seed: int = 0,
        extrapolate: bool = False,
    ) -> Trajectory:
        """Carry states from one time to another with noise, forward or backward.

        The population spreads as under `transport`, but each state has many outcomes: call it again with another
        seed, or repeat the states.

        Parameters
        ----------
        x
            States ``(n, d)``, in units of the representation.
        start, stop
            Times in the user's units: one for all states, or one each ``(n,)``.
        save
            How many equally spaced moments to return, both ends included.
        steps
            Steps of the simulation.
        seed
            Seed of the noise.
        extrapolate
            Whether times outside the fitted range are allowed.

        Returns
        -------
        Trajectory
            Times in the user's units and states ``(save, n, d)``, on the CPU.

        Raises
        ------
        TypeError
            When the flow was fitted without a score.
        ValueError
            When a time is outside the fitted range, or the states have another width than the model's.

        Examples
        --------
        >>> import cellflow as cf
        >>> adata = cf.datasets.branching(seed=0)
        >>> path = cf.paths.BrownianBridge(0.5)
        >>> flow = cf.SnapshotFlow(rep="X_latent", path=path, score="two_heads", steps=20).fit(adata)
        >>> flow.simulate(adata.obsm["X_latent"][:3], start=4, stop=0, save=5).x.shape
        torch.Size([5, 3, 2])
        """
        self._check_fitted()
        if self.score is None:
            raise TypeError(
                "This flow was fitted without a score, and cannot be simulated with noise. Fit one with "
                '`SnapshotFlow(path=cf.paths.BrownianBridge(sigma), score="two_networks")`, or use `transport`.'
            )
        begin, end = (self._model_times(time, extrapolate=extrapolate) for time in (start, stop))
        states = self._states(x)
        found = integrate.sde(
            cast("BridgeField", self.field_),
            states,
            sigma=paths.resolve(self.path).sigma,
            start=begin,
            stop=end,
            save=save,
            steps=steps,
            generator=generator(seed=seed, device=states.device),
        )
        return self._in_users_time(found)

    def velocity(self, x: np.ndarray | Tensor, time: float | np.ndarray, *, extrapolate: bool = False) -> np.ndarray:
        """Return the velocity ``(n, d)`` of states at their times, per unit of the user's time.

        Parameters
        ----------
        x
            States ``(n, d)``, in units of the representation.
        time
            One time for all states, or one each ``(n,)``.
        extrapolate
            Whether times outside the fitted range are allowed.
        """
        self._check_fitted()
        states = self._states(x)
        t = time_of(self._model_times(time, extrapolate=extrapolate), states)
        with torch.no_grad():
            velocity = self._velocity_field()(t, states, None)
        return (velocity * self.clock_.per_time).cpu().numpy()

    def _check_settings(self) -> None:
        networks.resolve(self.network)
        if self.score not in (None, *SCORES):
            raise ValueError(unknown("score", self.score, [None, *SCORES]))
        for name in ("steps", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"Expected `{name}` to be a whole number >= 1; found {value!r}.")
        if self.recipe is not None and not isinstance(self.recipe, Recipe):
            raise TypeError(f"Expected `recipe` to be a `cf.training.Recipe`, or None; found {self.recipe!r}.")

    def _objective(self, path: GaussianPath, *, unit: float) -> Objective:
        return VelocityMatching(path, unit=unit) if self.score is None else BridgeMatching(path, unit=unit)

    def _velocity_field(self) -> Field:
        return VelocityHead(self.field_) if self.score else self.field_

    def _about(self, snapshots: Snapshots) -> dict[str, Any]:
        """Return what a resumed fit must share with the one that was interrupted."""
        names = ("path", "coupling", "batch_size", "ot_batch_size", "standardize", "score", "network")
        settings = {name: encode(getattr(self, name)) for name in names}
        return {"times": list(snapshots.clock.times), "cells": snapshots.digest(), **settings}

    def _in_users_time(self, found: Trajectory) -> Trajectory:
        times = self.clock_.times[0] + found.t.double() / self.clock_.per_time
        return found._replace(t=times.cpu(), x=found.x.cpu())

    def _pair(self, snapshots: Snapshots, coupling: Coupling, rng: torch.Generator) -> PairedBatches:
        clouds = [torch.from_numpy(cloud).to(self._device()) for cloud in snapshots.clouds()]
        times = [snapshots.clock.model(time) for time in snapshots.clock.times]
        return snapshot_batches(
            clouds,
            times,
            coupling=coupling,
            batch_size=self.batch_size,
            generator=rng,
            ot_batch_size=self.ot_batch_size,
        )

    def _field(self, shift: Tensor, scale: Tensor, speed: Tensor) -> nn.Module:
        sigma = paths.resolve(self.path).sigma
        scales = (shift, scale, speed) if self.standardize else None
        return build_field(networks.resolve(self.network), len(shift), score=self.score, sigma=sigma, scales=scales)

    def _states(self, x: np.ndarray | Tensor) -> Tensor:
        weight = next(self.field_.parameters())
        states = torch.as_tensor(np.asarray(x), dtype=weight.dtype, device=weight.device)
        if states.ndim != 2 or states.shape[1] != self.n_features_in_:
            raise ValueError(
                f"Expected states of shape (cells, {self.n_features_in_}), as `{self.rep}` had in `fit`; found "
                f"{tuple(states.shape)}."
            )
        return states

    def _model_times(self, time: float | np.ndarray, *, extrapolate: bool) -> float | Tensor:
        given = np.asarray(time)
        times = to_numbers(list(np.atleast_1d(given)), what="the time")
        for extreme in {times.min(), times.max()} if times.size else ():
            self.clock_.check(float(extreme), extrapolate=extrapolate)
        model = (times - self.clock_.times[0]) * self.clock_.per_time
        return float(model[0]) if given.ndim == 0 else torch.from_numpy(model)

    def _learned(self) -> dict[str, Any]:
        return {
            "times": list(self.clock_.times),
            "n_features_in": self.n_features_in_,
            "n_cells": list(self.n_cells_),
            "history": self.history_.columns,
        }

    def _restore(self, learned: dict[str, Any]) -> None:
        self.clock_, self.n_cells_ = Clock(tuple(learned["times"])), tuple(learned["n_cells"])
        self.n_features_in_, self.history_ = learned["n_features_in"], training.History(learned["history"])
        blank = torch.ones(self.n_features_in_)
        with seeded(generator(seed=int(self.seed))):
            self.field_ = self._field(blank, blank, blank)
