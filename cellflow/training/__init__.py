"""Training: the optimiser loop, its recipe, its runs, and the outer loops around it."""

from cellflow.training.distillation import TrajectoryBatches, distill, trajectory_batches
from cellflow.training.geodesics import Geodesics, LearnedBends
from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe
from cellflow.training.refit import MarkovianFitting, ModelCoupling, Reflow, refit
from cellflow.training.run import Run

__all__ = [
    "Geodesics",
    "History",
    "LearnedBends",
    "MarkovianFitting",
    "ModelCoupling",
    "Recipe",
    "Reflow",
    "Run",
    "TrajectoryBatches",
    "distill",
    "fit",
    "refit",
    "trajectory_batches",
]
