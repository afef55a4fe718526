"""Parts as JSON: what an estimator was made of, written so that reading it back runs no foreign code."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cellflow import couplings, networks, paths, training
from cellflow.cells.snapshots import TIMEDELTA_UNIT
from cellflow.errors import CheckpointError

_KNOWN: dict[str, Callable[..., Any]] = {
    part.__name__: part
    for part in (
        paths.Linear,
        paths.Trigonometric,
        paths.VariancePreserving,
        paths.BrownianBridge,
        couplings.Independent,
        couplings.Exact,
        couplings.Given,
        couplings.Sinkhorn,
        couplings.UnbalancedSinkhorn,
        couplings.SquaredEuclidean,
        couplings.Euclidean,
        training.Geodesics,
        training.Recipe,
        networks.MLP,
        networks.UNet,
    )
}
"""Everything that may be made while a model is loaded."""


def encode(value: Any) -> Any:
    """Return a value as JSON: plain values, mappings, parts of cellflow, ``functools.partial`` of them.

    A length of time becomes the number it is counted as. Anything else is kept as text, to be given again when the
    model is loaded.

    Examples
    --------
    >>> encode(paths.BrownianBridge(0.3))
    {'part': 'BrownianBridge', 'values': {'sigma': 0.3}}
    """
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, pd.Timedelta):
        return value / TIMEDELTA_UNIT
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {"mapping": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, partial) and not value.args and _name(value.func) is not None:
        return {"partial": _name(value.func), "values": {key: encode(item) for key, item in value.keywords.items()}}
    if is_dataclass(value) and _name(type(value)) is not None:
        return {"part": _name(type(value)), "values": {f.name: encode(getattr(value, f.name)) for f in fields(value)}}
    return {"class": _name(value)} if _name(value) is not None else {"custom": repr(value)}


def decode(value: Any, *, name: str) -> Any:
    """Return what `encode` wrote.

    Raises
    ------
    CheckpointError
        When the part is not one of cellflow's: it must be given when the model is loaded.

    Examples
    --------
    >>> decode({"part": "BrownianBridge", "values": {"sigma": 0.3}}, name="path")
    BrownianBridge(sigma=0.3)
    """
    if isinstance(value, list):
        return tuple(decode(item, name=name) for item in value)
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "custom")
    if kind == "mapping":
        return {decode(key, name=name): decode(item, name=name) for key, item in value["mapping"]}
    if kind == "custom" or value[kind] not in _KNOWN:
        raise CheckpointError(
            f"`{name}` of this model is not a part of cellflow ({value.get(kind)}), and loading runs no foreign code. "
            f"Give it again: `load(folder, {name}=...)`."
        )
    made = _KNOWN[value[kind]]
    values = {key: decode(item, name=name) for key, item in value.get("values", {}).items()}
    try:
        return {"class": lambda: made, "partial": lambda: partial(made, **values), "part": lambda: made(**values)}[
            kind
        ]()
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"`{name}` of this model cannot be made again: {error}") from error


def _name(value: Any) -> str | None:
    name = getattr(value, "__name__", "")
    return name if _KNOWN.get(name) is value else None
