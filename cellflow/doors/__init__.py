"""Doors: a fitted flow handed to CellRank and scVelo; plans of others come in as `cellflow.couplings.Given`.

Neither changes the given AnnData: each returns what the other tool needs, with a new AnnData.
"""

from cellflow.doors.cellrank import CellRankKernels, to_cellrank
from cellflow.doors.scvelo import to_scvelo

__all__ = ["CellRankKernels", "to_cellrank", "to_scvelo"]
