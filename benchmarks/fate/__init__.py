"""Fates beside those of clones: flows of every kind, static plans, CellRank, and not moving."""
