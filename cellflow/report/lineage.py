"""Predicted fates beside what real clones became."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch

from cellflow import couplings, tl
from cellflow.cells.columns import read_labels
from cellflow.cells.states import States
from cellflow.couplings import Exact, Plan
from cellflow.metrics import bootstrap, fate_overlap
from cellflow.nearest import Nearest
from cellflow.pl.canvas import GREY, PREDICTED, literal
from cellflow.pl.cells import time_colors
from cellflow.report import html
from cellflow.report.html import Drawing, blank
from cellflow.seeds import generator
from cellflow.tl.descendants import NEIGHBORS
from cellflow.tl.fate_table import read_fate

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

FLOW, OWN, PLAN = "the flow", "the plans it was fitted on", "optimal transport alone"
STILL, ALIKE = "not moving", "all cells alike"
MOST_PAIRS = 2**24
"""Maximum number of pairs of two snapshots for the exact plan: 4096 x 4096 take about a minute."""


@dataclass(frozen=True)
class Clones:
    """What cells change into by the last snapshot: as each method says, and as their clones really did.

    Parameters
    ----------
    overlap
        For each method, the flow first, the overlap of prediction and truth of every clone ``(clones,)``.
    predicted, real
        Shares of the groups that each clone changes into, by the flow and really; tables of clones by groups. 0 where
        no change is predicted.
    n_cells
        Cells whose clone has become something else.
    """

    overlap: Mapping[str, np.ndarray]
    predicted: pd.DataFrame
    real: pd.DataFrame
    n_cells: int


def compare(adata: "AnnData", flow: "SnapshotFlow", *, groupby: str, lineage_key: str) -> Clones:
    """Compare fates with the cells of the same clones in the last fitted snapshot, see `cellflow.metrics.fate_overlap`.

    The flow has seen no clones: they are used only here.

    Raises
    ------
    KeyError
        When a column is missing.
    ValueError
        When no clone has become something else.
    """
    groups = read_labels(adata, groupby, setting="groupby").to_numpy()
    clones = read_labels(adata, lineage_key, setting="lineage_key").to_numpy()
    states, times = flow.read(adata), flow.clock_.times
    snapshots = [states.at(time) for time in times]
    early = np.concatenate([snapshot.rows for snapshot in snapshots[:-1]])
    written = cast("AnnData", tl.fate(adata, flow, groupby=groupby, copy=True))
    fates = read_fate(written)
    last = snapshots[-1].rows
    names = list(fates.groups)
    member = (pd.Series(groups[last]).fillna("none").to_numpy()[:, None] == names).astype(np.float64)
    said = {FLOW: fates.shares[early], **_beside(snapshots, member, flow)}
    tables = {name: pd.DataFrame(shares, columns=names) for name, shares in said.items()}
    known = groups[early], clones[early], groups[last], clones[last]
    overlap = {name: fate_overlap(table, *known).numpy() for name, table in tables.items()}
    changed = ~np.isnan(overlap[FLOW])
    own = pd.Series(clones[early][changed]).astype(str).to_numpy()
    later = pd.DataFrame({"clone": clones[last], "group": groups[last]}).dropna().astype(str)
    became = pd.crosstab(later["clone"], later["group"]).reindex(columns=names, fill_value=0)

    def by_clone(shares: np.ndarray) -> pd.DataFrame:
        others = shares * (groups[early][changed].astype(str)[:, None] != np.asarray(names))
        total = others.sum(axis=1, keepdims=True)
        return pd.DataFrame(others / np.where(total > 0, total, 1), columns=names).groupby(own).mean()

    return Clones(
        {name: pd.Series(values[changed]).groupby(own).mean().to_numpy() for name, values in overlap.items()},
        by_clone(said[FLOW][changed]),
        by_clone(became.reindex(own).to_numpy(dtype=np.float64)),
        int(changed.sum()),
    )


def _beside(snapshots: list[States], member: np.ndarray, flow: "SnapshotFlow") -> dict[str, np.ndarray]:
    """Return the shares of groups that methods without learning give to the cells of all snapshots but the last."""
    last = snapshots[-1].x
    nearest = Nearest(last, min(NEIGHBORS, len(last)))

    def around(x: np.ndarray) -> np.ndarray:
        return np.asarray(member[nearest.rows(x)].mean(axis=1))

    def through(plans: Iterable[Plan]) -> np.ndarray:
        shares = [torch.from_numpy(around(last))]
        for plan in plans:
            shares.append(plan.barycentric(shares[-1], alone=0.0).cpu())
        return torch.cat(shares[:0:-1]).numpy()

    backward = [(torch.from_numpy(x0.x), torch.from_numpy(x1.x)) for x0, x1 in pairwise(snapshots)][::-1]
    found, own = {}, list(getattr(flow, "plans_", []))[::-1]  # plans are not saved with a flow
    exact = couplings.resolve(flow.coupling) == Exact()
    if own and not exact and [p and p.shape for p in own] == [(len(x0), len(x1)) for x0, x1 in backward]:
        found[OWN] = through(own)
    if all(len(x0) * len(x1) <= MOST_PAIRS for x0, x1 in backward):
        found[PLAN] = through(Exact()(x0, x1) for x0, x1 in backward)
    early = np.concatenate([snapshot.x for snapshot in snapshots[:-1]])
    return found | {STILL: around(early), ALIKE: np.tile(member.mean(axis=0), (len(early), 1))}


def sentence(clones: Clones, when: str) -> str:
    """Say how the fates of the flow compare with real clones, beside methods without learning.

    A difference counts only if 95 % of resampled sets of clones agree on its sign.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> overlap = {FLOW: np.full(9, 0.5), PLAN: np.full(9, 0.3), STILL: np.full(9, 0.5)}
    >>> print(sentence(Clones(overlap, pd.DataFrame(), pd.DataFrame(), 20), "day 6"))
    Beside 9 real clones that had changed by day 6 (20 cells; the flow never saw clones): its fates are better than
    optimal transport alone, and level with not moving. With what the clones became the flow has 50 % in common,
    optimal transport alone 30 % and not moving 50 %.
    """
    verdicts: dict[str, list[str]] = {}
    for name in list(clones.overlap)[1:]:
        verdicts.setdefault(_verdict(clones.overlap[FLOW] - clones.overlap[name]), []).append(name)
    than = [f"{_THAN[verdict]} {_joined(verdicts[verdict])}" for verdict in _THAN if verdict in verdicts]
    shares = {name: f"{values.mean():.0%}".replace("%", " %") for name, values in clones.overlap.items()}
    first, *others = (f"{name} {share}" for name, share in shares.items())
    return (
        f"Beside {len(clones.overlap[FLOW])} real clones that had changed by {when} ({clones.n_cells} cells; the flow "
        f"never saw clones): its fates are {', and '.join(than)}. With what the clones became "
        f"{first.replace(FLOW, f'{FLOW} has')} in common, {_joined(others)}."
    )


def table(clones: Clones) -> str:
    """Return the overlaps as an HTML table, with intervals over clones."""
    rows = []
    for name, values in clones.overlap.items():
        found = bootstrap(torch.mean, torch.from_numpy(values), generator=generator(seed=0))
        rows.append([name.capitalize(), f"{found.value:.2f}", f"{found.low:.2f} to {found.high:.2f}"])
    explained = (
        "Cells whose clone has become something else by the last snapshot: the overlap of the predicted and the real "
        "change, 0 to 1, mean over clones. A cell's own group is left out of both, so that staying, which is right "
        "for most cells, scores nothing. Two sisters can have different fates, so do not expect 1."
    )
    return html.paragraph(explained) + html.table(
        ("", "In common", "95\u00a0% of resampled clones"), rows, numbers=(1, 2)
    )


def unsaved(flow: "SnapshotFlow") -> str:
    """Say that a loaded flow is compared with its own plans only in the report of its fit."""
    if hasattr(flow, "plans_") or couplings.resolve(flow.coupling) == Exact():  # whose plans are found again
        return ""
    said = f"A flow is saved without its plans, so {OWN} are not compared here. The report of the fit has them."
    return html.paragraph(said, style="note")


def drawing(clones: Clones, when: str) -> Drawing:
    """Draw what each clone changes into, as the flow says and really, beside the overlaps of all methods."""
    real = clones.real.loc[:, (clones.real.sum() + clones.predicted.sum()) > 0]
    real = real[real.sum().sort_values(ascending=False).index]
    real = real.iloc[np.lexsort((-real.max(axis=1).to_numpy(), real.to_numpy().argmax(axis=1)))]
    figure = blank(10.4, 4.6)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    names = list(clones.overlap)[::-1]
    for place, name in enumerate(names):
        found = bootstrap(torch.mean, torch.from_numpy(clones.overlap[name]), generator=generator(seed=0))
        color = PREDICTED if name == FLOW else GREY
        left.barh(place, found.value, color=color, height=0.62)
        left.plot([found.low, found.high], [place, place], color="#222222", linewidth=1.2)
    left.set(yticks=range(len(names)), yticklabels=names, xlim=(0, None), xlabel="in common with real clones")
    left.spines[["top", "right"]].set_visible(False)
    for ax, values, title in ((middle, clones.predicted, "predicted"), (right, real, "real clones")):
        shown = values.loc[real.index, real.columns].to_numpy(copy=True)
        shown[shown.sum(axis=1) == 0] = np.nan
        marks = ax.imshow(shown, aspect="auto", cmap=time_colors(), vmin=0, vmax=1, interpolation="nearest")
        ax.set(title=title, yticks=[], ylabel="clones" if ax is middle else "")
        ax.set_xticks(range(len(real.columns)), [literal(str(name)) for name in real.columns], rotation=60, ha="right")
    figure.colorbar(marks, ax=[middle, right], label="share", fraction=0.04, pad=0.02)
    caption = (
        f"What cells change into by {when}: each row is a clone, in the order of what it became; white where the flow "
        "predicts no change. The flow was fitted without clones."
    )
    return Drawing("lineage", "clones", figure, caption)


_THAN = {"better": "better than", "level": "level with", "worse": "worse than"}


def _verdict(difference: np.ndarray) -> str:
    found = bootstrap(torch.mean, torch.from_numpy(difference), generator=generator(seed=0), repeats=1000)
    return "better" if found.low > 0 else "worse" if found.high < 0 else "level"


def _joined(names: list[str]) -> str:
    *first, final = names
    return f"{', '.join(first)} and {final}" if first else final
