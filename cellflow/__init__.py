"""cellflow: fit flows between data sets.

Everything public is imported when it is first used: ``import cellflow`` pulls in neither scanpy nor matplotlib,
hydra or POT.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellflow import (
        cells,
        couplings,
        datasets,
        doors,
        estimators,
        fields,
        images,
        integrate,
        metrics,
        networks,
        objectives,
        pairing,
        paths,
        pl,
        pp,
        report,
        tl,
        training,
    )
    from cellflow.batch import Batch
    from cellflow.cells import Conditions
    from cellflow.estimators import DomainTranslator, ImageGenerator, PerturbationFlow, SnapshotFlow
    from cellflow.seeds import generator

__version__ = "0.2.0"

_MODULES = frozenset({
    "cells", "couplings", "data", "datasets", "doors", "errors", "estimators", "fields", "images", "integrate",
    "metrics", "networks", "objectives", "pairing", "paths", "pl", "pp", "report", "tl", "training",
})  # fmt: skip
_NAMES = {
    "Batch": "cellflow.batch",
    "Conditions": "cellflow.cells",
    "DomainTranslator": "cellflow.estimators",
    "ImageGenerator": "cellflow.estimators",
    "PerturbationFlow": "cellflow.estimators",
    "Run": "cellflow.training",
    "SnapshotFlow": "cellflow.estimators",
    "generator": "cellflow.seeds",
}
__all__ = [
    "Batch",
    "Conditions",
    "DomainTranslator",
    "ImageGenerator",
    "PerturbationFlow",
    "Run",
    "SnapshotFlow",
    "cells",
    "couplings",
    "datasets",
    "doors",
    "estimators",
    "fields",
    "generator",
    "images",
    "integrate",
    "metrics",
    "networks",
    "objectives",
    "pairing",
    "paths",
    "pl",
    "pp",
    "report",
    "tl",
    "training",
]


def _refuse_namesake() -> None:
    """Fail when another distribution that installs an import package ``cellflow`` shares the environment."""
    try:
        metadata.distribution("cellflow-tools")
    except metadata.PackageNotFoundError:
        return
    raise ImportError(
        "Both `cellflow-torch` and `cellflow-tools` are installed here, and both install an import package "
        "`cellflow`: their files are mixed. Keep one: `pip uninstall cellflow-tools cellflow-torch`, then install "
        "the one you want, or give each its own environment."
    )


_refuse_namesake()


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"cellflow.{name}")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'cellflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
