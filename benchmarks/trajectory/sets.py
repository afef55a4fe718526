"""The data sets: snapshots by name from ``$CELLFLOW_DATA``, or any file of the user's."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellflow import datasets
from cellflow.cells.snapshots import read_rep, read_times
from cellflow.datasets.download import folders


@dataclass(frozen=True)
class Truths:
    """What is known of how the cells of a data set really move and grow; ``None`` where nobody knows it.

    ``growth`` goes from cells ``(n, d)`` in the units of the representation to their true growth rate ``(n,)``, up to a
    factor and a constant. ``length`` is where growth costs as much as motion in published path actions.
    """

    growth: Callable[[np.ndarray], np.ndarray] | None = None
    length: float | None = None


def divisions_of_gene_circuit(x: np.ndarray) -> np.ndarray:
    """Return the growth rate of the simulated gene circuit, per unit of its largest ``(n,)``.

    Cells divide the more often the higher their second gene: at a rate in proportion to ``x2**2 / (1 + x2**2)``. The
    file does not hold it.

    Source: the simulation of TIGON (Sha et al. 2024), as DeepRUOT and WFR-FM took it over; the formula is the truth in
    WFR-FM's evaluation.
    """
    square = np.square(x[:, 1])
    return np.asarray(square / (1 + square))


@dataclass(frozen=True)
class Cells:
    """All cells of a data set by time, ``(n_k, d)`` each, float64, in the units of the representation."""

    name: str
    clouds: tuple[np.ndarray, ...]
    times: tuple[float, ...]
    standardize_up_to: int = 0
    truths: Truths = Truths()

    @property
    def dims(self) -> int:
        """Width of the representation."""
        return int(self.clouds[0].shape[1])

    def digest(self) -> str:
        """Return a digest of all values and times."""
        found = hashlib.sha256(np.asarray(self.times).tobytes())
        for cloud in self.clouds:
            found.update(np.ascontiguousarray(cloud).tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True)
class DataSet:
    """Where a data set is, and which part of it is used."""

    name: str  # in tables
    file: str  # looked for in $CELLFLOW_DATA/single_cell, $CELLFLOW_DATA and the package
    time_key: str  # column of obs
    rep: str  # key of obsm, or "X"
    path: str | None = None  # a file of the user's instead; gives the data set its name
    components: int = 0  # principal components of log-counts, where they must be computed first
    standardize_up_to: int = 0  # most dimensions for which published protocols standardise each one
    dims: int = 5  # how many are taken where nothing else is asked for
    note: str = ""
    truths: Truths = Truths()  # in as many dimensions as `dims`

    def load(self, dims: int | None = None) -> Cells:
        """Read the first dimensions of every cell, by time."""
        import anndata
        import scanpy as sc

        dims = self.dims if dims is None else dims
        adata = anndata.read_h5ad(self.locate())
        time = read_times(adata, self.time_key)
        if self.components:
            adata = adata.copy()
            sc.pp.log1p(adata)
            sc.pp.pca(adata, n_comps=self.components, random_state=0)
        rep = read_rep(adata, "X_pca" if self.components else self.rep)
        if not 1 <= dims <= rep.shape[1]:
            raise ValueError(f"Expected 1 to {rep.shape[1]} dimensions of {self.label}; found dims={dims}.")
        times = np.unique(time)
        x = rep[:, :dims].astype(np.float64)
        truths = self.truths if dims == self.dims else Truths()
        clouds = tuple(x[time == t] for t in times)
        return Cells(self.label, clouds, tuple(times.tolist()), self.standardize_up_to, truths)

    @property
    def label(self) -> str:
        """The name in tables: that of the file where it is one of the user's."""
        return self.name if self.path is None else Path(self.path).stem

    def locate(self) -> Path:
        """Return the file, or say where to put it."""
        if self.path is not None:
            if not Path(self.path).is_file():
                raise FileNotFoundError(f"No file {self.path}. Name an .h5ad file with `dataset.path=`.")
            return Path(self.path)
        looked = [folder / self.file for folder in folders("single_cell")]
        looked.append(Path(datasets.__file__).parent / "files" / self.file)
        if found := next(filter(Path.is_file, looked), None):
            return found
        raise FileNotFoundError(
            f"The data set {self.name!r} is not on this machine. Looked for {', '.join(map(str, looked))}. Put "
            f"{self.file} into a folder, set CELLFLOW_DATA to that folder, or give your own file: "
            "`dataset.path=cells.h5ad dataset.time_key=day dataset.rep=X_pca`."
        )
