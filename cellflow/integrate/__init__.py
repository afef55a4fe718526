"""Integration of fields in time: deterministic, stochastic and weighted trajectories, flow-map jumps, log densities."""

from cellflow.integrate.density import log_density
from cellflow.integrate.jump import jump
from cellflow.integrate.ode import ode
from cellflow.integrate.sde import sde
from cellflow.integrate.solvers import Adaptive, Fixed, Jumps, Noisy, Solver, resolve
from cellflow.integrate.tables import TABLES, Table
from cellflow.integrate.trajectory import Trajectory
from cellflow.integrate.weighted import grow

__all__ = [
    "TABLES",
    "Adaptive",
    "Fixed",
    "Jumps",
    "Noisy",
    "Solver",
    "Table",
    "Trajectory",
    "grow",
    "jump",
    "log_density",
    "ode",
    "resolve",
    "sde",
]
