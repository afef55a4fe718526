"""What a change of a gene would do to the fates that a flow predicts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.clock import TimeLike, one_time
from cellflow.cells.columns import read_kinds, read_labels
from cellflow.cells.snapshots import time_labels_of
from cellflow.cells.states import Cells, States, positions
from cellflow.estimators.conditional import Condition
from cellflow.estimators.snapshot_verbs import check_weighs
from cellflow.integrate import Fixed, Jumps, Noisy, Solver, resolve
from cellflow.seeds import numpy_generator
from cellflow.signature import checked_but
from cellflow.tl.cells import about, asked_under, check_key, target
from cellflow.tl.descendants import neighbors_of, snapshot_at
from cellflow.tl.fate import STEPS
from cellflow.tl.fate_ends import Votes
from cellflow.tl.fate_table import read_fate
from cellflow.tl.files import on_files
from cellflow.tl.gene_changes import half_width, say, sizes, table_of_changes, units
from cellflow.tl.gene_shifts import read_gene_shifts
from cellflow.tl.intervals import check_confidence, t_half_width
from cellflow.tl.shifted_fates import chunks, of_shifts
from cellflow.training.run import progress_bar

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


@on_files
@checked_but("genes", "cells", "condition", "solver")
def perturb_genes(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    genes: Mapping[str, str | float],
    groupby: str | None = None,
    at: TimeLike | None = None,
    cells: Cells | None = None,
    condition: Condition | None = None,
    quantiles: tuple[float, float] = (0.05, 0.95),
    layer: str | None = None,
    use_raw: bool = False,
    n_random: int = 50,
    n_samples: int = 20,
    max_cells: int = 500,
    lineage_key: str | None = None,
    confidence: float = 0.9,
    solver: Solver | str | int | None = None,
    n_neighbors: int | None = None,
    key: str = "fate",
    seed: int = 0,
    progress: bool | None = None,
    key_added: str = "perturb_genes",
    copy: bool = False,
) -> "AnnData | None":
    """Set genes to low or high expression, carry cells with and without the change, and compare their fates.

    The change of expression is projected through the PCA loadings: a cell is shifted in the direction in which the
    genes covary over all cells, and carried by the flow from there, with the same noise. **This is not regulation.**
    The flow knows where cells in a state went, not why; a shift along the loadings stands for cells that differ in the
    gene and in everything that correlates with it, causal or not, and a marker shifts fates as a regulator does. It
    shows which fates are near in the direction of a gene: a ranking of candidates for experiments. A real knock-out
    leads to states that no fitted cell was in, about which a flow knows nothing.

    One gene moves a state only a little. So the same change is made to random genes with loadings of similar length: an
    effect no larger than theirs is not specific to the gene.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on, PCA loadings, and the expression they
        were computed from.
    flow
        A fitted flow, on principal components.
    genes
        The value of each gene in all cells, changed together: ``"down"`` or ``"up"`` for a quantile over all cells, or
        a number in units of the expression.
    groupby, at
        Column of ``obs`` with the groups, and the time of a snapshot; ``None`` for those of the fates that
        `cellflow.tl.fate` wrote under ``key``, or the last fitted snapshot.
    cells
        The cells: a mask, names, or rows of ``obs``; ``None`` for those of the first fitted snapshot.
    condition
        With a flow that has conditions: the condition of the cells, such as ``{"drug": "A", "dose": 3.0}``, with and
        without the change of genes; ``None`` for each cell's own. They land as in `push`.
    quantiles
        The quantiles for ``"down"`` and ``"up"``.
    layer, use_raw
        Where the expression is from which the PCA was computed: a layer, or ``adata.raw``; by default ``adata.X``.
    n_random
        Number of random genes, or sets of genes, for comparison; 0 for none.
    n_samples
        Simulations of each cell, if there is noise.
    max_cells
        Maximum number of cells; more are subsampled.
    lineage_key
        Column of ``obs`` with clones, donors or other units that were sampled; ``None`` for cells. Intervals are over
        these.
    confidence
        Coverage of the intervals, over cells and over the members of an ensemble.
    solver
        As for `cellflow.tl.fate`.
    n_neighbors
        Number of measured cells with which an end point is compared; ``None`` for the default of `cellflow.tl.fate`.
    key
        Name under which `cellflow.tl.fate` wrote.
    seed
        Seed of the noise, the cells and the random genes.
    progress
        Whether to show a progress bar; ``None`` to show it in a terminal only.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``uns[key_added]``
        Table of the groups, the largest change first: ``group``, mean share ``before`` and ``after``, ``change``, its
        interval ``low`` and ``high``, ``rank`` of its size among those of the random genes (1: larger than all), and
        ``p_random``, the share of these that change as much, the gene itself included.
    ``uns[f"{key_added}_about"]``
        ``"genes"``, ``"amounts"``, ``"at"``, ``"groupby"``, ``"n_cells"``, ``"n_random"``, ``"shift"`` (root mean
        square, in units of the representation), ``"relative_shift"`` (in units of the median distance from a cell to
        its nearest neighbour), ``"confidence"``, ``"rep"``, ``"time_key"`` and ``"unit"``.
    ``obsm[key_added]``
        The shift of each cell ``(n, d)``; missing for others.
    ``obsm[f"{key_added}_change"]``
        The change of its shares ``(n, groups)``, in alphabetical order of the groups; missing for others.

    Raises
    ------
    KeyError
        When a gene, column or layer is unknown, or the components do not include the gene.
    ValueError
        When several genes have that name, loadings do not fit the expression, or there are no cells before ``at``.

    Source
    ------
    Phipson and Smyth 2010 for p values of random draws, which count the observed one.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> sc.pp.pca(adata, n_comps=2)
    >>> flow = cf.SnapshotFlow(steps=20).fit(adata)
    >>> cf.tl.perturb_genes(adata, flow, genes={"gene0": "up"}, groupby="fate", n_random=9)
    >>> adata.uns["perturb_genes"].columns.tolist()
    ['group', 'before', 'after', 'change', 'low', 'high', 'rank', 'p_random']
    """
    check_key(key_added)
    check_confidence(confidence)
    if min(n_random, n_samples - 1, max_cells - 2) < 0:
        found = n_random, n_samples, max_cells
        raise ValueError(f"Expected n_random >= 0, n_samples >= 1 and max_cells >= 2; found {found}.")
    states = flow.read(adata, weights=flow.weight_key in adata.obs)
    groupby, moment = _groups_and_time(adata, flow, groupby, at, key)
    groups = read_kinds(adata, groupby, setting="groupby")
    rng = numpy_generator(seed)
    chosen = asked_under(adata, flow, _chosen(adata, flow, states, cells, moment, max_cells, rng), condition)
    shifts = read_gene_shifts(adata, flow, chosen.rows, genes, quantiles, layer=layer, use_raw=use_raw)
    clones = None if lineage_key is None else read_labels(adata, lineage_key, setting="lineage_key")
    there = snapshot_at(flow, states, moment, of=chosen)
    votes = Votes(there.x, groups.iloc[there.rows], neighbors_of(n_neighbors, there, moment))
    law = _solver(flow, solver)
    turns = n_samples if isinstance(law, Noisy) else 1
    own, others = shifts.own(), shifts.random(n_random, rng)

    def fates(shift: np.ndarray | float, by: "SnapshotFlow" = flow) -> np.ndarray:
        return np.asarray(of_shifts(by, chosen, [shift], moment, votes, law, turns, seed)[0])

    weight = chosen.weighed(np.full(len(chosen), 1 / len(chosen)))
    before = fates(0.0)
    change = fates(own) - before
    with progress_bar(shown=progress, start=0, steps=max(len(others), 1), what="random genes") as bar:
        random = np.zeros((len(others), len(votes.groups)))
        for some in chunks(len(others), len(chosen)):
            moved = of_shifts(flow, chosen, others[some], moment, votes, law, turns, seed)
            random[some] = np.einsum("n,mng->mg", weight, moved - before)
            bar(min(some.stop, len(others)), None)
    members = [weight @ (fates(own, one) - fates(0.0, one)) for one in flow.members]
    half = half_width(change, weight, units(clones, chosen), confidence)
    if members:
        half = np.hypot(half, t_half_width(np.array(members), confidence=confidence))
    table = table_of_changes(votes.groups, weight @ before, weight @ change, half, random)
    length, relative = sizes(own, chosen)
    say(list(genes), table, relative, len(others))
    written = target(adata, copy=copy)
    written.uns[key_added] = table
    written.uns[f"{key_added}_about"] = {
        "genes": np.array(list(genes), dtype=object),
        "amounts": np.array([str(amount) for amount in genes.values()], dtype=object),
        "at": moment,
        "groupby": groupby,
        "n_cells": len(chosen),
        "n_random": len(others),
        "shift": length,
        "relative_shift": relative,
        "confidence": confidence,
        **about(adata, flow),
    }
    for name, values in ((key_added, own), (f"{key_added}_change", change)):
        whole = np.full((adata.n_obs, values.shape[1]), np.nan, dtype=np.float32)
        whole[chosen.rows] = values
        written.obsm[name] = whole
    return written if copy else None


def _groups_and_time(
    adata: "AnnData", flow: "SnapshotFlow", groupby: str | None, at: TimeLike | None, key: str
) -> tuple[str, float]:
    """Return what was requested, or what the fates were predicted with."""
    asked = None if at is None else one_time(at, what="`at`", like=time_labels_of(adata, flow.time_key))
    if groupby is not None:
        return groupby, flow.clock_.times[-1] if asked is None else asked
    fates = read_fate(adata, key)
    if not fates.groupby:
        raise ValueError("These fates do not say which column of `obs` has their groups. Name it in `groupby`.")
    return fates.groupby, fates.at if asked is None else asked


def _chosen(
    adata: "AnnData",
    flow: "SnapshotFlow",
    states: States,
    cells: Cells | None,
    moment: float,
    most: int,
    rng: np.random.Generator,
) -> States:
    """Return the cells, at most as many as requested, all before a time."""
    first = flow.clock_.times[0]
    chosen = states.at(first) if cells is None else states.take(positions(adata, cells))
    late = int((chosen.time >= moment).sum())
    if late or len(chosen) < 2:
        raise ValueError(
            f"Expected two cells or more, all before time {moment:g}; found {len(chosen)}, of which {late} are not. "
            "Name others in `cells`, or choose a later `at`."
        )
    if len(chosen) <= most:
        return chosen
    return chosen.take(np.sort(rng.permutation(len(chosen))[:most]))


def _solver(flow: "SnapshotFlow", solver: Solver | str | int | None) -> Solver:
    default: Solver = Noisy(STEPS) if flow.stochastic else Fixed()
    chosen: Solver = default if solver is None else resolve(solver, default=default, verb="tl.perturb_genes")
    if isinstance(chosen, Jumps):
        check_weighs(flow)
    return chosen
