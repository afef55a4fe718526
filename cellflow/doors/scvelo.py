"""To scVelo: velocities as layers of genes, and the graph of velocities that its plots are drawn from."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.decoders import Decoder
from cellflow.cells.decoding import Decode, read_decoder, var_of
from cellflow.cells.expression import places_of
from cellflow.cells.loadings import Loadings
from cellflow.doors.handed_over import hand_over
from cellflow.estimators.conditional import Condition
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

MOST_BYTES = 2**28
"""Most bytes of a layer, which scVelo wants dense: genes that change least are left out."""
LOOKED_AT = 500
"""Cells over which it is seen how fast genes change."""
AT_ONCE = 2**21
"""Pairs of neighbours that are compared at a time."""


@checked_but("condition", "decode")
def to_scvelo(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    condition: Condition | None = None,
    decode: Decode | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    n_neighbors: int = 30,
) -> "AnnData":
    """Hand a flow to scVelo, as a new AnnData that its plots, and those of scanpy, can be called with.

    ``scv.pl.velocity_embedding_stream(found, basis="umap", color=...)`` and ``sc.pl.embedding(found, basis="umap")``
    work on the result. Neither scVelo is needed to make it, nor spliced and unspliced counts: velocities are those of
    the flow. The graph of velocities compares the velocity of each cell with the steps to its neighbours in the
    representation of the flow.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A fitted flow.
    condition
        With a flow that has conditions: what the cells are to be under, such as ``{"drug": "A", "dose": 3.0}``;
        ``None`` for each cell's own.
    decode, layer, use_raw
        How genes are decoded, as for `cellflow.tl.velocity`. If the representation has no loadings, the variables of
        the result are its dimensions.
    n_neighbors
        Number of neighbours of each cell; fewer if there are not enough cells.

    Returns
    -------
    AnnData
        The same cells, with ``obs``, ``obsm`` and colours, and

        * ``layers["velocity"]``: change of expression per unit of time; of the genes that change most if a layer of all
          would take more than 256 MiB, as the log then says,
        * ``layers["Ms"]``: the expression at the state of each cell, which scVelo takes for smoothed counts;
          ``layers["spliced"]`` as measured,
        * ``uns["velocity_graph"]``, ``uns["velocity_graph_neg"]``: cosines between velocities and the steps to
          neighbours; ``obs["velocity_self_transition"]`` and ``uns["velocity_params"]`` as of scVelo,
        * ``obsm["X_flow"]``, ``obsm["velocity_flow"]``: states and velocities in the representation, and
          ``obsp["connectivities"]`` in it.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    KeyError, ValueError
        As of `cellflow.tl.velocity`; when there are fewer than three cells.

    Source
    ------
    La Manno et al. 2018 and Bergen et al. 2020, equation 11, for the graph.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata, n_comps=5)
    >>> flow = cf.SnapshotFlow(time_key="hours", steps=20).fit(adata)
    >>> found = cf.doors.to_scvelo(adata, flow)
    >>> found.layers["velocity"].shape == found.shape, found.uns["velocity_graph"].max() <= 1
    (True, np.True_)
    """
    flow._check_fitted()
    genes = None
    if flow.rep != "X" or decode is not None:
        how: dict[str, Any] = {"decode": decode, "layer": layer, "use_raw": use_raw}
        genes = read_decoder(adata, flow.rep, genes="auto", **how, width=flow.n_features_in_)
    handed = hand_over(adata, flow, condition, n_neighbors, chain=False, dimensions=True)
    found, x, velocity = handed.adata, handed.states.x, handed.velocity
    changes, level = velocity, x
    if genes is not None:
        few = np.linspace(0, len(x) - 1, min(len(x), LOOKED_AT)).astype(int)
        genes = genes.some(_fastest(np.abs(genes.change(x[few], velocity[few])).mean(axis=0), len(x)))
        changes, level = genes.change(x, velocity), genes.decode(x)
        found = _with_genes(adata, found, genes, level)
    elif (chosen := _fastest(np.abs(velocity).mean(axis=0), len(x))).size < velocity.shape[1]:
        found, changes, level = found[:, chosen].copy(), velocity[:, chosen], x[:, chosen]
    found.layers["velocity"] = np.asarray(changes, dtype=np.float32)
    found.layers["Ms"] = np.asarray(level, dtype=np.float32)
    found.layers["spliced"] = found.X
    found.var["velocity_genes"] = True
    graph, against = velocity_graph(x, velocity, found.obsp["connectivities"])
    found.uns["velocity_graph"], found.uns["velocity_graph_neg"] = graph, against
    surest = graph.max(axis=1).toarray().ravel()
    found.obs["velocity_self_transition"] = np.clip(np.percentile(surest, 98) - surest, 0, 1)
    found.uns["velocity_params"] = {"mode": "flow", "mode_neighbors": "connectivities", "n_recurse_neighbors": 1}
    return found


def velocity_graph(x: np.ndarray, velocity: np.ndarray, near: Any) -> "tuple[csr_matrix, csr_matrix]":
    """Return the cosine of the angle between each velocity and the steps to its neighbours: those above 0, and below.

    Parameters
    ----------
    x, velocity
        States and velocities, ``(n, d)``.
    near
        Sparse ``(n, n)``: which cells are neighbours.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> x, right = np.array([[0.0], [1.0], [-1.0]]), np.ones((3, 1))
    >>> graph, against = velocity_graph(x, right, csr_matrix(1 - np.eye(3)))
    >>> graph[0].toarray(), against[0].toarray()
    (array([[0., 1., 0.]], dtype=float32), array([[ 0.,  0., -1.]], dtype=float32))
    """
    from scipy.sparse import csr_matrix

    pairs = near.tocoo()
    rows, columns = pairs.row, pairs.col
    cosine = np.zeros(len(rows), dtype=np.float32)
    length = np.linalg.norm(velocity, axis=1)
    step = max(1, AT_ONCE // x.shape[1])
    for first in range(0, len(rows), step):
        i, j = rows[first : first + step], columns[first : first + step]
        way = x[j] - x[i]
        size = np.linalg.norm(way, axis=1) * length[i]
        along = np.einsum("kd,kd->k", way, velocity[i])
        cosine[first : first + step] = np.divide(along, size, out=np.zeros_like(along), where=size > 0)
    cosine = cosine.clip(-1, 1)
    both = (csr_matrix((part, (rows, columns)), shape=near.shape) for part in (cosine.clip(min=0), cosine.clip(max=0)))
    graph, against = both
    graph.eliminate_zeros()
    against.eliminate_zeros()
    return graph, against


def _fastest(speed: np.ndarray, n: int) -> np.ndarray:
    """Return the places of the variables that change most, as many as a layer of ``n`` cells has room for, in order."""
    most = max(1, MOST_BYTES // (4 * n))
    if len(speed) > most:
        log.warning("of %d variables the %d that change most are handed over: a layer takes 256 MiB", len(speed), most)
    return np.sort(np.argsort(-speed, kind="stable")[:most])


def _with_genes(adata: "AnnData", cells: "AnnData", genes: "Loadings | Decoder", level: np.ndarray) -> "AnnData":
    """Return handed cells with genes in place of dimensions, and their measured expression where that is there."""
    from anndata import AnnData

    x: Any = level
    if adata.X is not None and genes.names.isin(adata.var_names).all():
        x = adata[:, genes.seen if isinstance(genes, Loadings) else places_of(adata.var_names, list(genes.names))].X
    found = AnnData(x.copy(), obs=cells.obs, var=var_of(adata, genes), uns=cells.uns)
    for place in ("obsm", "obsp"):
        getattr(found, place).update(getattr(cells, place))
    return found
