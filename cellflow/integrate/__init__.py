"""Advance states through time with a field: trajectories, and the densities that they carry."""

from cellflow.integrate.density import log_density
from cellflow.integrate.deterministic import ode
from cellflow.integrate.stochastic import sde
from cellflow.integrate.tables import TABLES, Table
from cellflow.integrate.trajectory import Trajectory

__all__ = ["TABLES", "Table", "Trajectory", "log_density", "ode", "sde"]
