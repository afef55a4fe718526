"""Training: the one optimiser loop, how it is set, and how it is resumed."""

from cellflow.training.geodesics import Geodesics, LearnedBends
from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe
from cellflow.training.refit import MarkovianFitting, Reflow, Repairing, refit
from cellflow.training.trajectories import Origin, TrajectoryBatches, trajectory_batches

__all__ = [
    "Geodesics",
    "History",
    "LearnedBends",
    "MarkovianFitting",
    "Origin",
    "Recipe",
    "Reflow",
    "Repairing",
    "TrajectoryBatches",
    "fit",
    "refit",
    "trajectory_batches",
]
