"""What a `SnapshotFlow` has learned beside its weights, as JSON and back: methods bound in its class."""

from typing import TYPE_CHECKING, Any

from cellflow import training
from cellflow.cells.clock import Clock
from cellflow.cells.fingerprint import Fingerprint
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.estimators.matching_record import matched_by_name, matched_list, matching_record

if TYPE_CHECKING:
    from cellflow.estimators.snapshots import SnapshotFlow


def learned(self: "SnapshotFlow") -> dict[str, Any]:
    """Return everything learned other than the weights, as JSON."""
    turnover = list(self.turnover_.values() if isinstance(self.turnover_, dict) else self.turnover_)
    return {
        "times": list(self.clock_.times),
        **({"time_labels": dict(self.clock_.labels)} if self.clock_.labels else {}),
        "n_features_in": self.n_features_in_,
        "n_cells": list(self.n_cells_),
        "history": self.history_.columns,
        "growth": self.growth_,
        **({"turnover": turnover} if turnover else {}),  # which old files lack
        **({"matching": matching_record(self.matching_)} if self.matching_ else {}),
        **({} if self.conditions_ is None else {"conditions": self.conditions_.record()}),
        "masses": self.masses_,
        "search_history": self.search_history_.columns,
        "blur": self.blur_,
        "fingerprint": None if self.fingerprint_ is None else self.fingerprint_.record(),
    }


def restore(self: "SnapshotFlow", learned: dict[str, Any]) -> None:
    """Restore what `learned` returned.

    Raises
    ------
    ValueError
        When the settings use another number of columns than the fit.
    """
    self.clock_, self.n_cells_ = (
        Clock(tuple(learned["times"]), learned.get("time_labels", {})),
        tuple(learned["n_cells"]),
    )
    self.n_features_in_, self.history_ = learned["n_features_in"], training.History(learned["history"])
    if self.n_pcs not in (None, self.n_features_in_):
        raise ValueError(f"Expected `n_pcs` to be {self.n_features_in_}, as in the fit, or None; found {self.n_pcs}.")
    # Models that were saved before growth was known say nothing about it.
    sizes, self.growth_ = learned.get("masses"), bool(learned.get("growth", self.growth is True))
    self.masses_ = None if sizes is None else tuple(sizes)
    known = learned.get("conditions")
    self.conditions_ = None if known is None else FittedConditions.of(known)
    matching = learned.get("matching", [])  # which models of before do not say
    if known is None:
        self.turnover_ = learned.get("turnover", [None] * (len(self.clock_.times) - 1))
        self.matching_ = matched_list(matching)
    else:
        self.matching_ = matched_by_name(matching)
        self.turnover_ = dict(zip(self.matching_, learned.get("turnover", []), strict=False))  # of all or of none
    self.members_ = ()  # until their weights are read
    self.search_history_ = training.History(learned.get("search_history"))
    self.blur_ = float(learned.get("blur", 0.0))
    self.fingerprint_ = Fingerprint.of(learned.get("fingerprint"), width=self.n_features_in_)
