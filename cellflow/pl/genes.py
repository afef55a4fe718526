"""The expression of genes over time, observed and predicted."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.columns import read_weights
from cellflow.cells.expression import places_of
from cellflow.cells.snapshots import read_times
from cellflow.pl.canvas import OBSERVED, PREDICTED, figure_or_new, literal, plain
from cellflow.pl.cells import expression
from cellflow.pl.coloring import colors_for
from cellflow.pl.labels import unit_of_result
from cellflow.pl.look import Look, look_of
from cellflow.pl.marks import titled
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = Look.ncols
"""Genes beside each other where nothing else is asked for."""
COLORS = {"observed": OBSERVED, "predicted": PREDICTED}
TAKES = ("palette", "legend_loc", "layer", "use_raw", "title", "ncols")
"""What of a look is of this plot: it draws means, not cells."""


@checked
def genes(
    adata: "AnnData",
    predicted: "AnnData",
    *,
    genes: str | Sequence[str],
    time_key: str | None = None,
    left_out: Sequence[float] = (),
    figure: "Figure | None" = None,
    **look: Any,
) -> "Figure":
    """Draw the mean expression of genes over time: observed at the snapshots, and predicted in between.

    Parameters
    ----------
    adata
        The observed cells; ``X`` in the units of the PCA.
    predicted
        What `cellflow.tl.interpolate` returned for several times, with genes.
    genes
        Names of genes.
    time_key
        Column of ``obs`` with the time, in both; ``None`` for the one noted in ``predicted``.
    left_out
        Times of held-out snapshots, to be drawn hollow.
    figure
        Figure to draw on; ``None`` for a new one.
    **look
        As for `cells`: ``palette`` (of ``"observed"`` and ``"predicted"``, in this order or by name), ``layer`` or
        ``use_raw`` if the PCA is of these, ``title``, ``ncols``, and ``legend_loc="none"`` to leave out the key
        below.

    Raises
    ------
    KeyError
        When a gene or layer does not exist; the message has close matches.
    TypeError
        When ``look`` has another argument.
    ValueError
        When the prediction holds no genes, several have the same name, or a value of ``look`` is not possible.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata)
    >>> flow = cf.SnapshotFlow(time_key="hours", steps=20).fit(adata)
    >>> course = cf.tl.interpolate(adata, flow, at=[0, 12, 24, 36])
    >>> figure = cf.pl.genes(adata, course, genes=["MYOG", "CDK1"])
    >>> [ax.get_title() for ax in figure.axes]
    ['MYOG', 'CDK1']
    """
    how = look_of("pl.genes", look, takes=TAKES)
    colors = colors_for(how, COLORS)
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names:
        raise ValueError("Expected the names of one or more genes; found none.")
    if predicted.X is None:
        raise ValueError("`predicted` holds no genes. Make it with `cf.tl.interpolate(..., genes=True)`.")
    for name in names:
        _check(adata, name, "`adata.var_names`")
        _check(predicted, name, "the genes of the PCA, `predicted.var_names`")
    columns = min(how.ncols, len(names))
    rows = -(-len(names) // columns)
    figure = figure_or_new(figure, size=(1.2 + 2.6 * columns, 0.6 + 2.5 * rows))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    about = predicted.uns.get("interpolation", {})
    unit, time_key = unit_of_result(adata, about, time_key), time_key or str(about.get("time_key", "time"))
    weights = read_weights(adata, about["weight_key"]) if "weight_key" in about else np.ones(adata.n_obs)
    for number, (ax, name) in enumerate(zip(panels, names, strict=False)):
        _draw(ax, adata, predicted, name, time_key, left_out, weights, how, colors)
        asked = how.title_of(number, None) is not None
        ax.set(title=titled(how, number, None) if asked else literal(name), xlabel=literal(unit))
        ax.tick_params(labelbottom=True)  # shared axes hide them in upper rows, also where nothing is below
    for ax in panels[len(names) :]:
        ax.remove()
    for ax in panels[: len(names) : columns]:
        ax.set_ylabel("expression")
    if how.legend_loc in (None, "none"):
        return figure
    handles = {
        label: mark for ax in panels[: len(names)] for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    beside = 3 if columns > 2 else 1  # in one row only where there is room for it
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=beside, frameon=False)
    return figure


def _check(adata: "AnnData", name: str, where: str) -> None:
    if name not in adata.var_names:
        close = get_close_matches(name, adata.var_names, n=5) or get_close_matches(name.upper(), adata.var_names, n=5)
        hint = f"Close matches: {close}." if close else "Nothing there has a similar name."
        raise KeyError(f"No gene {name!r} in {where}. {hint}")
    places_of(adata.var_names, [name], where=where.strip("`"))  # refuses names that several genes have


def _draw(
    ax: "Axes",
    adata: "AnnData",
    predicted: "AnnData",
    name: str,
    time_key: str,
    left_out: Sequence[float],
    weights: np.ndarray,
    look: Look,
    colors: dict[str, str],
) -> None:
    course, observed = _course(predicted, name, time_key), colors["observed"]
    ax.plot(*course, color=colors["predicted"], linewidth=1.8, label="predicted mean", zorder=2)
    time, values = read_times(adata, time_key), expression(adata, name, layer=look.layer, use_raw=look.use_raw)
    for moment in np.unique(time):
        cells, weight = values[time == moment], weights[time == moment]
        low, high = _quartiles(cells, weight)
        unseen = moment in left_out
        ax.vlines(moment, low, high, color=observed, linewidth=4, alpha=0.25, zorder=1)
        ax.plot(
            moment, np.average(cells, weights=weight), "o",
            color=observed, markerfacecolor="white" if unseen else observed, zorder=3,
            label="observed mean, held out" if unseen else "observed mean (bar: middle half of the cells)",
        )  # fmt: skip
    ax.margins(x=0.08)
    plain(ax)


def _quartiles(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the quartiles of weighted values: where a quarter of the weight lies below, and above."""
    if weight.min() == weight.max():
        low, high = np.quantile(values, [0.25, 0.75])
    else:
        order = np.argsort(values)
        middles = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
        low, high = np.interp([0.25, 0.75], middles, values[order])
    return float(low), float(high)


def _course(predicted: "AnnData", name: str, time_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted times, and the weighted mean of a gene at each."""
    time = read_times(predicted, time_key)
    weight = read_weights(predicted, str(predicted.uns.get("interpolation", {}).get("weight", "weight")))
    values = expression(predicted, name)
    times = np.unique(time)
    if bare := [t for t in times if not weight[time == t].sum() > 0]:
        raise ValueError(f"Expected cells with weight at each predicted time; those at {bare[0]:g} have none.")
    return times, np.array([np.average(values[time == t], weights=weight[time == t]) for t in times])
