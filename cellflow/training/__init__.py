"""Training: the one optimiser loop, how it is set, and how it is resumed."""

from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe

__all__ = ["History", "Recipe", "fit"]
