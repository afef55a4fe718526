"""Training: the optimiser loop, its recipe, its runs, and the outer loops around it."""

from cellflow.training.distillation import TrajectoryBatches, distill, trajectory_batches
from cellflow.training.geodesics import Geodesics, LearnedBends
from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe
from cellflow.training.refit import MarkovianFitting, ModelCoupling, Reflow, refit
from cellflow.training.run import Run
from cellflow.training.search import fit_unmemorised
from cellflow.training.stopping import EarlyStopping

__all__ = [
    "EarlyStopping",
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
    "fit_unmemorised",
    "refit",
    "trajectory_batches",
]
