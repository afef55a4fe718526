"""What a `PerturbationFlow` has learned beside its weights, as JSON and back."""

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow import training
from cellflow.cells.doses import number_of
from cellflow.cells.fingerprint import Fingerprint
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.name_vectors import listed
from cellflow.cells.stores import digests_of_files
from cellflow.cells.treatments import name_of
from cellflow.estimators.arms import Arms, treatments_alone
from cellflow.estimators.matching_record import matched_by_name, matching_record
from cellflow.training.kinds import TEXT, Kind, check_record, many, whole

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.perturbation import PerturbationFlow


ARMS: dict[str, Kind] = {
    **dict.fromkeys(("treatment", "group"), many(TEXT, least=1)),
    **dict.fromkeys(("cells", "controls"), many(whole(1), least=1)),
}
"""Columns of the table of arms."""


def table_of(arms: Arms) -> pd.DataFrame:
    """Return a table of the arms: ``treatment``, ``group``, ``cells`` and ``controls``."""
    rows = [(arm.label, str(arm.group), len(arm.target), len(arm.source)) for arm in arms.arms]
    return pd.DataFrame(rows, columns=["treatment", "group", "cells", "controls"])


def treatments_of(adata: "AnnData", conditions: FittedConditions, arms: Arms) -> tuple[dict[str, Any], ...]:
    """Return each treatment as a mapping from column to value, from the first cell that has it."""
    columns = dict.fromkeys((*conditions.treatment, *conditions.dose))
    first = {arm.label: arm.target[0] for arm in reversed(arms.arms)}
    return tuple({name: _plain(adata.obs[name].iloc[first[label]]) for name in columns} for label in arms.labels)


def _plain(value: Any) -> str | float | None:
    """Return a value of a column as text, a number, or nothing."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_):
        return None if value != value else number_of(value)
    return name_of(value)


def about(arms: Arms, adata: "AnnData") -> dict[str, Any]:
    """Return digests of the cells and of their files, which a resumed training must share."""
    found = hashlib.sha256(np.ascontiguousarray(arms.x).data)
    for part in (arms.table.vectors, arms.table.index):
        found.update(np.ascontiguousarray(part).tobytes())
    found.update("\n".join(repr(str(name)) for name in arms.groups).encode())
    return {**digests_of_files(adata, arms.x), "cells": found.hexdigest()[:16]}


def learned(self: "PerturbationFlow") -> dict[str, Any]:
    """Return everything learned other than the weights, as JSON."""
    return {
        "conditions": self.conditions_.record(),
        "treatments": [dict(one) for one in self.treatments_],
        "arms": {name: self.arms_[name].tolist() for name in self.arms_},
        "matching": matching_record(self.matching_),
        "shifts": base64.b64encode(self.shifts_.astype("<f4").tobytes()).decode("ascii"),
        "n_features_in": self.n_features_in_,
        "segments": self.segments_,
        "told": self.told_,
        "history": self.history_.columns,
        "search_history": self.search_history_.columns,
        "blur": self.blur_,
        "fingerprint": None if self.fingerprint_ is None else self.fingerprint_.record(),
    }


def restore(self: "PerturbationFlow", learned: dict[str, Any]) -> None:
    """Restore what `learned` returned."""
    self.conditions_ = FittedConditions.of(learned["conditions"])
    self.treatments_ = tuple(learned["treatments"])
    self.arms_ = _read_arms(learned["arms"])
    _check_treatments(self)
    self.matching_ = matched_by_name(learned.get("matching", []))  # which models of before do not say
    self.segments_, self.told_ = learned["segments"], learned["told"]
    self.n_features_in_, self.history_ = learned["n_features_in"], training.History(learned["history"])
    shifts = np.frombuffer(base64.b64decode(learned["shifts"], validate=True), dtype="<f4")
    self.shifts_ = shifts.reshape(len(self.arms_), self.n_features_in_).astype(np.float32)
    self.search_history_, self.blur_ = training.History(learned["search_history"]), float(learned["blur"])
    self.fingerprint_ = Fingerprint.of(learned["fingerprint"], width=self.n_features_in_)


def _read_arms(found: Any) -> pd.DataFrame:
    """Return the table of arms.

    Raises
    ------
    CheckpointError, ValueError
        When it is not one.
    """
    check_record(found, ARMS, what="the table of arms is damaged", under="learned.arms", cure="Use another copy.")
    return pd.DataFrame(found)


def _check_treatments(flow: "PerturbationFlow") -> None:
    """Refuse treatments that are not those of the table, or are not read by the conditions.

    Raises
    ------
    KeyError, TypeError, ValueError
        When one is not.
    """
    alone = treatments_alone(flow.conditions_)
    labels = [alone.table(one, 1).labels[0] for one in flow.treatments_]
    if len(set(labels)) != len(labels) or set(labels) != set(flow.arms_["treatment"]):
        raise ValueError(f"Expected the treatments of the table of arms; found {listed(labels)}.")
