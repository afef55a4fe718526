"""Genes that go with a fate."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.pl.canvas import GREY, INK, OBSERVED, PREDICTED, figure_or_new, literal, plain
from cellflow.pl.labels import rate_label, time_label, unit_of_result
from cellflow.pl.marks import add_key_below
from cellflow.pl.names import write_names
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 0.05
"""False discovery rate below which genes are drawn full."""
NAMED = 12
"""Genes that are named beside their points, at most."""


@checked
def drivers(
    adata: "AnnData",
    *,
    n_genes: int = 20,
    key: str = "drivers",
    figure: "Figure | None" = None,
) -> "Figure":
    """Draw the genes that `cellflow.tl.drivers` found: the best ones in order, and all of them against their velocity.

    The upper genes of the list go with the fate, the lower ones with the others; full dots have a false discovery rate
    below 5 %. The second panel shows each gene by its partial correlation and by how fast it changes in cells on their
    way to the fate; without gene velocities, by its correlation without and with time accounted for.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.drivers` wrote.
    n_genes
        How many genes to list: two thirds that go with the fate, one third that go with others.
    key
        Name under which `cellflow.tl.drivers` wrote.
    figure
        Figure to draw on; ``None`` for a new one.

    Raises
    ------
    KeyError
        When nothing was written.
    ValueError
        When ``n_genes`` is below 1.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.planted_drivers(60, n_genes=30, n_drivers=5)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20, batch_size=64).fit(adata)
    >>> cf.tl.fate(adata, flow, groupby="fate")
    >>> cf.tl.drivers(adata, flow, fate="upper")
    >>> cf.pl.drivers(adata, n_genes=6).axes[0].get_xlabel()
    'partial correlation with the fate'
    """
    table, about = read_drivers(adata, key)
    if n_genes < 1:
        raise ValueError(f"Expected n_genes >= 1; found {n_genes}.")
    table = table[table["partial"].notna()]
    upper = -(-2 * n_genes // 3)
    listed = pd.concat([table.iloc[:upper], table.iloc[upper:].iloc[::-1].iloc[: n_genes - upper].iloc[::-1]])
    figure = figure_or_new(figure, size=(9.6, 1.6 + 0.22 * max(len(listed), 12)))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _rank(left, listed, upper)
    unit = unit_of_result(adata, about)
    _scatter(right, table, listed, unit)
    _say_marks(figure)
    times = ", ".join(time_label(float(time), unit) for time in np.atleast_1d(about["times"]))
    figure.suptitle(
        literal(f"{about['fate']} at {time_label(float(about['at']), unit)}: {about['n_cells']} cells at {times}"),
        fontsize=11,
    )
    return figure


def read_drivers(adata: "AnnData", key: str = "drivers") -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table that `cellflow.tl.drivers` wrote, and its metadata.

    Raises
    ------
    KeyError
        When it has not run.
    """
    if key not in adata.uns or f"{key}_about" not in adata.uns:
        raise KeyError(
            f"No `adata.uns[{key!r}]`. Available: {list(adata.uns)}. Run `cf.tl.drivers(adata, flow, fate=...)` first."
        )
    return pd.DataFrame(adata.uns[key]).reset_index(drop=True), dict(adata.uns[f"{key}_about"])


def _rank(ax: "Axes", listed: pd.DataFrame, upper: int) -> None:
    """Draw the genes in order, the first one at the top, with their false discovery rates."""
    place = -np.arange(len(listed), dtype=float)
    place[upper:] -= 0.7  # a gap before those that go with other fates
    value = listed["partial"].to_numpy(dtype=float)
    sure = listed["q_value"].to_numpy(dtype=float) < LEVEL
    colors = np.where(value > 0, PREDICTED, OBSERVED)
    ax.hlines(place, 0, value, color=GREY, linewidth=1.0, zorder=1)
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
    ax.scatter(
        value, place, s=26, c=np.where(sure, colors, "white"), edgecolors=colors.tolist(), linewidths=1.2, zorder=3
    )
    ax.set_yticks(place, [literal(str(gene)) for gene in listed["gene"]], fontsize=8.5)
    ax.tick_params(axis="y", length=0)
    for at, q in zip(place, listed["q_value"], strict=True):
        ax.annotate(
            f"{q:.0e}" if q < 0.001 else f"{q:.2g}", (1.02, at), xycoords=("axes fraction", "data"), fontsize=7.5,
            va="center", color=INK, annotation_clip=False,
        )  # fmt: skip
    ax.annotate("q", (1.02, 1.0), xycoords="axes fraction", fontsize=8.5, style="italic", va="bottom")
    ax.set(xlabel="partial correlation with the fate", ylim=(place.min() - 0.8, 0.8))
    ax.margins(x=0.08)
    plain(ax)


def _say_marks(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"marker": "o", "markersize": 5, "linestyle": "", "markeredgecolor": INK}
    said = ((INK, f"q < {LEVEL:g} (false discovery rate)"), ("white", f"q of {LEVEL:g} or more"))
    handles = [Line2D([], [], markerfacecolor=color, label=label, **style) for color, label in said]
    known = ((PREDICTED, "goes with this fate"), (OBSERVED, "with other fates"), (GREY, "not listed"))
    handles += [
        Line2D([], [], color=color, marker="o", markersize=5, linestyle="", label=label) for color, label in known
    ]
    add_key_below(figure, handles, columns=5)


def _scatter(ax: "Axes", table: pd.DataFrame, listed: pd.DataFrame, unit: str) -> None:
    """Draw all genes, and name the listed ones for which there is room."""
    moving = table["velocity"].notna().any()
    name, label = ("velocity", f"velocity toward the fate, {rate_label(unit)}") if moving else (
        "correlation", "correlation without accounting for time"
    )  # fmt: skip
    known = table[table[name].notna()]
    points = known[["partial", name]].to_numpy(dtype=float)
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.scatter(points[:, 0], points[:, 1], s=8, color=GREY, alpha=0.6, linewidths=0, zorder=2, rasterized=True)
    chosen = known.index.get_indexer(listed.index[listed.index.isin(known.index)])
    colors = np.where(points[chosen, 0] > 0, PREDICTED, OBSERVED)
    ax.scatter(points[chosen, 0], points[chosen, 1], s=20, c=colors, linewidths=0, zorder=3)
    ax.set(xlabel="partial correlation with the fate", ylabel=literal(label))
    ax.margins(0.1)
    plain(ax)
    order = chosen[np.argsort(-np.abs(points[chosen, 0]), kind="stable")]
    below = order[points[order, 0] <= 0][: NAMED // 3]  # so that some of both sides are named
    best = np.concatenate([order[points[order, 0] > 0][: NAMED - len(below)], below])
    names = [str(known["gene"].iloc[at]) for at in best]
    others = np.delete(points, best, axis=0)
    if len(best):
        write_names(ax, points[best, 0], points[best, 1], names, clear=others)
