"""Distilling a fitted flow: a flow map learns to do in a few jumps what the flow does in many solver steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from cellflow import training
from cellflow.batch import Batch
from cellflow.errors import unknown
from cellflow.estimators.image_flow import check_settings
from cellflow.networks import FlowMap
from cellflow.objectives import (
    EulerianMatching,
    FlowMapMatching,
    FlowMapObjective,
    LagrangianMatching,
    MeanVelocityMatching,
    SemigroupMatching,
    TrajectoryMatching,
)
from cellflow.paths import GaussianPath
from cellflow.training import History, Origin, Recipe, trajectory_batches

TRAJECTORIES = "trajectories"
"""The objective that regresses on the fitted flow's own trajectories: the steadiest and most exact one, see
``benchmarks/results/few_step_cells.md``."""
OBJECTIVES: dict[str, Callable[..., FlowMapObjective]] = {
    "semigroup": SemigroupMatching,
    "lagrangian": LagrangianMatching,
    "eulerian": EulerianMatching,
    "mean_velocity": MeanVelocityMatching,
    "direct": FlowMapMatching,
}
"""The other objectives that a word stands for; a map is, in part, its own target in all of them."""
ADAPTIVE, RECIPE = 1.0, Recipe(learning_rate=1e-3)
"""How hard large errors are held down, and how the optimiser runs where nothing is said, in these other objectives: at
four times the rate, maps that lead both ways diverge where a flow parts."""
STEPS = 3000
FOLLOWED = 4096
"""Most images of a side whose trajectories are followed, which costs more than a hundred evaluations of each."""
REFINING, DISTILLING = 1, 2
"""Which streams of random numbers of a seed refining and distilling take; 0 is the fit."""


class Lesson(NamedTuple):
    """How a map is taught, whatever flow it is taught by.

    Parameters
    ----------
    objective
        What is minimised: ``"trajectories"``, an objective for flow maps, or the name of one.
    taught
        Whether the fitted flow is the teacher; else the map learns from the pairs of the data alone.
    steps, batch_size
        Optimiser steps, and pairs in each.
    recipe
        How the optimiser runs; None for that of the fit, and `RECIPE` where a map is, in part, its own target.
    fitted
        How it ran in the fit.
    folder, resume
        As for `cellflow.training.fit`.
    """

    objective: FlowMapObjective | str
    taught: bool
    steps: int
    batch_size: int
    recipe: Recipe | None
    fitted: Recipe | None
    folder: str | Path | None
    resume: bool

    def learn(
        self,
        flow_map: FlowMap,
        teacher: nn.Module,
        *,
        origins: Callable[[], Sequence[Origin]],
        pairs: Callable[[], Iterable[Batch]],
        path: GaussianPath,
        unit: float,
        generator: torch.Generator,
        about: Mapping[str, Any],
        progress: bool,
    ) -> History:
        """Train a map in place, and return what happened.

        Parameters
        ----------
        flow_map
            The map, untrained or as good as it is.
        teacher
            The fitted velocity.
        origins
            Gives the real states that trajectories pass through.
        pairs
            Gives batches of pairs of data.
        path, unit
            How the pairs are joined, and the length that counts as 1.
        generator
            Seeds everything random.
        about
            What a resumed training must share.
        progress
            Whether to show a bar.

        Raises
        ------
        ValueError, TypeError
            When settings are of the wrong kind, or the objective is not one for flow maps.
        """
        check_settings(self.steps, self.batch_size, self.recipe)
        if self.recipe is not None and str(self.recipe.precision) == "64":
            flow_map.double()
        dtype, both = next(flow_map.parameters()).dtype, flow_map.spans == "both"
        known = deepcopy(teacher).to(dtype).eval().requires_grad_(requires_grad=False)
        objective: FlowMapObjective | TrajectoryMatching
        if self.objective == TRAJECTORIES:
            if not self.taught:
                raise ValueError("Trajectories are those of the fitted flow; for taught=False, choose 'semigroup'.")
            batches: Iterable[Batch] = trajectory_batches(
                known, origins(), batch_size=self.batch_size, generator=generator, both=both
            )
            objective = TrajectoryMatching(unit)
        else:
            objective, batches = replace(resolve(self.objective), path=path, unit=unit), pairs()
            if self.taught and objective.teacher is None:
                objective = replace(objective, teacher=known)
        settings = replace(objective, teacher=None) if isinstance(objective, FlowMapObjective) else objective
        history = training.fit(
            flow_map,
            objective,
            batches,
            steps=self.steps,
            generator=generator,
            recipe=self.recipe or (self.fitted if self.objective == TRAJECTORIES else RECIPE),
            folder=self.folder,
            resume=self.resume,
            about={**about, "map": [flow_map.spans, self.taught, repr(settings)]},
            progress=progress,
        )
        flow_map.eval()
        return history


def resolve(objective: FlowMapObjective | str) -> FlowMapObjective:
    """Return the objective, or the one of that name.

    Raises
    ------
    ValueError, TypeError
        When there is none of that name, or it is not one for flow maps.

    Examples
    --------
    >>> type(resolve("lagrangian")).__name__, resolve("lagrangian").adaptive
    ('LagrangianMatching', 1.0)
    """
    if isinstance(objective, FlowMapObjective):
        return objective
    choices = [TRAJECTORIES, *OBJECTIVES]
    if not isinstance(objective, str):
        raise TypeError(
            f"Expected an objective for flow maps, or the name of one ({', '.join(choices)}); found {objective!r}."
        )
    if objective not in OBJECTIVES:
        raise ValueError(unknown("objective", objective, choices))
    return OBJECTIVES[objective](adaptive=ADAPTIVE)


def followed(n: int, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Return which of ``n`` samples are followed: all of vectors, at most `FOLLOWED` of images, drawn at random.

    Examples
    --------
    >>> len(followed(9, (2,), torch.Generator())), len(followed(9000, (1, 8, 8), torch.Generator()))
    (9, 4096)
    """
    return torch.randperm(n, generator=generator)[: n if len(shape) == 1 else FOLLOWED]
