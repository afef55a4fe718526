"""Doors: a fitted flow handed to CellRank and scVelo; plans of others come in as `cellflow.couplings.Given`.

Neither changes the AnnData that it is given: each returns what the other tool needs, with an AnnData of its own.
"""

from cellflow.doors.cellrank import CellRankKernels, to_cellrank
from cellflow.doors.scvelo import to_scvelo

__all__ = ["CellRankKernels", "to_cellrank", "to_scvelo"]
