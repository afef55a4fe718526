"""Reading AnnData: states, times, snapshots, conditions, and settings suggested from them."""

from cellflow.cells.clock import Clock
from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.conditions import Conditions
from cellflow.cells.decoders import Decoder, fit_decoder, scvi_decoder
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.states import States, as_states
from cellflow.cells.stores import read_stores
from cellflow.cells.suggest import suggest_relaxation, suggest_sigma

__all__ = [
    "Clock",
    "ConditionTable",
    "Conditions",
    "Decoder",
    "FittedConditions",
    "States",
    "as_states",
    "fit_decoder",
    "read_stores",
    "scvi_decoder",
    "suggest_relaxation",
    "suggest_sigma",
]
