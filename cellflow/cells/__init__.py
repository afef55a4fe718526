"""Reading AnnData: states, times, snapshots, and settings suggested from them."""

from cellflow.cells.clock import Clock
from cellflow.cells.conditions import Conditions
from cellflow.cells.states import States, as_states
from cellflow.cells.suggest import suggest_relaxation, suggest_sigma

__all__ = ["Clock", "Conditions", "States", "as_states", "suggest_relaxation", "suggest_sigma"]
