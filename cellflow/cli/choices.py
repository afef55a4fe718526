"""Kinds of the settings whose choices other rooms know. These import torch, so this is loaded when one is asked for."""

from typing import Any, Literal

from cellflow.estimators.generation import OBJECTIVES as OF_GENERATORS
from cellflow.images.pixels import FITS
from cellflow.images.tiff import PAGES
from cellflow.metrics.features import NETWORKS
from cellflow.training.distillation import OBJECTIVES as OF_MAPS
from cellflow.training.distillation import TRAJECTORIES

CHOICES: dict[str, Any] = {
    "feature_network": Literal[NETWORKS] | None,
    "fit": Literal[FITS],
    "objective": Literal[(*OF_GENERATORS, TRAJECTORIES, *OF_MAPS)],
    "pages": Literal[PAGES] | None,
}
OBJECTIVES: dict[str, Any] = {"distill": Literal[(TRAJECTORIES, *OF_MAPS)], "generate": Literal[OF_GENERATORS]}
"""Those of commands that know some of them only."""


def choice(name: str, command: str) -> Any:
    """Return the kind of a setting of a command.

    Examples
    --------
    >>> choice("objective", "generate")
    typing.Literal['velocity', 'noise']
    """
    return OBJECTIVES.get(command, CHOICES[name]) if name == "objective" else CHOICES[name]
