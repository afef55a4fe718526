"""Tools: predictions of a fitted flow for cells, written into AnnData as arrays and tables."""

from cellflow.tl.descendants import pull, push
from cellflow.tl.drivers import drivers
from cellflow.tl.fate import fate
from cellflow.tl.growth import growth
from cellflow.tl.growth_prior import growth_prior
from cellflow.tl.interpolate import interpolate
from cellflow.tl.perturb import perturb
from cellflow.tl.perturb_genes import perturb_genes
from cellflow.tl.response import response
from cellflow.tl.trajectories import trajectories
from cellflow.tl.trends import trends
from cellflow.tl.tune import tune, tuned
from cellflow.tl.validate import testable_times, validate
from cellflow.tl.velocity import velocity

__all__ = [
    "drivers",
    "fate",
    "growth",
    "growth_prior",
    "interpolate",
    "perturb",
    "perturb_genes",
    "pull",
    "push",
    "response",
    "testable_times",
    "trajectories",
    "trends",
    "tune",
    "tuned",
    "validate",
    "velocity",
]
