"""Expression along the courses that lead to each fate, on continuous time."""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.clock import TimeLike, distinct_times
from cellflow.cells.decoders import Decoder
from cellflow.cells.snapshots import time_labels_of
from cellflow.cells.states import States
from cellflow.estimators.conditional import Condition
from cellflow.estimators.snapshot_verbs import check_weighs
from cellflow.integrate import Fixed, Jumps, Noisy, Solver, resolve
from cellflow.seeds import numpy_generator
from cellflow.signature import checked_but
from cellflow.tl.cells import about, check_key, target
from cellflow.tl.courses import Courses
from cellflow.tl.fate_table import FateTable, read_fate
from cellflow.tl.files import on_files
from cellflow.tl.genes import Decode, Genes, Loadings, read_decoder
from cellflow.tl.interpolate import chain_under
from cellflow.tl.intervals import LEVEL, check_confidence, t_half_width
from cellflow.tl.trend_bands import bands_of, resampled
from cellflow.tl.trend_fates import labels_of, shares_of
from cellflow.tl.trend_points import measured_means
from cellflow.training.run import progress_bar

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

STEPS = 20
MOST = 2**25
"""Numbers of a result, 256 MiB."""


@on_files
@checked_but("genes", "decode", "at", "solver", "condition")
def trends(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    genes: Genes,
    by: str | None = "fate",
    fates: str | Sequence[str] | None = None,
    at: TimeLike | Iterable[TimeLike] | None = None,
    n_times: int = 50,
    condition: Condition | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    decode: Decode | None = None,
    n_samples: int = 10,
    n_bootstrap: int = 200,
    max_cells: int = 2000,
    solver: Solver | str | int | None = None,
    confidence: float = LEVEL,
    seed: int = 0,
    progress: bool | None = None,
    key_added: str = "trends",
    copy: bool = False,
) -> "AnnData | None":
    """Follow the mean expression of genes along the courses that lead to each fate.

    The cells of each snapshot are carried to the next and the previous one, and weighted by their fates; between two
    snapshots both sides count, by how near they are. At the time of a snapshot a trend is thus the mean of its own
    cells, decoded, each weighted by its fate. If growth was learned, courses are weighted by their descendants.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A fitted flow.
    genes
        Names of genes; ``True`` for all that can be decoded.
    by
        The name under which `fate` wrote, for one trend toward each fate; cells at the time of the fates belong to
        their own group. ``None`` for one trend of all cells.
    fates
        Names of some of the fates; ``None`` for all.
    at
        Times in the user's units, within the fitted range; ``None`` for equally spaced times and those of snapshots.
    n_times
        Number of equally spaced times.
    condition
        With a flow that has conditions: the one to follow, as for `interpolate`; ``None`` for each cell's own.
    layer, use_raw, decode
        As for `interpolate`.
    n_samples
        Courses of each cell, if there is noise.
    n_bootstrap
        Resamples of the cells of each snapshot, for the bands.
    max_cells
        Maximum number of cells of each snapshot to carry, drawn at random.
    solver
        As for `SnapshotFlow.simulate`, or `SnapshotFlow.transport`. ``None`` for ``Noisy(20)`` with a score, and
        ``Fixed()`` without one.
    confidence
        Coverage of the bands.
    seed
        Seed of the draws of cells, and of the noise.
    progress
        Whether to show a progress bar; ``None`` to show it in a terminal only.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``uns[key_added]``
        ``"mean"``, ``"low"`` and ``"high"``: expression and the ends of its band ``(fates, genes, times)``, in
        the units of the decoder; ``"fates"``, ``"genes"`` and ``"time"``, what these axes are; ``"cells"``, the
        effective number of cells behind each mean ``(fates, times)``.
        ``"measured"`` ``(fates, genes, snapshots)``, ``"measured_time"`` and ``"measured_cells"``: the mean of the
        measured cells of each group, NaN where there are none; ``"measured_as"``: whether that is their
        ``"expression"``, or their states ``"decoded"``.
        ``"by"``, ``"groupby"``, ``"confidence"``, ``"n_bootstrap"``, ``"kind"`` (``"simulation"`` or ``"transport"``),
        ``"rep"``, ``"time_key"``, ``"unit"`` of time; and ``"variance_carried"``, the share of the variance of each
        gene that the decoder carries ``(genes,)``, NaN where it is not known.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    KeyError
        When there are no fates under this name, or a gene, fate or layer is unknown; the message names close matches.
    TypeError
        For a solver with noise, when the flow was fitted without a score.
    ValueError
        When times are outside the fitted range, or no cell has a fate.

    Notes
    -----
    Bands show how much a mean depends on the measured cells and on the noise of courses; with an ensemble also on its
    members. They show no bias: neither that of the flow, nor what the components miss of a gene, for which see
    ``"variance_carried"``. Fates are taken as written.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata)
    >>> flow = cf.SnapshotFlow(time_key="hours", steps=20).fit(adata)
    >>> cf.tl.fate(adata, flow, groupby="state_monocle")
    >>> cf.tl.trends(adata, flow, genes=["MYOG", "CDK1"], n_times=9, n_bootstrap=20)
    >>> adata.uns["trends"]["mean"].shape == (len(adata.uns["trends"]["fates"]), 2, 11)
    True
    """
    check_key(key_added)
    _check_numbers(n_times, n_samples, n_bootstrap, max_cells, confidence)
    cells, fitted = flow.read(adata), list(flow.clock_.times)
    default: Solver = Noisy(STEPS) if flow.stochastic else Fixed()
    chosen: Solver = default if solver is None else resolve(solver, default=default, verb="tl.trends")
    if isinstance(chosen, Jumps):
        check_weighs(flow)
    table = None if by is None else read_fate(adata, by)
    groups, shares = shares_of(adata, table, fates)
    decoder = _decoder(adata, flow, genes, {"decode": decode, "layer": layer, "use_raw": use_raw})
    times = _grid(adata, flow, at, n_times)
    if len(groups) * len(decoder.names) * len(times) > MOST:
        raise ValueError(
            f"{len(groups)} fates x {len(decoder.names):,} genes x {len(times)} times take more than 256 MiB. Name "
            "fewer genes, or take fewer times."
        )
    if condition is not None:
        cells, fitted = chain_under(adata, flow, cells, condition)
    rng = numpy_generator(seed)
    courses = _courses(cells, fitted, shares, times, table, max_cells, rng)
    counts = resampled([len(one) for one in courses.snapshots], n_bootstrap, rng)
    turns = n_samples if isinstance(chosen, Noisy) else 1
    flows = [flow, *flow.members]
    with progress_bar(shown=progress, start=0, steps=turns * len(flows), what="trends") as bar:
        mean, low, high, effective = bands_of(courses, flow, chosen, decoder, counts, turns, seed, confidence, bar)
        if flow.members:
            lone = [part[:1] for part in counts]
            others = [
                bands_of(courses, one, chosen, decoder, lone, turns, seed, confidence, bar)[0] for one in flow.members
            ]
            half = t_half_width(np.stack(others), confidence=confidence)
            low, high = mean - np.hypot(half, mean - low), mean + np.hypot(half, high - mean)
    if np.isnan(mean).any():
        _say_unknown(groups, mean, times)
    written = target(adata, copy=copy)
    order = _order(genes, decoder)
    points = measured_means(adata, flow, decoder, groups, labels_of(adata, table), {"layer": layer, "use_raw": use_raw})
    written.uns[key_added] = {
        "mean": mean[:, order],
        "low": low[:, order],
        "high": high[:, order],
        "fates": np.array(groups, dtype=object),
        "genes": np.array([str(name) for name in decoder.names[order]], dtype=object),
        "time": times,
        "cells": effective,
        **points,
        "measured": points["measured"][:, order],
        "by": by or "",
        "groupby": "" if table is None else table.groupby,
        "confidence": confidence,
        "n_bootstrap": n_bootstrap,
        "kind": "simulation" if isinstance(chosen, Noisy) else "transport",
        "variance_carried": decoder.carried_of[order],
        **about(adata, flow),
    }
    return written if copy else None


def _check_numbers(n_times: int, n_samples: int, n_bootstrap: int, max_cells: int, confidence: float) -> None:
    check_confidence(confidence)
    least = {"n_times": (n_times, 2), "n_samples": (n_samples, 1), "n_bootstrap": (n_bootstrap, 2)}
    for name, (value, smallest) in (least | {"max_cells": (max_cells, 2)}).items():
        if value < smallest:
            raise ValueError(f"Expected {name} >= {smallest}; found {value}.")


def _decoder(adata: "AnnData", flow: "SnapshotFlow", genes: Genes, how: dict[str, Any]) -> Loadings | Decoder:
    """Return the decoder of the requested genes."""
    if genes is False or (isinstance(genes, str) and genes == "auto"):
        raise ValueError(f"Expected the names of genes in `genes`, or True for all; found {genes!r}.")
    if flow.rep == "X" and how["decode"] is None:
        how = how | {"decode": Decoder(np.asarray, [str(name) for name in adata.var_names], linear=True)}
    found = read_decoder(adata, flow.rep, genes=genes, width=flow.n_features_in_, **how)
    if found is None:
        raise ValueError("No genes can be decoded. Give a decoder, such as `decode=cf.cells.fit_decoder(adata)`.")
    return found


def _order(genes: Genes, decoder: Loadings | Decoder) -> np.ndarray:
    """Return the positions of the requested genes among the decoded ones, in the requested order."""
    if isinstance(genes, bool | np.bool_):
        return np.arange(len(decoder.names))
    asked = [genes] if isinstance(genes, str) else list(dict.fromkeys(map(str, genes)))
    return np.asarray(decoder.names.get_indexer(pd.Index(asked)))


def _grid(adata: "AnnData", flow: "SnapshotFlow", at: TimeLike | Iterable[TimeLike] | None, n_times: int) -> np.ndarray:
    """Return the times of trends, ascending."""
    known = flow.clock_.times
    if at is None:
        return np.union1d(np.linspace(known[0], known[-1], n_times), known)
    times = np.sort(distinct_times(at, what="`at`", like=time_labels_of(adata, flow.time_key)))
    for time in times:
        flow.clock_.check(float(time), extrapolate=False)
    return times


def _courses(
    cells: States,
    fitted: Sequence[float],
    shares: np.ndarray,
    times: np.ndarray,
    table: FateTable | None,
    most: int,
    rng: np.random.Generator,
) -> Courses:
    """Return the cells of each fitted time that have a fate, up to a maximum number."""
    if len(fitted) < 2:
        raise ValueError(f"Expected cells at two fitted times or more; found some at {list(fitted)}.")
    known = cells.take(np.isfinite(shares[cells.rows]).all(axis=1))
    snapshots = [known.at(time) for time in fitted]
    snapshots = [one.take(np.sort(rng.permutation(len(one))[:most])) for one in snapshots]
    if not any(map(len, snapshots)):
        raise ValueError("No cell at a fitted time has a fate. Run `cf.tl.fate` for these cells first.")
    inside = times[(times >= fitted[0]) & (times <= fitted[-1])]
    if len(inside) < len(times):
        raise ValueError(f"There are cells from time {fitted[0]:g} to {fitted[-1]:g} only. Choose `at` within these.")
    settled = None if table is None else table.at
    return Courses(snapshots, [shares[one.rows] for one in snapshots], fitted, times, settled)


def _say_unknown(groups: Sequence[str], mean: np.ndarray, times: np.ndarray) -> None:
    """Log a warning for fates that no cell has at some times."""
    for group, values in zip(groups, mean, strict=True):
        lacking = np.isnan(values).any(axis=0)
        if lacking.any():
            log.warning(
                "no cell leads to %r at %d of %d times: its trend is unknown there", group, lacking.sum(), len(times)
            )
