"""Plots of what `cellflow.tl` wrote. Each returns its axes or figure, and none shows or saves it."""

from cellflow.pl.cells import cells
from cellflow.pl.conditions import conditions
from cellflow.pl.descendants import descendants
from cellflow.pl.drivers import drivers
from cellflow.pl.fate import fate
from cellflow.pl.genes import genes
from cellflow.pl.growth import growth
from cellflow.pl.interpolation import interpolation
from cellflow.pl.loss import loss
from cellflow.pl.movie import movie
from cellflow.pl.response import response
from cellflow.pl.trajectories import trajectories
from cellflow.pl.trends import trends
from cellflow.pl.trends_heatmap import trends_heatmap
from cellflow.pl.validation import validation
from cellflow.pl.velocity import velocity

__all__ = [
    "cells",
    "conditions",
    "descendants",
    "drivers",
    "fate",
    "genes",
    "growth",
    "interpolation",
    "loss",
    "movie",
    "response",
    "trajectories",
    "trends",
    "trends_heatmap",
    "validation",
    "velocity",
]
