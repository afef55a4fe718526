"""By what a representation is known again, so that a flow is not asked about the columns of another.

Three things are kept of the representation that a flow was fitted on, and compared from the most certain on:

* *Fitted cells*, at most `SKETCHED` of each snapshot: a hash of the name, one number of the state, and distances to a
  few others of them. Cells that are here again with the same numbers prove that nothing has changed. With other numbers
  they may be other cells that bear the same names ("0", "1", ...), so that cells count as the same ones only if near
  ones are near again: all distances are what they were, when columns are flipped, exchanged or rotated; or they are in
  much the same order, and snapshots differ in mean or spread by more than other samples of the same cells would.
* *Loadings* of a PCA, where there are any: moments of each column, which depend neither on the order of genes nor on
  rounding, but on signs and on the order of columns.
* *Mean and spread* of each column in each snapshot, for cells that were not fitted. Whatever cells of a snapshot are
  chosen, a share p of them lies at most ``p ** -0.5`` standard deviations from its mean, by their root mean square
  (Chebyshev): one type of cells in 25 is never further than `FAR`.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from cellflow.cells.single import in_blocks, moments
from cellflow.cells.sketch import NEIGHBORS, distances, hashes_of, rank_correlation, short, sums, whole_numbers
from cellflow.renamed import warn

if TYPE_CHECKING:
    from anndata import AnnData

SKETCHED = 32
"""Cells of each snapshot that are known by name."""
ALIKE = 1e-3
"""Numbers that differ by less, in units of their spread, differ by rounding."""
CHANGED = 0.75
"""Share of the known cells that have other states where all have: a cell may lie where a change leaves it as it was."""
FEWEST = 10
"""Cells from which it is concluded that they are the fitted ones in another representation ..."""
SAME_ORDER, CHANCE = 0.3, 3.0
"""... if the rank correlation of their distances is at least this, and as many standard errors above 0; and ..."""
ISOMETRIC = 0.9
"""... at least this, ..."""
OTHER = 6.0
"""... or means or spreads of snapshots differ by so many standard errors."""
COMPARED = 20
"""Cells of a snapshot, then and now, whose mean and spread are compared."""
FAR = 5.0
"""Root mean squared distance from the mean of a snapshot, in its standard deviations, above which cells are far off."""
LOADINGS = {"X_pca": "PCs"}
"""Where scanpy stores loadings; with ``key_added`` under the same key as the representation."""


_NUMBERS, _COUNTS = ("times", "mean", "spread", "sums", "distances"), ("counts", "names", "snapshot")


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is known of the representation that a flow was fitted on.

    Parameters
    ----------
    columns
        Digests of the names of the columns, in order and sorted; ``None`` where they have none.
    loadings
        Moments of each column of the loadings, ``(d, 6)``; ``None`` without loadings.
    times, counts, mean, spread
        The snapshots, ``(k,)``: their times, numbers of cells, and the mean and the spread of each column, ``(k, d)``.
    names, snapshot, sums, distances
        Some fitted cells: hashes of their names, the numbers of their snapshots, and the sums of their columns with
        weights that differ, ``(m,)``; the distance of each to the next ones of its snapshot, ``(m, 4)``.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> x, time = adata.obsm["X_latent"], adata.obs["time"].to_numpy(dtype=float)
    >>> known = fingerprint(adata, "X_latent", x, time)
    >>> known.difference(adata, "X_latent", x, time)
    ''
    >>> "another representation" in known.difference(adata, "X_latent", -x, time)
    True
    """

    columns: tuple[str, str] | None
    loadings: np.ndarray | None
    times: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    names: np.ndarray
    snapshot: np.ndarray
    sums: np.ndarray
    distances: np.ndarray

    def check(self, adata: "AnnData", rep: str, x: np.ndarray, time: np.ndarray) -> None:
        """Refuse, or warn of, cells whose representation differs from the fit.

        Parameters
        ----------
        adata
            The cells.
        rep
            The key of the representation.
        x, time
            The representation ``(n, d)`` and the times ``(n,)`` of all cells.

        Raises
        ------
        ValueError
            When the loadings of fitted cells are others, or columns with names are in another order.

        Warns
        -----
        UserWarning
            When the fitted cells have other states, other cells have other loadings, or they lie far from all that
            were fitted at their time.
        """
        if self._confirmed(adata, x):
            return
        where = f"`adata.obsm[{rep!r}]`" if rep != "X" else "`adata.X`"
        if said := self._other_order(adata, rep, where):
            raise ValueError(said)
        said = self._other_loadings(adata, rep, where)
        if said and self._here(adata, x)[1].any():
            raise ValueError(said)
        # Other cells may have been projected, and keep loadings of their own.
        if said := said or self._other_states(adata, x, time, where) or self._far_off(x, time, where):
            warn(said)

    def note(self) -> dict[str, np.ndarray]:
        """Return it as arrays, for the notes of a result in ``uns``; `of` reads them."""
        return {name: np.asarray(value) for name, value in self.record().items() if value is not None}

    def difference(self, adata: "AnnData", rep: str, x: np.ndarray, time: np.ndarray) -> str:
        """Return what `check` would say; nothing where the representation is that of the fit."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.check(adata, rep, x, time)
            except ValueError as error:
                return str(error)
        return str(caught[0].message) if caught else ""

    def fits(self, adata: "AnnData", rep: str) -> bool:
        """Return whether loadings and names of columns are the same, as far as there are any."""
        return not (self._other_order(adata, rep, "") or self._other_loadings(adata, rep, ""))

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        arrays = {name: getattr(self, name).tolist() for name in (*_NUMBERS, *_COUNTS)}
        loadings = None if self.loadings is None else self.loadings.tolist()
        return {**arrays, "loadings": loadings, "columns": None if self.columns is None else list(self.columns)}

    @classmethod
    def of(cls, record: Mapping[str, Any] | None, *, width: int) -> "Fingerprint | None":
        """Return what `record` wrote of a representation with so many columns; ``None`` for models without one.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is not what `record` writes.
        """
        if record is None:
            return None
        arrays = {name: np.asarray(record[name], dtype=np.float64) for name in _NUMBERS}
        arrays |= {name: whole_numbers(record[name], name) for name in _COUNTS}
        loadings, columns = record.get("loadings"), record.get("columns")
        loadings = None if loadings is None else np.asarray(loadings, dtype=np.float64)
        columns = None if columns is None else tuple(map(str, columns))
        found = cls(columns=cast("tuple[str, str] | None", columns), loadings=loadings, **arrays)
        found._require_shapes(width)
        return found

    def _require_shapes(self, width: int) -> None:
        k, m = len(self.times), len(self.names)
        expected = {
            "times": (k,), "counts": (k,), "mean": (k, width), "spread": (k, width), "names": (m,), "snapshot": (m,),
            "sums": (m,), "distances": (m, NEIGHBORS), "loadings": (width, 6),
        }  # fmt: skip
        for name, shape in expected.items():
            values = getattr(self, name)
            if values is not None and (values.shape != shape or not np.isfinite(values).all()):
                raise ValueError(f"Expected finite numbers of shape {shape} in `{name}`; found shape {values.shape}.")
        if self.columns is not None and len(self.columns) != 2:
            raise ValueError(f"Expected two digests in `columns`; found {len(self.columns)}.")
        if (self.snapshot >= k).any() or (self.counts < 1).any():
            raise ValueError("Expected counts of cells, and numbers of snapshots; found others.")

    def _here(self, adata: "AnnData", x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the states of the known cells now ``(m, d)``, NaN for those that are not here, and which are here."""
        index = pd.Index(hashes_of(adata.obs_names))
        rows = index.get_indexer(self.names) if index.is_unique else np.full(len(self.names), -1)
        here = rows >= 0
        found = np.full((len(rows), x.shape[1]), np.nan)
        found[here] = x[rows[here]]
        return found, here

    def _confirmed(self, adata: "AnnData", x: np.ndarray) -> bool:
        """Return whether fitted cells are here with the states that they had."""
        return self._changed(adata, x) < CHANGED

    def _changed(self, adata: "AnnData", x: np.ndarray) -> float:
        """Return the share of the known cells that are here with other states; 1 where none is here."""
        states, here = self._here(adata, x)
        apart = np.abs(sums(states, self._middle, self._scale) - self.sums)[here]
        return float((apart > ALIKE * np.sqrt(x.shape[1])).mean()) if len(apart) else 1.0

    def _other_order(self, adata: "AnnData", rep: str, where: str) -> str:
        """Say that the columns are in another order."""
        found = _columns(adata, rep, self.mean.shape[1])
        if self.columns is None or found is None or found[0] == self.columns[0] or found[1] != self.columns[1]:
            return ""
        return (
            f"The columns of {where} are in another order than in `fit`, by their names. Bring them into that order, "
            "or fit again."
        )

    def _other_loadings(self, adata: "AnnData", rep: str, where: str) -> str:
        """Say that a PCA has been recomputed."""
        found = _loadings(adata, rep, self.mean.shape[1])
        if self.loadings is None or found is None or not _differ(self.loadings, found):
            return ""
        return (
            f"{where} is another PCA than that of `fit`: the loadings `adata.varm[{_key(rep)!r}]` differ. The columns "
            "that this flow knows mean something else there. Take the representation that it was fitted on, project "
            "new cells by its loadings, or fit again."
        )

    def _other_states(self, adata: "AnnData", x: np.ndarray, time: np.ndarray, where: str) -> str:
        """Say that the fitted cells have other states."""
        states, here = self._here(adata, x)
        now = distances(states, self.snapshot)
        both = np.isfinite(now)
        group = np.repeat(self.snapshot[:, None], NEIGHBORS, axis=1)[both]
        n = min(int(here.sum()), len(group))
        order = rank_correlation(self.distances[both], now[both], group) if n else 0.0
        if n < FEWEST or order < max(SAME_ORDER, CHANCE / np.sqrt(n)):
            return ""
        if order < ISOMETRIC and not self._other_sample(x, time):
            return ""
        return (
            f"{self._changed(adata, x):.0%} of the fitted cells among these have other values in {where} than in "
            "`fit`: it is another representation, or its columns were rescaled, flipped or exchanged. Results are "
            "meaningless then. Take the representation that the flow was fitted on, or fit again."
        )

    def _other_sample(self, x: np.ndarray, time: np.ndarray) -> bool:
        """Return whether snapshots differ by more than two samples of the same cells in the same representation."""
        for at, n, mean, spread in zip(self.times, self.counts, self.mean, self.spread, strict=True):
            here = x[time == at].astype(np.float64)
            if min(len(here), n) < COMPARED:
                continue
            centred, least = here - here.mean(axis=0), ALIKE * self._scale
            now = np.maximum(centred.std(axis=0), least)
            tails = np.maximum((centred**4).mean(axis=0) / now**4, 1.5)  # 3 for a normal distribution
            apart = np.abs(here.mean(axis=0) - mean) / np.hypot(now / np.sqrt(len(here)), spread / np.sqrt(n))
            of_logs = np.sqrt((tails - 1) / 4 * (1 / len(here) + 1 / n))
            wider = np.abs(np.log(now / np.maximum(spread, least))) / of_logs
            if max(apart.max(), wider.max()) > OTHER:
                return True
        return False

    def _far_off(self, x: np.ndarray, time: np.ndarray, where: str) -> str:
        """Say that cells lie far from all that were fitted at their time."""
        for at, n, mean, spread in zip(self.times, self.counts, self.mean, self.spread, strict=True):
            here = x[time == at]
            if min(len(here), n) < COMPARED:
                continue
            least = np.maximum(spread, ALIKE * self._scale)  # a column that was constant there tells nothing finer
            squares = sum(np.square((here[some] - mean) / least).sum(axis=0) for some in in_blocks(here))
            distance = np.sqrt(squares / len(here))
            worst = int(distance.argmax())
            if distance[worst] > FAR:
                return (
                    f"Cells at time {at:g} are far from those of `fit`: in column {worst + 1} of {where} they are "
                    f"{distance[worst]:.3g} of its standard deviations from its mean. It is another representation, or "
                    "these are other cells than the flow has learned. Compute it as for `fit`, or fit again."
                )
        return ""

    @property
    def _middle(self) -> np.ndarray:
        return np.asarray(self.counts @ self.mean / self.counts.sum())

    @property
    def _scale(self) -> np.ndarray:
        """Return the spread of each column over all snapshots, ``(d,)``; 1 where it is constant."""
        squares = np.square(self.spread) + np.square(self.mean - self._middle)
        scale = np.sqrt(self.counts @ squares / self.counts.sum())
        return np.where(scale > 0, scale, 1.0)


def fingerprint(
    adata: "AnnData", rep: str, x: np.ndarray, time: np.ndarray, *, names: Iterable[str] | None = None
) -> Fingerprint:
    """Return what the representation of some cells is known again by.

    Parameters
    ----------
    adata
        The cells.
    rep
        Key of the representation in ``obsm``, or ``"X"``.
    x, time
        The representation ``(n, d)`` and the times ``(n,)`` of all cells.
    names
        Their names ``(n,)``, where they are more than those of ``adata``.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> time = adata.obs["hours"].to_numpy(dtype=float)
    >>> fingerprint(adata, "X", adata.X.toarray(), time).counts.tolist()
    [69, 74, 79, 49]
    """
    times, snapshot, counts = np.unique(time, return_inverse=True, return_counts=True)
    mean, spread = zip(*(moments(x[snapshot == k]) for k in range(len(times))), strict=True)
    hashes = hashes_of(adata.obs_names if names is None else names)
    order = np.argsort(hashes, kind="stable")
    rows = np.concatenate([order[snapshot[order] == k][:SKETCHED] for k in range(len(times))])
    known = Fingerprint(
        columns=_columns(adata, rep, x.shape[1]),
        loadings=_loadings(adata, rep, x.shape[1]),
        times=times,
        counts=counts,
        mean=short(np.stack(mean)),
        spread=short(np.stack(spread)),
        names=hashes[rows],
        snapshot=snapshot[rows],
        sums=np.zeros(len(rows)),
        distances=short(distances(x[rows].astype(np.float64), snapshot[rows])),
    )
    return replace(known, sums=short(sums(x[rows].astype(np.float64), known._middle, known._scale)))


def _columns(adata: "AnnData", rep: str, width: int) -> tuple[str, str] | None:
    """Return digests of the names of the first columns, in order and sorted."""
    found = adata.var_names if rep == "X" else getattr(adata.obsm[rep], "columns", None)
    if found is None:
        return None
    names = [str(name) for name in found[:width]]
    ordered, by_name = (hashlib.sha256("\n".join(some).encode()).hexdigest()[:16] for some in (names, sorted(names)))
    return ordered, by_name


def _key(rep: str) -> str:
    return LOADINGS.get(rep, rep)


def _loadings(adata: "AnnData", rep: str, width: int) -> np.ndarray | None:
    """Return the sums of each column, its squares and cubes, of absolute values of both, and how many are not 0."""
    if _key(rep) not in adata.varm:
        return None
    matrix = np.asarray(adata.varm[_key(rep)], dtype=np.float64)
    wide = adata.n_vars if rep == "X" else adata.obsm[rep].shape[1]  # of which a flow may use the first columns
    if matrix.ndim != 2 or matrix.shape[1] != wide or width > wide or not np.isfinite(matrix).all():
        return None
    matrix = matrix[:, :width]
    size = np.abs(matrix)
    moments = (matrix, matrix**2, matrix**3, size, size**3, matrix != 0)
    return short(np.stack([moment.sum(axis=0) for moment in moments], axis=1))


def _differ(known: np.ndarray, found: np.ndarray) -> bool:
    """Return whether loadings differ by more than rounding, and by more than that some genes are gone."""
    if (found[:, 5] < known[:, 5]).all() and (found[:, 1] <= (1 + ALIKE) * known[:, 1]).all():
        return False  # some genes are gone: columns of a PCA have length 1, and what is left of one is shorter
    return bool((np.abs(known - found)[:, :5] > ALIKE * known[:, [3, 1, 4, 3, 4]]).any())
