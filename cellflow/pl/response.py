"""Predicted against measured change of genes, and a map of conditions by what they change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.errors import unknown
from cellflow.pl.canvas import GREY, INK, OBSERVED, PALETTE, PREDICTED, axes_or_new, literal, plain
from cellflow.pl.names import write_names
from cellflow.signature import checked
from cellflow.tl.response import PREDICTED as PREDICTED_KEY
from cellflow.tl.response import name_of_row

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_HOLLOW: dict[str, Any] = {"s": 30, "facecolors": "none", "linewidths": 1.2}
MOST_NAMES = 60
"""Conditions that a map names at most: those that change most."""


@checked
def response(
    adata: "AnnData",
    *,
    treatment: str | None = None,
    group: str | None = None,
    genes: int | Sequence[str] = 14,
    key: str = "response",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the predicted against the measured mean change of every gene, under one treatment in one group of cells.

    Genes on the line are predicted rightly. Those farthest from no change are named, as far as there is room.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.response` wrote for a flow.
    treatment, group
        Names, as in the table that was written; ``None`` for the one with the largest change of those that are left,
        and can be told from nothing.
    genes
        How many genes to name, or the names of those to name.
    key
        Name under which `cellflow.tl.response` wrote.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError, ValueError
        When nothing was written, no genes were predicted, or there is no such treatment, group or gene.

    Examples
    --------
    >>> import anndata, scanpy as sc, cellflow as cf
    >>> rng = np.random.default_rng(0)
    >>> x, drug = rng.normal(size=(80, 30)).astype("float32"), np.repeat(["control", "A"], 40)
    >>> x[drug == "A", 3] += 4
    >>> adata = anndata.AnnData(x, obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(80)]))
    >>> sc.pp.pca(adata, n_comps=5)
    >>> flow = cf.PerturbationFlow(conditions="drug", steps=20).fit(adata)
    >>> cf.tl.response(adata, flow)
    >>> cf.pl.response(adata, genes=3).get_ylabel()
    'predicted change'
    """
    table = read_response(adata, key)
    place = _row(table, treatment, group)
    if f"{key}{PREDICTED_KEY}" not in adata.varm:
        raise KeyError(
            f"No `adata.varm[{key + PREDICTED_KEY!r}]`, the predicted change of genes. Run `cf.tl.response(adata, "
            "flow)` with a flow on principal components of `adata.X`."
        )
    measured, predicted = (np.asarray(adata.varm[name])[:, place] for name in (key, f"{key}{PREDICTED_KEY}"))
    known = np.isfinite(predicted)
    ax = axes_or_new(ax, size=(5.6, 5.4))
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.scatter(measured[known], predicted[known], s=9, color=OBSERVED, alpha=0.5, linewidths=0, zorder=2)
    ax.margins(0.12)
    _line(ax)
    row = table.iloc[place]
    ax.set(xlabel="measured change", ylabel="predicted change", title=literal(_title(row)))
    ax.title.set_fontsize(10)
    plain(ax)
    chosen = _chosen(adata, genes, np.where(known, np.maximum(np.abs(measured), np.abs(predicted)), -1.0))
    ax.scatter(measured[chosen], predicted[chosen], s=16, color=PREDICTED, linewidths=0, zorder=3)
    names = [str(adata.var_names[k]) for k in chosen]
    write_names(ax, measured[chosen], predicted[chosen], names, clear=np.zeros((0, 2)))
    return ax


@checked
def conditions(adata: "AnnData", *, key: str = "response", ax: "Axes | None" = None) -> "Axes":
    """Draw a map of conditions: near each other where they change the cells alike, far from the cross where much.

    The two axes are the directions in which the mean of the cells changes most, over all conditions; the cross is no
    change. Conditions that cannot be told from nothing are hollow.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.response` wrote.
    key
        Name under which it wrote.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError
        When nothing was written.

    Examples
    --------
    >>> import anndata, cellflow as cf
    >>> x, drug = np.random.default_rng(0).normal(size=(90, 3)), np.repeat(["control", "A", "B"], 30)
    >>> x[drug == "A", 0] += 3
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(90)]), obsm={"X_pca": x})
    >>> cf.tl.response(adata, conditions="drug")
    >>> [text.get_text() for text in cf.pl.conditions(adata).texts]
    ['no change', 'A', 'B']
    """
    table = read_response(adata, key)
    if f"{key}_states" not in adata.uns:
        raise KeyError(f"No `adata.uns[{key + '_states'!r}]`. Run `cf.tl.response(adata, ...)` first.")
    change = np.asarray(adata.uns[f"{key}_states"], dtype=np.float64)
    _, values, ways = np.linalg.svd(change, full_matrices=False)
    places = np.zeros((len(change), 2))
    places[:, : len(ways[:2])] = change @ ways[:2].T
    shares = np.append(values**2 / max((values**2).sum(), np.finfo(float).tiny), [0.0, 0.0])
    ax = axes_or_new(ax, size=(6.6, 5.6))
    ax.scatter(0, 0, marker="+", s=90, color=INK, linewidths=1.4, zorder=4)
    for label, rows, colour in _coloured(table):
        told = table["told"].to_numpy(bool) & rows
        ax.scatter(places[told, 0], places[told, 1], s=34, color=colour, linewidths=0, zorder=3, label=literal(label))
        ax.scatter(*places[rows & ~told].T, **_HOLLOW, edgecolors=colour, zorder=3)
    ax.margins(0.16)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(
        xlabel=f"first direction of change ({shares[0]:.0%} of squares)",
        ylabel=f"second direction ({shares[1]:.0%})",
    )
    _legend(ax, table)
    plain(ax)
    order = np.argsort(-np.square(places).sum(axis=1), kind="stable")[:MOST_NAMES]
    x, y = np.concatenate([[[0.0, 0.0]], places[order]]).T
    names = _names(table)
    write_names(ax, x, y, ["no change", *(names[k] for k in order)], clear=places)
    return ax


def read_response(adata: "AnnData", key: str = "response") -> pd.DataFrame:
    """Return the table that `cellflow.tl.response` wrote.

    Raises
    ------
    KeyError
        When it has not run.
    """
    if key not in adata.uns:
        raise KeyError(
            f"No `adata.uns[{key!r}]`. Available: {list(adata.uns)}. Run `cf.tl.response(adata, ...)` first."
        )
    return pd.DataFrame(adata.uns[key]).reset_index(drop=True)


def _row(table: pd.DataFrame, treatment: str | None, group: str | None) -> int:
    """Return the place of a row of the table."""
    left = table
    for column, asked in (("treatment", treatment), ("group", group)):
        if asked is not None:
            found = left[left[column].astype(str) == asked]
            if not len(found):
                raise ValueError(unknown(column, asked, list(left[column].astype(str).unique())))
            left = found
    left = left[left["told"].astype(bool)] if left["told"].any() else left
    return int(left.index.to_numpy()[left["energy_distance"].to_numpy().argmax()])


def _title(row: pd.Series) -> str:
    """Return what is drawn, and how well it is predicted."""
    seen = "seen in the fit" if row.get("fitted") else "not seen in the fit"
    said = "" if row["told"] else "\nthis condition cannot be told from nothing"
    return (
        f"{name_of_row(row)}, {seen}\ncorrelation {row['correlation_flow']:.2f} (mean shift "
        f"{row['correlation_shift']:.2f}, half against half {row['ceiling']:.2f}){said}"
    )


def _line(ax: "Axes") -> None:
    """Draw the line of equal change, over what both axes have."""
    low = min(ax.get_xlim()[0], ax.get_ylim()[0])
    high = max(ax.get_xlim()[1], ax.get_ylim()[1])
    ax.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--", zorder=1)
    ax.set(xlim=(low, high), ylim=(low, high))


def _chosen(adata: "AnnData", genes: int | Sequence[str], size: np.ndarray) -> np.ndarray:
    """Return the places of the genes to name, the largest change first."""
    if isinstance(genes, int | np.integer):
        order = np.argsort(-size, kind="stable")[: max(int(genes), 0)]
        return order[size[order] >= 0]
    names = [genes] if isinstance(genes, str) else list(genes)
    places = adata.var_names.get_indexer(names)
    lacking = [name for name, place in zip(names, places, strict=True) if place < 0 or size[place] < 0]
    if lacking:
        raise KeyError(f"No gene {lacking[0]!r} among those whose change was predicted.")
    return np.asarray(places)


def _coloured(table: pd.DataFrame) -> list[tuple[str, np.ndarray, str]]:
    """Return what a colour stands for: treatments where there are several and groups too, as far as colours last."""
    treatments = list(dict.fromkeys(table["treatment"]))
    if table["group"].nunique() == 1 or not 1 < len(treatments) <= len(PALETTE):
        return [("", np.ones(len(table), dtype=bool), OBSERVED)]
    return [(name, (table["treatment"] == name).to_numpy(), PALETTE[k]) for k, name in enumerate(treatments)]


def _names(table: pd.DataFrame) -> list[str]:
    """Return the names of conditions: what tells them apart."""
    if table["group"].nunique() == 1:
        return [str(name) for name in table["treatment"]]
    if table["treatment"].nunique() == 1 or len(_coloured(table)) > 1:
        return [str(name) for name in table["group"]]
    return [name_of_row(row) for _, row in table.iterrows()]


def _legend(ax: "Axes", table: pd.DataFrame) -> None:
    several = len(_coloured(table)) > 1
    if not table["told"].all():
        colour = INK if several else OBSERVED
        ax.scatter([], [], **_HOLLOW, edgecolors=colour, label="cannot be told from nothing")
    if several or not table["told"].all():
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=3, frameon=False)
