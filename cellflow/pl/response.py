"""Predicted against measured change of genes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.expression import places_of
from cellflow.errors import unknown
from cellflow.pl.canvas import GREY, INK, OBSERVED, PREDICTED, axes_or_new, literal, plain
from cellflow.pl.names import write_names
from cellflow.signature import checked
from cellflow.tl.response import PREDICTED as PREDICTED_KEY
from cellflow.tl.response import name_of_row

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


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

    Genes on the line are predicted correctly. Those farthest from no change are named first, and only if a name covers
    no line, no point and no other name.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.response` wrote for a flow.
    treatment, group
        Names, as in the table that was written, a combination in any order; ``None`` for the remaining one with the
        largest change that can be distinguished from no effect.
    genes
        Maximum number of genes to name, or the names of those to name; these are coloured even if there is no room for
        their names.
    key
        Name under which `cellflow.tl.response` wrote.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError, ValueError
        When nothing was written, no genes were predicted, or the treatment, group or gene does not exist.

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
    separator = adata.uns.get(f"{key}_about", {}).get("separator", "+")
    place = _row(table, treatment, group, separator)
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
    title = _title(row, nothing=not np.any(predicted[known]))
    ax.set(xlabel="measured change", ylabel="predicted change", title=literal(title))
    ax.title.set_fontsize(10)
    plain(ax)
    chosen = _chosen(adata, genes, np.where(known, np.maximum(np.abs(measured), np.abs(predicted)), -1.0))
    names = [str(adata.var_names[k]) for k in chosen]
    points = np.column_stack([measured, predicted])
    written = write_names(ax, points[chosen, 0], points[chosen, 1], names, clear=points[known], lines=_lines(ax))
    if isinstance(genes, int | np.integer):  # a colour without a name says nothing, unless the gene was asked for
        chosen = chosen[np.isin(names, written)]
    ax.scatter(measured[chosen], predicted[chosen], s=16, color=PREDICTED, linewidths=0, zorder=3)
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


def _row(table: pd.DataFrame, treatment: str | None, group: str | None, separator: str) -> int:
    """Return the place of a row of the table."""
    left = table
    treatment = _as_written(treatment, list(table["treatment"].astype(str)), separator)
    for column, asked in (("treatment", treatment), ("group", group)):
        if asked is not None:
            found = left[left[column].astype(str) == asked]
            if not len(found):
                raise ValueError(unknown(column, asked, list(left[column].astype(str).unique())))
            left = found
    left = left[left["told"].astype(bool)] if left["told"].any() else left
    return int(left.index.to_numpy()[left["energy_distance"].to_numpy().argmax()])


def _as_written(treatment: str | None, known: list[str], separator: str) -> str | None:
    """Return a treatment as a table has it: the names of a combination have no order."""
    if treatment is None or treatment in known or not separator:
        return treatment

    def parts(label: str) -> tuple[list[str], str]:
        names, _, rest = label.partition(", ")  # what follows is its dose, for instance
        return sorted(name.strip() for name in names.split(separator)), rest

    return next((label for label in known if parts(label) == parts(treatment)), treatment)


def _title(row: pd.Series, *, nothing: bool) -> str:
    """Return what is drawn, and how well it is predicted; ``nothing`` where no change is predicted at all."""
    seen = "seen in the fit" if row.get("fitted") else "held out of the fit"
    said = "" if row["told"] else "\nthis condition cannot be distinguished from no effect"
    others = f"mean shift {_number(row['correlation_shift'])}, half against half {_number(row['ceiling'])}"
    flow = f"correlation {_number(row['correlation_flow'])} ({others})"
    flow = f"nothing is predicted\ncorrelation of the {others}" if nothing else flow
    return f"{name_of_row(row)}, {seen}\n{flow}{said}"


def _number(correlation: float) -> str:
    return f"{correlation:.2f}" if np.isfinite(correlation) else "unknown"


def _lines(ax: "Axes") -> np.ndarray:
    """Return the lines of no change and of equal change, ``(3, 2, 2)``."""
    low, high = ax.get_xlim()
    return np.array([[[low, 0], [high, 0]], [[0, low], [0, high]], [[low, low], [high, high]]])


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
    places = places_of(adata.var_names, names)
    lacking = [name for name, place in zip(names, places, strict=True) if size[place] < 0]
    if lacking:
        raise KeyError(f"No gene {lacking[0]!r} among those whose change was predicted.")
    return places
