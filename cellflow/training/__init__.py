"""Training: the one optimiser loop, how it is set, and how it is resumed."""

from cellflow.training.geodesics import Geodesics, LearnedBends
from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe
from cellflow.training.refit import MarkovianFitting, Reflow, Repairing, refit

__all__ = [
    "Geodesics",
    "History",
    "LearnedBends",
    "MarkovianFitting",
    "Recipe",
    "Reflow",
    "Repairing",
    "fit",
    "refit",
]
