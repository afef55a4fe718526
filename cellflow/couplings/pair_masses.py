"""Matrices of masses between the cells of two snapshots, as other tools return them: read, checked, and kept sparse."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.couplings.plan import Plan
from cellflow.couplings.sparse import SparsePlan

if TYPE_CHECKING:
    from scipy.sparse import csr_array

log = logging.getLogger(__name__)

PAIR_BYTES = 24
"""Bytes for each pair of a `SparsePlan`: two row numbers and a mass."""
MOST_PAIRS = 2**28 // PAIR_BYTES
"""Most pairs of one matrix, 256 MiB: of matrices with more, the largest masses of each row are kept."""
AT_ONCE = 2**22
"""Numbers of a dense matrix that are looked at at a time: 32 MiB of float64."""


@dataclass(frozen=True, eq=False)
class PairMasses:
    """The masses between cells of two snapshots.

    Parameters
    ----------
    masses
        Sparse, ``(n, m)``, float64: finite and not negative.
    source, target
        Names of the cells in its rows and columns; ``None`` if they are in the order of the snapshots.
    """

    masses: "csr_array"
    source: np.ndarray | None = None
    target: np.ndarray | None = None

    def digest(self) -> str:
        """Return a digest of all masses and names."""
        found = hashlib.sha256(repr(self.masses.shape).encode())
        for values in (self.masses.indptr.astype(np.int64), self.masses.indices.astype(np.int64), self.masses.data):
            found.update(np.ascontiguousarray(values).tobytes())
        for names in (self.source, self.target):
            found.update(b"" if names is None else "\n".join(names).encode())
        return found.hexdigest()


def read_masses(given: Any, *, what: str) -> PairMasses:
    """Read a matrix of masses between cells, in any form that other tools return.

    Parameters
    ----------
    given
        A sparse or dense matrix ``(n, m)``, a `Plan`, or an object with a ``transport_matrix`` (solutions of moscot);
        or with the names of cells, by which they are then matched: a DataFrame, or an AnnData with sources as ``obs``
        and targets as ``var`` (Waddington-OT, moscot).
    what
        What a message calls it.

    Raises
    ------
    TypeError, ValueError
        When it is not a matrix, holds NaN, infinity, negative numbers or no mass, or names cells twice.

    Examples
    --------
    >>> read_masses([[0.5, 0.0], [0.2, 0.3]], what="the plan").masses.nnz
    3
    """
    if isinstance(given, PairMasses):
        return given
    source, target, values = _parts(given)
    for side, names in (("rows", source), ("columns", target)):
        if names is not None and len(np.unique(names)) < len(names):
            raise ValueError(f"The {side} of {what} name some cells twice. Make the names unique before computing it.")
    masses = _sparse(values, what)
    if not masses.nnz:
        raise ValueError(f"Expected {what} to carry mass; all of its {masses.shape[0]} x {masses.shape[1]} are 0.")
    for names, size, side in ((source, masses.shape[0], "row"), (target, masses.shape[1], "column")):
        if names is not None and len(names) != size:
            raise ValueError(f"Expected a name for each {side} of {what}; found {len(names)} for {size}.")
    return PairMasses(masses, source, target)


def thinned(masses: "csr_array", most: int = MOST_PAIRS) -> "tuple[csr_array, float]":
    """Return a matrix of the largest masses in each row, scaled to keep the row sums, and the share dropped.

    Nothing is dropped if there are at most ``most`` pairs, of which every row gets an equal part.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> found, dropped = thinned(csr_array([[0.3, 0.1, 0.0], [0.1, 0.1, 0.4]]), most=2)
    >>> found.toarray().round(2).tolist(), round(dropped, 2)
    ([[0.4, 0.0, 0.0], [0.0, 0.0, 0.6]], 0.3)
    """
    from scipy.sparse import csr_array

    if masses.nnz <= most:
        return masses, 0.0
    n, each = masses.shape[0], max(1, most // masses.shape[0])
    counts = np.diff(masses.indptr)
    rows = np.repeat(np.arange(n), counts)
    order = np.lexsort((-masses.data, rows))
    kept = order[np.arange(len(order)) - masses.indptr[rows] < each]
    found = csr_array((masses.data[kept], (rows[kept], masses.indices[kept])), shape=masses.shape)
    before, after = (np.asarray(some.sum(axis=1)).ravel() for some in (masses, found))
    scale = np.divide(before, after, out=np.zeros(n), where=after > 0)
    dropped = 1 - float(after.sum() / before.sum())
    found.data = found.data * np.repeat(scale, np.diff(found.indptr))
    return found, dropped


def _parts(given: Any) -> tuple[np.ndarray | None, np.ndarray | None, Any]:
    """Return names of rows and columns, where there are any, and the matrix."""
    if hasattr(given, "obs_names") and hasattr(given, "var_names"):
        return _names(given.obs_names), _names(given.var_names), given.X
    if hasattr(given, "index") and hasattr(given, "columns"):
        return _names(given.index), _names(given.columns), given.to_numpy()
    return None, None, getattr(given, "transport_matrix", given)


def _names(names: Any) -> np.ndarray:
    return np.asarray(names).astype(str)


def _sparse(values: Any, what: str) -> "csr_array":
    """Return a matrix as a sparse one of float64, read a few rows at a time where it is dense."""
    from scipy.sparse import coo_array, csr_array, issparse, vstack

    if isinstance(values, SparsePlan):
        i, j, masses = (part.cpu().numpy() for part in values.pairs)
        return csr_array(coo_array((masses, (i, j)), shape=values.shape))
    if hasattr(values, "detach"):
        values = values.detach().cpu().to_dense().numpy()
    if issparse(values) or hasattr(values, "to_memory"):
        found = csr_array(values.to_memory() if hasattr(values, "to_memory") else values)
        parts, dropped = [_checked(found, what)], [0.0]
    else:
        values = values if hasattr(values, "shape") else np.asarray(values)
        parts, dropped = [], []
        for rows in _blocks(values, what):
            block = _checked(csr_array(rows), what)
            kept, less = thinned(block, max(1, MOST_PAIRS * block.shape[0] // values.shape[0]))
            parts.append(kept)
            dropped.append(less * float(block.sum()))
    whole, less = thinned(csr_array(vstack(parts)))
    lost = less + sum(dropped) / max(float(whole.sum()), 1e-300)
    if lost:
        log.warning(
            "%s has more than %d pairs: only the largest masses of each row are kept, and %.2g %% of the mass is "
            "moved to these",
            what,
            MOST_PAIRS,
            100 * lost,
        )
    return whole


def _blocks(values: Any, what: str) -> Iterator[np.ndarray]:
    """Yield some rows of a matrix or of a plan at a time, in float64."""
    if isinstance(values, Plan):
        yield from (masses.cpu().numpy() for _, masses in values.blocks(8 * AT_ONCE))
        return
    kind = np.dtype(getattr(values, "dtype", object)).kind
    if len(values.shape) != 2 or not min(values.shape) or kind not in "biuf":
        raise ValueError(
            f"Expected {what} as a matrix of numbers, sources by targets; found {type(values).__name__} of shape "
            f"{tuple(values.shape)}."
        )
    n, m = values.shape
    step = max(1, AT_ONCE // m)
    for start in range(0, n, step):
        yield np.asarray(values[start : start + step], dtype=np.float64)


def _checked(masses: "csr_array", what: str) -> "csr_array":
    """Return a sparse matrix of float64 without zeros, provided that it holds masses."""
    if masses.ndim != 2 or masses.dtype.kind not in "biuf":
        raise ValueError(f"Expected {what} as a matrix of numbers; found {masses.dtype} of shape {masses.shape}.")
    found = masses.astype(np.float64)
    if found is masses or np.shares_memory(found.data, masses.data):
        found = found.copy()
    found.sum_duplicates()
    bad = ~np.isfinite(found.data)
    if bad.any():
        raise ValueError(f"Expected finite masses in {what}; {int(bad.sum())} are NaN or infinite. Was it solved?")
    if (found.data < 0).any():
        raise ValueError(
            f"Expected masses of 0 or more in {what}; found {int((found.data < 0).sum())} below 0, down to "
            f"{found.data.min():.3g}."
        )
    found.eliminate_zeros()
    return found
