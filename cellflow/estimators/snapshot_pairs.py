"""The pairs that a `SnapshotFlow` is trained on: methods bound in its class."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.snapshots import Snapshots, read_snapshots
from cellflow.cells.stores import Stored, as_adata
from cellflow.couplings import Coupling
from cellflow.estimators.chains import legs_of
from cellflow.estimators.given_plans import placed
from cellflow.estimators.population import LOOKED_THROUGH, Sizes, hold_out
from cellflow.pairing import Curve, aside, curves
from cellflow.pairing.batches import PairedBatches, snapshot_batches
from cellflow.pairing.leg_curves import leg_bends
from cellflow.pairing.legs import LegBatches, leg_batches
from cellflow.seeds import precise_device
from cellflow.training.confirmed import Leg
from cellflow.training.search import Parts

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.snapshots import SnapshotFlow

CHECKED_LEGS = 20
"""Most legs on which it is checked how much of the growth held-out cells confirm: those with the most cells."""


def cells(self: "SnapshotFlow", data: "AnnData | Stored") -> "AnnData":
    """Return an AnnData as it is; for files, the columns of ``obs`` that the settings of a flow name, or all."""
    keys = ("time_key", "within", "weight_key", "prior_key", "replicate_key")
    named = [name for name in (getattr(self, key) for key in keys) if name is not None]
    return as_adata(data, rep=self.rep, columns=named if self.conditions is None else None)


def read(self: "SnapshotFlow", adata: "AnnData") -> Snapshots:
    """Return the cells under the keys of a flow, with their conditions if it has any."""
    keys = ("time_key", "rep", "within", "weight_key", "prior_key", "n_pcs")
    found = read_snapshots(adata, **{key: getattr(self, key) for key in keys})
    fitted = getattr(self, "conditions_", None)
    return found if fitted is None else replace(found, conditions=fitted.read(adata.obs))


def clouds(self: "SnapshotFlow", snapshots: Snapshots, device: torch.device) -> tuple[list[Tensor], list[float]]:
    """Return the states of each snapshot, on a device, and its model time."""
    found = [torch.from_numpy(cloud).to(device) for cloud in snapshots.clouds()]
    return found, [snapshots.clock.model(time) for time in snapshots.clock.times]


def passed(self: "SnapshotFlow", snapshots: Snapshots, device: torch.device) -> tuple[Any, ...]:
    """Return the states that trajectories of a fitted flow pass through, their times and, if any, conditions.

    With conditions they are the ends of all legs: untreated cells are followed under each treatment that they lead to.
    """
    if snapshots.conditions is None:
        return self._clouds(snapshots, device)
    x, table = torch.from_numpy(snapshots.x), torch.from_numpy(snapshots.conditions.vectors)
    ends: dict[float, dict[int, list[Tensor]]] = {}
    for leg in legs_of(snapshots):
        for rows, time in ((leg.source, leg.start), (leg.target, leg.stop)):
            ends.setdefault(time, {}).setdefault(leg.condition, []).append(rows)
    known, seen = [], []
    for time in sorted(ends):
        here = {condition: torch.cat(parts).unique() for condition, parts in ends[time].items()}
        known.append(torch.cat([x[some] for some in here.values()]).to(device))
        seen.append(torch.cat([table[k].expand(len(some), -1) for k, some in here.items()]).to(device))
    return known, sorted(ends), seen


def population(self: "SnapshotFlow", snapshots: Snapshots, sizes: Sizes | None) -> dict[str, Any]:
    """Return what pairs depend on besides states and times: weights of cells, expected growth, groups, the path."""
    rates = None if snapshots.rates is None else snapshots.rates / snapshots.clock.per_time
    of_cells = {"within": snapshots.groups, "weights": snapshots.weights, "rates": rates}
    each = {name: None if values is None else snapshots.each(values) for name, values in of_cells.items()}
    return {"masses": sizes, "path": self.path, **each}


def pair(
    self: "SnapshotFlow",
    snapshots: Snapshots,
    coupling: Coupling,
    rng: torch.Generator,
    sizes: Sizes | None,
    device: torch.device,
    curve: Curve | str | None = None,
) -> PairedBatches | LegBatches:
    """Pair each snapshot with the next; with conditions, those of each condition."""
    coupling = placed(coupling, snapshots, growing=sizes is not None)
    if snapshots.conditions is not None:
        return pair_legs(self, snapshots, coupling, rng, sizes, device, curve)
    known, times = self._clouds(snapshots, precise_device(device))
    return snapshot_batches(
        known,
        times,
        coupling=coupling,
        batch_size=self.batch_size,
        generator=rng,
        ot_batch_size=self.ot_batch_size,
        **self._population(snapshots, sizes),
        curve=curve or self.curve,
    )


def pair_legs(
    self: "SnapshotFlow",
    snapshots: Snapshots,
    coupling: Coupling,
    rng: torch.Generator,
    sizes: Sizes | None,
    device: torch.device,
    curve: Curve | str | None = None,
    *,
    only: np.ndarray | None = None,
) -> LegBatches:
    """Pair the cells of each condition, or only some of them, a mask ``(n,)``."""
    legs, times = legs_of(snapshots), snapshots.clock.times
    if only is not None:
        parts = [leg.of(torch.from_numpy(only)) for leg in legs]
        legs = [leg for leg in parts if len(leg.source) and len(leg.target)]
    masses = None
    if sizes is not None:
        masses = [(sizes[times.index(leg.name[1])], sizes[times.index(leg.name[2])]) for leg in legs]
    found = leg_batches(
        torch.from_numpy(snapshots.x).to(precise_device(device)),
        legs,
        torch.from_numpy(cast("ConditionTable", snapshots.conditions).vectors),
        coupling=coupling,
        batch_size=self.batch_size * (len(times) - 1),
        generator=rng,
        ot_batch_size=self.ot_batch_size,
        masses=masses,
        weights=snapshots.weights,
        rates=None if snapshots.rates is None else snapshots.rates / snapshots.clock.per_time,
        path=self.path,
    )
    chosen = curves.resolve(curve or self.curve)
    straight = chosen == curves.Straight() or len(times) < 3
    bends = None if straight else leg_bends(chosen, legs, found.displacements())
    return found if bends is None else found.bent(bends)


def parts(
    self: "SnapshotFlow",
    snapshots: Snapshots,
    coupling: Coupling,
    rng: torch.Generator,
    sizes: Sizes | None,
    device: torch.device,
    *,
    whole: PairedBatches | LegBatches | None = None,
) -> Parts | None:
    """Split the cells into those that a search sees and those that it does not; ``None`` if there are too few.

    ``whole`` are the pairs of all cells, if they grow.
    """
    if snapshots.conditions is not None:
        given = (snapshots, coupling, rng, sizes, device)
        return hold_out_legs(self, *given, whole=cast("LegBatches | None", whole))

    def part(cells: Snapshots) -> PairedBatches:
        return cast("PairedBatches", self._pair(cells, coupling, rng, sizes, device, curve="straight"))

    return hold_out(snapshots, part, generator=rng, whole=cast("PairedBatches | None", whole))


def hold_out_legs(
    self: "SnapshotFlow",
    snapshots: Snapshots,
    coupling: Coupling,
    rng: torch.Generator,
    sizes: Sizes | None,
    device: torch.device,
    *,
    whole: LegBatches | None = None,
) -> Parts | None:
    """Split the cells of every condition, group and snapshot into those that a search sees and those that it does not.

    Of fewer than six cells none is held out.

    Returns
    -------
    parts
        As of `cellflow.estimators.population.hold_out`; ``None`` if that applies to most cells.
    """
    table = cast("ConditionTable", snapshots.conditions)
    names = snapshots.groups if snapshots.groups is not None else np.full(len(snapshots.x), "")
    sets = np.unique(np.stack([table.index.astype(str), names.astype(str)], axis=1), axis=0, return_inverse=True)[
        1
    ].reshape(-1)
    held = np.zeros(len(snapshots.x), dtype=bool)
    for time in snapshots.clock.times:
        here = snapshots.at(time)
        known, counts = np.unique(sets[here], return_counts=True)
        enough = here[np.isin(sets[here], known[counts >= aside.FEWEST])]
        if len(enough):
            (mask,) = aside.held_out([sets[enough]], generator=rng) or [np.zeros(len(enough), dtype=bool)]
            held[enough] = mask
    legs = legs_of(snapshots)
    checked = [leg.of(torch.from_numpy(held)) for leg in legs]
    checked = [leg for leg in checked if len(leg.source) and len(leg.target)]
    if len(checked) <= len(legs) / 2:
        return None
    seen, kept = (
        pair_legs(self, snapshots, coupling, rng, sizes, device, "straight", only=mask) for mask in (~held, held)
    )
    divided = Parts(seen, kept)
    if whole is None:
        return divided
    leaving = whole.leaving(torch.from_numpy(held), batches=LOOKED_THROUGH)
    largest = sorted(checked, key=lambda leg: -len(leg.target))[:CHECKED_LEGS]
    x = torch.from_numpy(snapshots.x)
    weights = None if snapshots.weights is None else torch.as_tensor(snapshots.weights)
    conditions = torch.from_numpy(table.vectors)
    judged = [
        Leg(
            x[leg.source],
            x[leg.target],
            leg.start,
            leg.stop,
            None if weights is None else weights[leg.source],
            None if weights is None else weights[leg.target],
            conditions[leg.condition],
        )
        for leg in largest
    ]
    return divided._replace(leaving=[leaving] if len(leaving.x0) else [], legs=judged)
