"""Preparation of cells: what has to be done before a flow takes them."""

from cellflow.pp.project import project

__all__ = ["project"]
