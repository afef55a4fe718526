"""Settings and parts as JSON, which are read without running foreign code."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from cellflow import cells, couplings, networks, pairing, paths, training
from cellflow.cells import conditions
from cellflow.cells.clock import TIMEDELTA_UNIT
from cellflow.errors import CheckpointError, unknown
from cellflow.pairing import curves
from cellflow.signature import check_type
from cellflow.training.checkpoint import STATE, load_tensors, save_tensors
from cellflow.training.kinds import shown
from cellflow.training.resumption import check_stated

T = TypeVar("T")
_ROOMS = (paths, couplings, pairing, networks, training, cells)
"""The classes that these export may be created while a model is loaded."""

_NOT_COMPARED = {"steps", "seed", "recipe", "device", "progress", "time_key", "rep", "regularize"}
"""Settings that a resumed training may change, or that are compared elsewhere: the data that they name, the seed and
the recipe by the training itself, and regularisation by what was decided."""

PARTS: dict[str, Callable[[Any], Any]] = {
    "path": paths.resolve,
    "coupling": couplings.resolve,
    "curve": curves.resolve,
    "network": networks.resolve,
    "conditions": conditions.resolve,
}
"""Settings that are parts, which can be given by name or be the user's own."""

_FORMS: dict[str, Callable[[Any], bool]] = {
    "mapping": lambda pairs: isinstance(pairs, list) and all(isinstance(p, list) and len(p) == 2 for p in pairs),
    **dict.fromkeys(("part", "partial", "class", "custom"), lambda name: isinstance(name, str)),
}
"""The forms of what is neither a value nor a list in JSON, by key, and whether what is under it can be one."""
DEEPEST = 12
"""How deep lists and parts of a setting may be nested, each of which is up to three deep in JSON."""

_HEADS = {"two_heads": "shared", "two_networks": "separate"}


def _stochastic(score: str | None) -> dict[str, Any]:
    return {"stochastic": score is not None} | ({} if score is None else {"heads": _HEADS.get(score, score)})


def _growth(growth: bool | str | None) -> dict[str, Any]:
    if growth == "auto" or not (growth is None or isinstance(growth, str)):
        return {"growth": growth}
    return {"growth": growth is not None} | ({} if growth is None else {"heads": _HEADS.get(growth, growth)})


FORMER: dict[str, dict[str | tuple[str, ...], Callable[..., Mapping[str, Any]]]] = {
    "SnapshotFlow": {"score": _stochastic, "growth": _growth, **curves.FORMER},
    "DomainTranslator": {"score": _stochastic},
    "ImageGenerator": {"forget": lambda share: {"condition_dropout": share}},
}
"""For each former setting of an estimator, a function of its value that returns the present settings. Used by
constructors (see `cellflow.renamed`), and where models and trainings are loaded."""

_FORMER_TENSORS = {"shared": ("network.", "velocity."), "separate": ("score_drift.", "score.")}
"""How the tensors of a field of several outputs began in format 1, by its ``heads``, and how they begin today."""


def encode(value: Any, *, name: str = "value", depth: int = 0) -> Any:
    """Return a value as JSON: plain values, mappings, parts of cellflow, ``functools.partial`` of them.

    A length of time becomes a number, a path text. Anything else is kept as text, and must be given again when the
    model is loaded.

    Parameters
    ----------
    value
        The value of a setting.
    name
        Name of the setting.
    depth
        How many lists and parts enclose it.

    Raises
    ------
    ValueError
        When it is nested too deeply to be read again, as a value that contains itself is.

    Examples
    --------
    >>> encode(paths.BrownianBridge(0.3))
    {'part': 'BrownianBridge', 'values': {'sigma': 0.3}}
    """
    if depth > DEEPEST:
        raise ValueError(f"Expected `{name}` to be nested at most {DEEPEST} deep, to be saved; found more: a loop?")
    inner = partial(encode, name=name, depth=depth + 1)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device | Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, pd.Timedelta):
        return value / TIMEDELTA_UNIT
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if isinstance(value, Mapping | pd.Series):  # a Series of sizes by time
        return {"mapping": [[inner(key), inner(item)] for key, item in value.items()]}
    if isinstance(value, partial) and not value.args and _name(value.func) is not None:
        return {"partial": _name(value.func), "values": {key: inner(item) for key, item in value.keywords.items()}}
    if is_dataclass(value) and _name(type(value)) is not None:
        own = getattr(value, "saved_values", None)  # of a part that holds data
        kept = {f.name: getattr(value, f.name) for f in fields(value)} if own is None else own()
        return {"part": _name(type(value)), "values": {key: inner(item) for key, item in kept.items()}}
    return {"class": _name(value)} if _name(value) is not None else {"custom": repr(value)}


def encode_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON, in which a part and its name are equal.

    Examples
    --------
    >>> encode_settings({"coupling": "exact"}) == encode_settings({"coupling": couplings.Exact()})
    True
    """
    return {
        name: encode(PARTS[name](value) if isinstance(value, str) and name in PARTS else value, name=name)
        for name, value in settings.items()
    }


def compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an estimator that a resumed training must share.

    Examples
    --------
    >>> compared({"curve": "straight", "steps": 5, "device": "cpu"})
    {'curve': 'straight'}
    """
    found = {name: value for name, value in settings.items() if name not in _NOT_COMPARED}
    if found.get("growth") == "auto":  # it is what it comes to
        found["growth"] = couplings.resolve(settings["coupling"]) == couplings.COUPLINGS["auto"]
    return found


def decode(value: Any, *, name: str) -> Any:
    """Return what `encode` wrote.

    Raises
    ------
    CheckpointError
        When the part is not one of cellflow's: it must be given when loading the model.

    Examples
    --------
    >>> decode({"part": "BrownianBridge", "values": {"sigma": 0.3}}, name="path")
    BrownianBridge(sigma=0.3)
    """
    if isinstance(value, list):
        return tuple(decode(item, name=name) for item in value)
    if not isinstance(value, dict):
        if value != value:  # NaN
            raise CheckpointError(f"`{name}` of this model cannot be restored: it holds NaN.")
        return value
    kind = next((kind for kind in _FORMS if kind in value), "custom")
    if value.keys() - {kind, "values"} or not _FORMS[kind](value.get(kind, "")):
        raise CheckpointError(f"`{name}` of this model is neither a value nor a part: found {shown(value)}.")
    if kind == "mapping":
        return {_key(key, name): decode(item, name=name) for key, item in value["mapping"]}
    made = _part(value[kind]) if kind in ("class", "partial", "part") else None
    if made is None:
        raise CheckpointError(
            f"`{name}` of this model is not a part of cellflow ({shown(value.get(kind))}), and loading runs no foreign "
            f"code. Give it again: `load(folder, {name}=...)`, or `{name}._target_=...` on the command line."
        )
    given = value.get("values", {})
    if not isinstance(given, dict):
        raise CheckpointError(f"`{name}` of this model cannot be made again: its settings are {shown(given)}.")
    values = {key: decode(item, name=name) for key, item in given.items()}
    try:
        if kind == "class":
            return made
        _check_values(made, values)
        return partial(made, **values) if kind == "partial" else made(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"`{name}` of this model cannot be made again: {error}") from error


def _key(value: Any, name: str) -> Any:
    """Return a key of a mapping."""
    if isinstance(value, list | dict):
        raise CheckpointError(f"`{name}` of this model cannot be made again: {shown(value)} is no key of a mapping.")
    return value


def _check_values(made: type, values: Mapping[str, Any]) -> None:
    """Raise for settings of a part that it does not have, or of other types than it states.

    What is too large for a network is not seen here: sizes are compared with the weights.
    """
    known = inspect.signature(made).parameters
    lacking = set(known) - values.keys() if issubclass(made, paths.GaussianPath) else set()
    if lacking:  # another path would be taken, in silence
        raise TypeError(f"{made.__name__} lacks its `{min(lacking)}`.")
    for key, value in values.items():
        if key not in known:
            raise TypeError(unknown(f"setting of {made.__name__}", key, known))
        check_type(value, known[key].annotation, name=key, where=made.__name__)
        for size in value if isinstance(value, tuple) else (value,):
            if isinstance(size, int) and size >= 2**31 and issubclass(made, nn.Module):
                raise ValueError(f"Expected `{key}` of {made.__name__} below 2**31; found {size}.")


def _name(value: Any) -> str | None:
    name = getattr(value, "__name__", "")
    return name if name and _part(name) is value else None


def _part(name: str) -> type | None:
    """Return the part of that name."""
    found = next((getattr(room, name) for room in _ROOMS if name in room.__all__), None)
    return found if isinstance(found, type) and (is_dataclass(found) or issubclass(found, nn.Module)) else None


def modern_settings(estimator: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the present settings for those that a model was saved with.

    Examples
    --------
    >>> modern_settings("SnapshotFlow", {"steps": 5, "score": "two_networks", "growth": None})
    {'steps': 5, 'stochastic': True, 'heads': 'separate', 'growth': False}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        rule = FORMER.get(estimator, {}).get(name)
        found.update({name: value} if rule is None else rule(value))
    return found


def modern_tensors(tensors: Mapping[str, T], settings: Mapping[str, Any], *, under: str = "") -> dict[str, T]:
    """Return tensors of a field of format 1 under their present names.

    Parameters
    ----------
    tensors
        The tensors, or what a header says of each, by name.
    settings
        The settings of today of the estimator that they belong to.
    under
        What the names of the field's tensors begin with: ``"network.field."`` in a flow map of it.
    """
    heads = settings.get("heads")
    if not (settings.get("stochastic") or settings.get("growth")) or heads not in tuple(_FORMER_TENSORS):
        return dict(tensors)
    old, new = (f"{under}{start}" for start in _FORMER_TENSORS[heads])
    return {new + name.removeprefix(old) if name.startswith(old) else name: tensor for name, tensor in tensors.items()}


def modernise_training(estimator: type, folder: str | Path) -> None:
    """Rewrite the state of a training that an earlier version interrupted, so that it can be resumed.

    A setting that did not exist then had the value that is its default today.

    Parameters
    ----------
    estimator
        The class of the estimator that trained.
    folder
        Folder of the state; nothing happens without one, or if it is of today.
    """
    path = Path(folder) / STATE
    if not path.exists():
        return
    tensors, about = load_tensors(path)
    check_stated(about, source=path)
    then, rules = about["settings"], FORMER.get(estimator.__name__, {})
    old = {name: decode(value, name=name) for name, value in then.items() if name in rules}
    kept = {name: value for name, value in then.items() if name not in old}
    named = {name: value for name, value in kept.items() if isinstance(value, str) and name in PARTS}
    try:
        now = encode_settings(named | modern_settings(estimator.__name__, old))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Use another copy, or start again.") from error
    settings = encode_settings(compared(_defaults(estimator))) | kept | now
    if settings == then:
        return
    under = "field.network.field." if "map" in then else "field."
    save_tensors(path, modern_tensors(tensors, settings, under=under), {**about, "settings": settings})


def _defaults(estimator: type) -> dict[str, Any]:
    parameters = inspect.signature(estimator).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
