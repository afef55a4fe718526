"""A map of conditions by what they change."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.pl.canvas import INK, OBSERVED, PALETTE, axes_or_new, literal, plain
from cellflow.pl.names import MARK, write_names
from cellflow.pl.response import read_response
from cellflow.signature import checked
from cellflow.tl.response import name_of_row

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_HOLLOW: dict[str, Any] = {"s": 30, "facecolors": "none", "linewidths": 1.2}
MOST_NAMES = 60
"""Conditions that a map names at most: those that change most."""
CROSS = 6.0
"""Half the side of the cross of no change, in points."""
MANY, FAR = 8, 5
"""From so many conditions on, one that is so many times as far out as three quarters of them squeezes the others."""


@checked
def conditions(adata: "AnnData", *, key: str = "response", ax: "Axes | None" = None) -> "Axes":
    """Draw a map of conditions: similar effects lie near each other, strong effects far from the cross.

    The two axes are the directions in which the mean of the cells changes most, over all conditions; the cross marks no
    change. Conditions that cannot be distinguished from no effect are hollow. Those farthest from no change are named
    first, as far as there is room: the others are points, and `cellflow.tl.response` has written the names of all.

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

    Notes
    -----
    Both axes have the same scale, unless a few of many conditions lie so far out along one axis that the others would
    overlap: then each axis has its own scale, and that one is linear near no change and logarithmic beyond, as its
    label says.

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
    scales = _scale(ax, places)
    ax.set(
        xlabel=f"first direction of change ({shares[0]:.0%} of squares{scales[0]})",
        ylabel=f"second direction ({shares[1]:.0%}{scales[1]})",
    )
    _legend(ax, table)
    plain(ax)
    order = np.argsort(-np.square(places).sum(axis=1), kind="stable")[:MOST_NAMES]
    x, y = np.concatenate([[[0.0, 0.0]], places[order]]).T
    names = _names(table)
    marks = np.array([CROSS, *np.full(len(order), MARK)])
    write_names(ax, x, y, ["no change", *(names[k] for k in order)], clear=places, marks=marks)
    return ax


def _scale(ax: "Axes", places: np.ndarray) -> list[str]:
    """Scale the axes so that no few conditions squeeze the others; return what to say about each."""
    from matplotlib.scale import AsinhScale
    from matplotlib.ticker import AsinhLocator, NullLocator

    far = np.abs(places)
    usual = np.quantile(far, 0.75, axis=0)
    squeezed = (far.max(axis=0) > FAR * usual) & (usual > 0) & (len(places) >= MANY)
    if not squeezed.any():
        ax.set_aspect("equal", adjustable="datalim")
    for squeezes, width, name, axis in zip(squeezed, usual, "xy", (ax.xaxis, ax.yaxis), strict=True):
        if squeezes:
            ax.set(**{f"{name}scale": AsinhScale(axis, linear_width=float(width))})
            axis.set_major_locator(AsinhLocator(float(width), numticks=7, base=0))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    return [", logarithmic far out" if squeezes else "" for squeezes in squeezed]


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
        ax.scatter([], [], **_HOLLOW, edgecolors=colour, label="indistinguishable from no effect")
    if several or not table["told"].all():
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=3, frameon=False)
