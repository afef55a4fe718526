"""What kind every setting of every command is; those of parts follow from constructors, see `cellflow.cli.parts`."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from cellflow.cli.kinds import COUNT, TIMES, Between

PARTS = ("path", "coupling", "curve", "network", "recipe", "solver")
"""Groups of settings that are one part each."""
OF_RUNS = ("path", "coupling", "curve", "network")
"""Parts that a command takes from a finished run, except those given again."""
GROUPS = (*PARTS, "data", "conditions")
"""Settings that have settings: ``data.path``."""
SHORT = {
    "data": "data.path",
    "conditions": "conditions.treatment", "groupby": "data.groupby", "genes": "data.genes", "basis": "data.basis",
    "lineage_key": "data.lineage_key",
}  # fmt: skip
"""Settings that have a one-word form, as in Python, if a command has no other of that name."""
OF_THE_USER = ("condition", "cells")
"""Settings whose inner names are columns of the user's own: ``condition.drug``."""
SHARE = Annotated[float, Between(0, 1, open=True)]
SIDE = Annotated[int, Between(1, 65536)]
PERCENTAGE = Annotated[float, Between(0, 100)]
AUTO_OR_BOOL = bool | Literal["auto"]
DEVICE = Literal["auto", "cpu", "cuda", "mps", *(f"cuda:{number}" for number in range(16))]  # type: ignore[valid-type]
CHOICE: Any = ...
"""Kind of a setting that is one of the names that another room knows: `choices` asks for them when they are needed."""

SETTINGS: dict[str, Any] = {
    # Where things are.
    "model": Path | None,
    "out": Path | None,
    "input": Path | None,
    "source": Path | None,
    "target": Path | None,
    "data": Path | None,  # of images; of cells it is a group
    "data.path": Path | list[Path] | None,
    "data.time_key": str,
    "data.rep": str,
    "data.groupby": str | None,
    "data.lineage_key": str | None,
    "data.basis": str | None,
    "data.genes": list[str],
    "data.holdout": TIMES,
    # What a field sees.
    "conditions.treatment": str | list[str] | None,
    "conditions.dose": str | list[str] | None,
    "conditions.control": str,
    "conditions.categories": str | list[str],
    "conditions.numbers": str | list[str],
    "conditions.embeddings": dict[str, str] | None,
    "conditions.separator": str | None,
    "condition": dict[str, str] | list[dict[str, str]] | None,
    "cells": dict[str, str] | Literal["controls", "all"],
    # A fit.
    "n_pcs": COUNT | None,
    "steps": COUNT,
    "batch_size": COUNT,
    "seed": int,
    "stochastic": bool,
    "growth": AUTO_OR_BOOL,
    "heads": Literal["auto", "shared", "separate", "ends"],
    "guess": bool,
    "masses": Literal["counts"] | dict[float | str, float] | None,
    "weight_key": str | None,
    "prior_key": str | None,
    "within": str | None,
    "ensemble": Annotated[int, Between(2, 1024)] | None,
    "replicate_key": str | None,
    "standardize": bool | Literal["loss"],
    "regularize": AUTO_OR_BOOL,
    "ot_batch_size": COUNT | Literal["auto", "whole"],
    "device": DEVICE,
    "devices": COUNT | Literal["auto"],
    "threads": Annotated[int, Between(1, 1024)] | None,
    "progress": bool | None,
    "resume": bool,
    "save_every": COUNT,
    "save_minutes": Annotated[float, Between(0, math.inf, open=True)] | None,
    "validate": bool,
    "report": bool,
    "keep_aside": bool,
    "n_seeds": COUNT,
    # Demos.
    "task": str,
    "dataset": Literal["hsmm", "hematopoiesis"],
    "components": COUNT | None,
    "markers": list[str],
    # Images.
    "size": SIDE | tuple[SIDE, SIDE] | None,
    "channels": Annotated[int, Between(1, 4096)] | None,
    "skip_unreadable": bool,
    "white_level": Annotated[float, Between(0, math.inf, open=True)] | None,
    "background": Annotated[int, Between(0, 255)] | Literal["former"] | None,
    "percentiles": tuple[PERCENTAGE, PERCENTAGE] | None,
    "fit": CHOICE,
    "pages": CHOICE,
    "overlap": Annotated[int, Between(0)] | None,
    "max_pixels": COUNT,
    "stream": bool,
    "flip": bool,
    "autoencoder": Literal["train"] | Path | None,
    "holdout": SHARE,
    "feature_network": CHOICE,
    "target_class": str | None,
    "features": COUNT | str | None,
    "within_labels": bool,
    "labels": Literal["folder"] | None,
    "table": Path | None,
    "file_column": str,
    "preview": COUNT,
    "condition_dropout": Annotated[float, Between(0, 1)],
    "n": COUNT,
    "label": str | None,
    "guidance": float,
    "reverse": bool,
    "strength": Annotated[float, Between(0, 1)] | None,
    "teacher": bool,
    "objective": CHOICE,
    # What is done with a run.
    "at": TIMES,
    "origin": Literal["both", "before", "after"],
    "extrapolate": bool,
    "genes": bool,
    "basis": str | None,
    "groupby": str | None,
    "terminal": Literal["auto"] | None,
    "n_samples": COUNT,
    "solver.steps": COUNT | None,  # where no solver is chosen
}

OF_COMMANDS: dict[str, dict[str, Any]] = {
    "fit": {"data.path": Path | list[Path], "threads": Annotated[int, Between(1, 1024)]},
    "demo": {"threads": Annotated[int, Between(1, 1024)] | None},
    "interpolate": {"model": Path, "condition": dict[str, str] | None},
    "velocity": {"model": Path, "condition": dict[str, str] | None},
    "fate": {"model": Path, "condition": dict[str, str] | None, "at": float | str | None},
    "report": {"model": Path},
    "distill": {"model": Path},
    "translate": {"steps": COUNT | None, "batch_size": COUNT | None},
    "generate": {"steps": COUNT | None, "batch_size": COUNT | None},
    "perturb": {
        "data.holdout": dict[str, str] | None,
        "threads": Annotated[int, Between(1, 1024)],
        "genes": AUTO_OR_BOOL | list[str],
    },
}
"""Settings that differ for one command."""


def kind_of(name: str, command: str) -> Any:
    """Return the kind of a setting of a command, which is no part's.

    Examples
    --------
    >>> kind_of("validate", "fit")
    <class 'bool'>
    """
    kind = OF_COMMANDS.get(command, {}).get(name, SETTINGS[name])
    if kind is not CHOICE:
        return kind
    from cellflow.cli.choices import choice

    return choice(name, command)
