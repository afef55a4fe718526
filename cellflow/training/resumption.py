"""What a training state must hold for a training to go on from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellflow.errors import CheckpointError
from cellflow.training.kinds import HISTORY, OBJECT, Kind, check_record, is_whole, many, whole
from cellflow.training.reading import Entry, read_header

SLOTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps for each weight: the averages of its gradient and of the square of it, and its updates."""
_CURE = "Use another copy, or start the training again in another folder."
_PAIR = Kind("[weight, updates]", lambda pair: isinstance(pair, list) and len(pair) == 2 and all(map(is_whole, pair)))
STATED = {"kind": Kind("training", lambda value: value == "training"), "step": whole(0), "seed": whole(0),
          "settings": OBJECT, "history": HISTORY}  # fmt: skip
"""What the JSON of every state says, beside its tensors."""
STATED_SINCE = {"behind": many(_PAIR)}
"""What it says in states of today: which weights were not used in all steps, and their updates."""


def check_stated(about: Mapping[str, Any], *, source: Path) -> None:
    """Refuse a state whose JSON does not describe a training.

    Raises
    ------
    CheckpointError
        With the first thing that is wrong.
    """
    if about.get("kind") != "training":
        raise CheckpointError(f"{source} is not a training state. A run keeps its own in {source.name}.")
    lacking = STATED.keys() - about
    if lacking:
        raise CheckpointError(
            f"{source} was written by another version of cellflow: it lacks {sorted(lacking)}. Start again."
        )
    check_record(about, STATED, STATED_SINCE, what=f"{source} is damaged", cure=_CURE)
    rows = len(about["history"].get("loss", []))
    if rows != about["step"]:
        raise CheckpointError(f"{source} is damaged: it is of step {about['step']}, with a history of {rows}. {_CURE}")


def read_stated(path: Path) -> dict[str, Any]:
    """Return the description in a state, without reading its tensors.

    Raises
    ------
    CheckpointError
        When it is missing, damaged, or not a training state.
    """
    about = read_header(path).about
    check_stated(about, source=path)
    return about


def expected_tensors(
    weights: Mapping[str, Tensor],
    parameters: list[Tensor],
    *,
    averaged: bool,
    found: Mapping[str, Entry],
    about: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return tensors of the names, shapes and types that a state must hold.

    Parameters
    ----------
    weights
        Those of the field, by name.
    parameters
        Those of them that are trained.
    averaged
        Whether there is an average of each.
    found
        What the file has. Earlier versions did not record unused weights, and store nothing for these.
    about
        The description in the state.
    """
    expected = {f"field.{name}": weight for name, weight in weights.items()}
    if averaged:
        expected |= {f"average.{k}": weight for k, weight in enumerate(parameters)}
    known = {k for k in range(len(parameters)) if any(f"optimizer.{k}.{slot}" in found for slot in SLOTS)}
    updates = updates_of(about, len(parameters))
    for k, weight in enumerate(parameters):
        if k in known if "behind" not in about else updates[k] > 0:
            step = torch.empty((), dtype=torch.float64 if _is_double(found, k) else torch.float32, device="meta")
            expected |= {f"optimizer.{k}.{slot}": step if slot == "step" else weight for slot in SLOTS}
    return expected


def _is_double(found: Mapping[str, Entry], k: int) -> bool:
    """Return whether the updates are counted in double precision, as torch does where that is its default."""
    return found.get(f"optimizer.{k}.step", Entry("F32", ())).dtype == "F64"


def updates_of(about: Mapping[str, Any], n: int) -> list[int]:
    """Return how many updates each of ``n`` weights has had."""
    fewer = dict(map(tuple, about.get("behind", [])))
    return [fewer.get(k, about["step"]) for k in range(n)]


def behind(tensors: Mapping[str, Tensor], n: int, *, step: int) -> list[list[int]]:
    """Return which of ``n`` weights have had fewer updates than there were steps, and how many."""
    zero = torch.zeros(())
    updates = [int(tensors.get(f"optimizer.{k}.step", zero)) for k in range(n)]
    return [[k, count] for k, count in enumerate(updates) if count != step]


def check_optimizer(tensors: Mapping[str, Tensor], about: Mapping[str, Any], n: int, *, source: Path) -> None:
    """Refuse an optimiser whose number of updates differs from the state, or whose squares are below 0.

    Raises
    ------
    CheckpointError
        With the index of the weight.
    """
    updates = updates_of(about, n)
    for k in range(n):
        if f"optimizer.{k}.step" not in tensors:
            continue
        count = float(tensors[f"optimizer.{k}.step"])
        if not (1 <= count <= updates[k] and count.is_integer()) or ("behind" in about and count != updates[k]):
            raise CheckpointError(
                f"{source} is damaged: expected {updates[k]} updates of weight {k}; found {count:g}. {_CURE}"
            )
        if (tensors[f"optimizer.{k}.exp_avg_sq"] < 0).any():
            raise CheckpointError(f"{source} is damaged: `optimizer.{k}.exp_avg_sq` is below 0. {_CURE}")
