"""What became of the settings of earlier versions: their present names and values."""

from collections.abc import Callable, Mapping
from typing import Any

from cellflow.estimators.serialize import FORMER
from cellflow.images.pixels import FORMER as FORMER_BACKGROUND
from cellflow.images.pixels import WHITE
from cellflow.report.images import FORMER as OF_REPORTS

Rule = Callable[..., Mapping[str, Any]]


def _solver(
    *, noise: bool = True, sampling_steps: int | None = None, jumps: int | None = None
) -> dict[str, dict[str, Any]]:
    kind: dict[str, Any] = {} if noise else {"_target_": "cellflow.integrate.Fixed", "method": "midpoint"}
    if jumps is not None:
        kind, sampling_steps = {"_target_": "cellflow.integrate.Jumps"}, jumps
    return {"solver": kind if sampling_steps is None else kind | {"steps": sampling_steps}}


def _curve(bend: float | Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    if isinstance(bend, Mapping):
        return {"curve": bend}
    part = {"_target_": "cellflow.pairing.Spline", "bend": bend} if bend else {"_target_": "cellflow.pairing.Straight"}
    return {"curve": part}


RULES: dict[str | tuple[str, ...], Rule] = {
    ("noise", "sampling_steps", "jumps"): _solver,
    "taught": lambda taught: {"teacher": taught},
    **{name: rule for rules in (*FORMER.values(), OF_REPORTS) for name, rule in rules.items()},
    "bend": _curve,  # a part is its YAML here
}
"""For each former setting, or several merged ones, a function of their values that returns the present
settings."""


def modern_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their present names.

    Examples
    --------
    >>> modern_settings({"steps": 100, "sampling_steps": 40, "jumps": None})
    {'steps': 100, 'solver': {'steps': 40}}
    """
    found = _padded(settings)
    for names, rule in RULES.items():
        group = (names,) if isinstance(names, str) else names
        if old := {name: found.pop(name) for name in group if name in found}:
            found |= rule(*old.values()) if isinstance(names, str) else rule(**old)
    return found


def _padded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which a `background` of 255 is one that was asked for.

    Version 0.2.0, whose runs have no `guess`, stored 255 where nothing was asked for, and padded camera counts with
    black nevertheless.

    Examples
    --------
    >>> _padded({"background": 255}), _padded({"background": 255, "guess": False})["background"]
    ({'background': 'former'}, 255)
    """
    found = dict(settings)
    if "guess" not in found and found.get("background") == WHITE:
        found["background"] = FORMER_BACKGROUND
    return found
