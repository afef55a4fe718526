"""The two-dimensional basis of a plot, and the projection of cells, states and velocities onto it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.snapshots import read_rep
from cellflow.nearest import Nearest
from cellflow.pl.canvas import literal

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

NEIGHBORS = 30
"""Nearest cells from which a state or a velocity is projected onto an embedding."""
CHUNK = 2000
"""Cells whose neighbours are held at once: 2000 x 30 x 100 numbers are 24 MB."""
SIGMA = 0.1
"""Sharpness of the cosine kernel: a neighbour straight ahead weighs e^10 times one at a right angle."""


@dataclass(frozen=True)
class Basis:
    """A two-dimensional basis, and the projection of states of a representation onto it.

    Parameters
    ----------
    xy
        Coordinates of the cells, ``(n, 2)``.
    labels
        Labels of the two axes.
    x
        The representation of the cells, ``(n, d)``.
    columns
        The columns of the representation to show; ``None`` for another embedding, such as UMAP. A single column is
        drawn over time.
    """

    xy: np.ndarray
    labels: tuple[str, str]
    x: np.ndarray
    columns: tuple[int, ...] | None

    @property
    def over_time(self) -> bool:
        """Whether the horizontal axis is time."""
        return self.columns is not None and len(self.columns) == 1

    def states(self, x: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Return the coordinates ``(m, 2)`` of states ``(m, d)`` at times ``(m,)``.

        In an embedding: the mean of the nearest cells, weighted by distance.
        """
        if self.over_time:
            return np.column_stack([time, x[:, self.columns[0]]])  # type: ignore[index]
        if self.columns is not None:
            return x[:, list(self.columns)]
        return _regress(self.x, self.xy, x)

    def velocities(self, velocity: np.ndarray) -> np.ndarray:
        """Return the velocities ``(n, d)`` of the cells in the basis, ``(n, 2)``.

        Columns of the velocity if the basis shows columns of the representation; in an embedding, the direction towards
        the neighbours ahead of the cell, with a length without unit.
        """
        if self.over_time:
            return np.column_stack([np.ones(len(velocity)), velocity[:, self.columns[0]]])  # type: ignore[index]
        if self.columns is not None:
            return velocity[:, list(self.columns)]
        if velocity.shape != self.x.shape:
            raise ValueError(
                f"Expected a velocity for each of {self.x.shape[1]} columns of the representation; found "
                f"{velocity.shape[1]}. Give the representation of the velocities as `rep`."
            )
        return _ahead(self.x, self.xy, velocity)

    def dress(self, ax: "Axes") -> None:
        """Label the axes; both have one scale, unless one is time."""
        ax.set(xlabel=literal(self.labels[0]), ylabel=literal(self.labels[1]))
        if not self.over_time:
            ax.set_aspect("equal", adjustable="datalim")
            ax.set(xticks=[], yticks=[])
        ax.spines[["top", "right"]].set_visible(False)


def read_basis(
    adata: "AnnData",
    basis: str | None,
    *,
    rep: str,
    components: tuple[int, int] = (0, 1),
    time: np.ndarray | None = None,
    unit: str = "time",
    n_pcs: int | None = None,
) -> Basis:
    """Return the basis with this name.

    Parameters
    ----------
    adata
        The cells.
    basis
        ``"pca"`` or ``"X_pca"`` for ``obsm["X_pca"]``; ``"X"`` for the expression itself; ``None`` for
        ``obsm["X_umap"]`` if it exists, else for ``rep``.
    rep
        The representation of states and velocities.
    components
        Which two columns of the basis to show.
    time
        The time of every cell, for a representation of one column, which is drawn over time.
    unit
        Unit of time.
    n_pcs
        How many of the first columns of the representation states and velocities have; ``None`` for all.

    Raises
    ------
    KeyError
        When the basis does not exist; the message lists those available.
    ValueError
        When the basis does not have these components.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> read_basis(adata, "latent", rep="X_latent").labels
    ('latent 1', 'latent 2')
    """
    key = key_of(adata, basis, rep=rep)
    same, x = key == rep, read_rep(adata, rep, n_pcs=n_pcs)
    values = x if same else read_rep(adata, key)
    if same and values.shape[1] == 1 and time is not None:
        return Basis(np.column_stack([time, values[:, 0]]), (unit, _axis(adata, key, 0)), x, (0,))
    if len(set(components)) != 2 or not all(0 <= c < values.shape[1] for c in components):
        raise ValueError(
            f"Expected `components` to be two different columns of {key!r}, which has {values.shape[1]}; found "
            f"{components}."
        )
    first, second = components
    labels = _axis(adata, key, first), _axis(adata, key, second)
    return Basis(values[:, [first, second]], labels, x, (first, second) if same else None)


def key_of(adata: "AnnData", basis: str | None, *, rep: str) -> str:
    """Return the key of ``obsm`` of a basis, see `read_basis`, or ``"X"``.

    Raises
    ------
    KeyError
        When it does not exist; the message lists those available.
    """
    if basis is None:
        basis = "X_umap" if "X_umap" in adata.obsm else rep
    found = [key for key in (f"X_{basis}", basis) if key in adata.obsm]
    if found:
        return found[0]
    if basis == "X":
        return basis
    missing = basis if basis.startswith("X_") else f"X_{basis}"
    tool = {"X_pca": "sc.pp.pca"}.get(missing, "sc.tl.umap")
    raise KeyError(
        f"No `adata.obsm[{missing!r}]`. Available: {[*adata.obsm]}. Compute one first, for example with `{tool}`."
    )


def _axis(adata: "AnnData", key: str, column: int) -> str:
    if key == "X":
        return str(adata.var_names[column])
    name = key.removeprefix("X_")
    return f"{ {'pca': 'PC', 'umap': 'UMAP', 'tsne': 't-SNE'}.get(name, name) } {column + 1}".strip()


def _regress(x: np.ndarray, xy: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Average the places of the nearest cells with a Gaussian kernel as wide as half the reach of the neighbours.

    A kernel that is finite at distance zero keeps curves smooth where they pass close to a cell.
    """
    k = min(NEIGHBORS, len(x))
    distance, near = Nearest(x, k).search(states)
    width = np.maximum(distance[:, -1:] / 2, np.finfo(np.float32).tiny)
    weight = np.exp(-0.5 * (distance / width) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("mk,mkc->mc", weight, xy[near]))


def _ahead(x: np.ndarray, xy: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Turn velocities into directions of an embedding: neighbours that lie ahead of a cell pull it towards them.

    The weights are exp(cos(v_i, x_j - x_i) / sigma) over the neighbours j of cell i, less the uniform ones, so that
    a cell at rest stays.

    Source
    ------
    La Manno et al. 2018 (Nature 560, 494-498) and Bergen et al. 2020 (Nature Biotechnology 38, 1408-1414),
    projection of velocities onto an embedding.
    """
    k = min(NEIGHBORS + 1, len(x))
    near = Nearest(x, k).rows(x)[:, 1:]
    found = np.empty((len(x), 2))
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        cosine = np.einsum("nkd,nd->nk", _unit(x[near[rows]] - x[rows, None]), _unit(velocity[rows]))
        weight = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / SIGMA)
        weight /= weight.sum(axis=1, keepdims=True)
        steps = _unit(xy[near[rows]] - xy[rows, None])
        found[rows] = np.einsum("nk,nkc->nc", weight - 1 / near.shape[1], steps)
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to length one; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
