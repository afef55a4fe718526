"""One training: the cells that a method may see, what it is asked, and what really happened."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from benchmarks.perturbation.sets import CONTROL, Cells
from benchmarks.rows import Row

REP = "X_pca"
"""Key of ``obsm`` with the components in which methods work and distances are measured."""


@dataclass(frozen=True, eq=False)
class Space:
    """Components of genes: ``z = (x - mean) / scale @ components.T``, with components ``(d, genes)``."""

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray

    def enter(self, genes: np.ndarray) -> np.ndarray:
        """Return the components ``(n, d)`` of genes ``(n, genes)``."""
        return np.asarray((genes - self.mean) / self.scale @ self.components.T)

    def genes(self, change: np.ndarray) -> np.ndarray:
        """Return the change of genes that a change of components is."""
        return np.asarray(change @ self.components * self.scale)


@dataclass(frozen=True, eq=False)
class Ask:
    """One question: what these untreated cells become under a treatment.

    ``start`` are cells as they were measured, with ``X`` and ``obsm`` as in what is seen; ``treatment``, ``dose``,
    ``context`` and ``time`` are what is asked for, ``None`` where the set has no such column.
    """

    name: str
    start: AnnData
    treatment: str
    dose: float | None = None
    context: str | None = None
    time: float | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What is scored against: measured genes ``(n, genes)`` of the treated cells, and of the untreated ones.

    ``aligned``: row ``k`` of both is the same cell.
    """

    treated: np.ndarray
    control: np.ndarray
    aligned: bool = False


@dataclass(frozen=True, eq=False)
class Fold:
    """Held-out cells: what is seen of all others, and the questions with their answers."""

    name: str
    seen: AnnData
    asks: tuple[Ask, ...]
    truths: tuple[Truth, ...]
    space: Space


def folds_of(cells: Cells) -> Iterator[Fold]:
    """Yield the folds of a set."""
    held_out = list(_held_out(cells))
    if not held_out:
        raise ValueError(
            f"{cells.name}: nothing can be left out by {cells.split!r}: a context needs {cells.least} cells with and "
            "without treatment, a dose or a time others of the same treatment, a combination its parts alone."
        )
    for name, held in held_out:
        adata, space = _prepared(cells, held)
        asks, truths = zip(*_asked(cells, adata, held), strict=True)
        yield Fold(name, adata[~held].copy(), asks, truths, space)


def control_rows(obs: pd.DataFrame, context: str | None) -> np.ndarray:
    """Return where the untreated cells are that a treatment began with: of the context, at the first time."""
    found = (obs["treatment"] == CONTROL).to_numpy()
    if context is not None:
        found &= (obs["context"] == context).to_numpy()
    if "time" in obs and found.any():
        found &= (obs["time"] == obs["time"][found].min()).to_numpy()
    return found


def _held_out(cells: Cells) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of every fold, and which cells are held out."""
    obs = cells.adata.obs
    treated = (obs["treatment"] != CONTROL).to_numpy()
    column = {"donor": "context", "combination": "treatment"}.get(cells.split, cells.split)
    if column not in obs:
        raise ValueError(f"{cells.name} has no column for the split {cells.split!r}: name it with `{column}=`.")
    names = sorted(set(obs.loc[treated, column]))
    if cells.split == "combination":
        names = [name for name in names if "+" in name and set(name.split("+")) <= set(names)]
    if cells.only:
        names = [name for name in names if name in cells.only]
    elif cells.split in ("dose", "time"):
        names = names[:-1]  # beyond the last one nothing was seen
    for name in names:
        held = treated & (obs[column] == name).to_numpy()
        others = (obs[column] == name).to_numpy() & ~treated
        if cells.split not in ("context", "donor") or min(held.sum(), others.sum()) >= cells.least:
            yield f"{name:g}" if isinstance(name, float) else str(name), held


def _prepared(cells: Cells, held: np.ndarray) -> tuple[AnnData, Space]:
    """Return all cells with their components; genes, scales and components are those of the cells that say so."""
    import scanpy as sc
    from sklearn.decomposition import PCA

    adata = AnnData(cells.adata.X, obs=cells.adata.obs, var=cells.adata.var.copy())
    fitting = np.ones(len(held), dtype=bool) if cells.fit_on == "all cells" else ~held
    if 0 < cells.genes < adata.n_vars:
        few = adata[fitting].copy()
        sc.pp.highly_variable_genes(few, n_top_genes=cells.genes)
        adata = adata[:, few.var["highly_variable"].to_numpy()]
    x = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, dtype=np.float32)
    adata = AnnData(x, obs=adata.obs.drop(columns=["track", "given"], errors="ignore"), var=adata.var.copy())
    own = x[fitting]
    scale = own.std(axis=0) if cells.standardize else np.ones(x.shape[1], dtype=np.float32)
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    if cells.dims < x.shape[1]:
        # Of scaled values; scikit-learn centres them itself.
        found = PCA(cells.dims, svd_solver="randomized", random_state=0).fit(own / scale)
        space = Space(found.mean_ * scale, scale, found.components_)
    else:
        space = Space(own.mean(axis=0), scale, np.eye(x.shape[1], dtype=np.float32))
    adata.obsm[REP] = space.enter(x).astype(np.float32)
    adata.varm["PCs"] = space.components.T.copy()
    return adata, space


def _asked(cells: Cells, adata: AnnData, held: np.ndarray) -> Iterator[tuple[Ask, Truth]]:
    """Yield a question for every condition that is held out, and what was measured."""
    obs = adata.obs[held]
    for condition, rows in _groups(obs):
        start, treated = control_rows(adata.obs, condition.get("context")), np.flatnonzero(held)[rows]
        first = np.flatnonzero(start)
        if cells.track:
            first, treated = _of_one_cell(cells.adata.obs, first, treated, cells.track)
        if min(len(first), len(treated)) < 2:
            raise ValueError(f"{cells.name}: {condition} has {len(treated)} treated and {len(first)} untreated cells.")
        x = np.asarray(adata.X)
        yield (
            Ask(label(condition), adata[first].copy(), **condition),
            Truth(x[treated], x[first], aligned=cells.track is not None),
        )


def label(condition: Row) -> str:
    """Return the name of a condition."""
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else value for name, value in condition.items())


def _groups(obs: pd.DataFrame) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield every condition of some cells, and the positions of its rows."""
    columns = [name for name in ("treatment", "dose", "context", "time") if name in obs]
    for values, some in obs.assign(row=np.arange(len(obs))).groupby(columns, sort=True, observed=True):
        yield dict(zip(columns, values, strict=True)), some["row"].to_numpy()


def groups(obs: pd.DataFrame) -> list[tuple[Row, np.ndarray]]:
    """Return every treated condition of some cells, and the positions of its rows."""
    return [(condition, rows) for condition, rows in _groups(obs) if condition["treatment"] != CONTROL]


def _of_one_cell(obs: pd.DataFrame, first: np.ndarray, later: np.ndarray, track: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the cells that are in both, in one order."""
    early = pd.Series(first, index=obs[track].to_numpy()[first])
    late = pd.Series(later, index=obs[track].to_numpy()[later])
    both = late.index.intersection(early.index)
    return early[both].to_numpy(), late[both].to_numpy()
