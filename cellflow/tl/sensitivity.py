"""Whether growth comes from the population, or from the relaxation of its plans."""

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch

from cellflow.cells.snapshots import read_times
from cellflow.pairing.batches import intervals
from cellflow.pairing.masses import Ends, WeighedPlan
from cellflow.pairing.rows import RowMatching, match_some
from cellflow.seeds import generator_at

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

MOST = 1000
"""Cells of a snapshot whose growth is compared: a rank correlation above 0.9 is then known to 0.01."""
HALF, DOUBLE = 0.5, 2.0
SAME_RANKS = 0.9
"""Rank correlation below which the order of cells is said to change."""
SAME_LEVEL = 2.0
"""Ratio of the spread of rates at half and double the relaxation above which their level is said to follow it: it is 1
where proportions decide and 4 where travel is taken for death, in proportion to its cost; 2 is half-way."""
LITTLE = 0.1
"""Standard deviation of the growth of log mass over an interval below which nothing is concluded: cells differ by a
tenth of their mass."""
_NONE = 1e-6  # growth that differs by less differs by the tolerance of the solver


def sensitivity(adata: "AnnData", flow: "SnapshotFlow") -> pd.DataFrame | None:
    """Compare the growth of cells between plans with half, the given and double the relaxation; no network is fitted.

    Parameters
    ----------
    adata
        The cells on which the flow was fitted; others may be among them.
    flow
        A flow that was fitted with growth.

    Returns
    -------
    DataFrame or ``None``
        For each snapshot its ``time``; the standard deviation of the growth of log mass over an interval (``spread``);
        the Spearman correlation of growth with that at ``half`` and at ``double`` the relaxation; and how many times
        larger the standard deviation is at half than at double (``level``). ``None`` if no plan has a relaxation, a
        fitted snapshot is missing in ``adata``, or the flow has conditions.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> coupling = cf.couplings.UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", coupling=coupling, growth=True, steps=5).fit(adata)
    >>> list(sensitivity(adata, flow).columns)
    ['time', 'spread', 'half', 'double', 'level']
    """
    columns = {flow.within, flow.weight_key, flow.prior_key} - {None}
    time = read_times(adata, flow.time_key)
    lacks = not columns <= set(adata.obs) or not set(flow.clock_.times) <= set(time.tolist())
    if lacks or flow.conditions_ is not None:
        return None
    snapshots = flow._snapshots(adata[np.isin(time, flow.clock_.times)])
    clouds, times = flow._clouds(snapshots, torch.device("cpu"))
    matchings, ends = intervals(clouds, times, flow.coupling, **flow._population(snapshots, flow.masses_))
    if not any(hasattr(matching.coupling, "scaled") for matching in matchings):
        return None
    found = [_gains(matchings, ends, factor, seed=int(flow.seed)) for factor in (1.0, HALF, DOUBLE)]
    rows = [
        {
            "time": time,
            "spread": float(given.std()),
            "half": _rank_correlation(given, half),
            "double": _rank_correlation(given, double),
            "level": float((half.std() + _NONE) / (double.std() + _NONE)),
        }
        for time, given, half, double in zip(flow.clock_.times, *found, strict=True)
    ]
    return pd.DataFrame(rows)


def conclusion(table: pd.DataFrame, *, known: bool = False) -> str:
    """Describe what depends on the relaxation; empty if neither ranks nor level do.

    ``known`` says whether the growth had a prior, ``prior_key``.

    Examples
    --------
    >>> table = pd.DataFrame({"time": [0.0], "spread": [0.5], "half": [0.97], "double": [0.99], "level": [1.2]})
    >>> conclusion(table)
    ''
    >>> conclusion(table.assign(half=0.7)).partition(":")[0]
    'Growth depends on the relaxation of the plans'
    """
    judged = table[table["spread"] > LITTLE]
    moved = judged[judged[["half", "double"]].min(axis=1) < SAME_RANKS]
    scaled = judged[judged["level"] > SAME_LEVEL]
    if moved.empty and scaled.empty:
        return ""
    said = []
    if not moved.empty:
        worst = moved[["half", "double"]].min().min()
        said.append(f"the ranks of cells change at time {_list(moved)} (correlation down to {worst:.2f})")
    if not scaled.empty:
        said.append(f"their spread changes up to {scaled['level'].max():.1f}-fold at time {_list(scaled)}")
    more = "" if known else "Give `prior_key` (see `cf.tl.growth_prior`) or measured sizes in `masses`, and d"
    cure = f"{more or 'D'}o not read rates of single cells."
    return (
        f"Growth depends on the relaxation of the plans: at half and double of it, {', and '.join(said)}. There, "
        f"snapshots cannot tell travel from death. {cure}"
    )


def _gains(matchings: list[RowMatching], ends: list[Ends], factor: float, *, seed: int) -> list[np.ndarray]:
    """Return how log mass grows over the next interval, for cells of each snapshot; for the last, the one before."""
    leaving, arriving = [], np.empty(0)
    for number, (matching, weighed) in enumerate(zip(matchings, ends, strict=True)):
        coupling = matching.coupling
        changed = coupling.scaled(factor) if hasattr(coupling, "scaled") else coupling
        rng = generator_at(seed, number)
        _, _, plan, drawn = match_some(replace(matching, coupling=changed), weighed, MOST, generator=rng)
        start, stop = cast("WeighedPlan", drawn).source, cast("WeighedPlan", drawn).target
        leaving.append((plan.barycentric(stop, alone=0.0) - start).numpy())
        arriving = (stop - plan.origins(start, alone=0.0)).numpy()
    return [*leaving, arriving]


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's correlation; 1 where neither varies."""
    vary = [float(values.std()) > _NONE for values in (a, b)]
    if not all(vary):
        return 0.0 if any(vary) else 1.0
    first, second = (pd.Series(values).rank().to_numpy() for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _list(table: pd.DataFrame) -> str:
    return ", ".join(f"{time:g}" for time in table["time"])
