"""The former home of `cellflow.cells`, `cellflow.images` and `cellflow.pairing`; kept for one version."""

import warnings
from importlib import import_module

_ROOMS = ("pairing", "images", "cells", "batch")


def __getattr__(name: str) -> object:
    for room in _ROOMS:
        home = import_module(f"cellflow.{room}")
        if name in getattr(home, "__all__", ("Batch",)):
            new = "cellflow.Batch" if name == "Batch" else f"cellflow.{room}.{name}"
            warnings.warn(f"`cellflow.data.{name}` is now `{new}`.", FutureWarning, stacklevel=2)
            return getattr(home, name)
    raise AttributeError(f"module 'cellflow.data' has no attribute {name!r}")
