"""The results of `cellflow.tl.trends`, read back for plots and reports."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.expression import places_of

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False)
class Trends:
    """Expression of genes over time, toward each fate.

    Parameters
    ----------
    fates, genes
        Labels of the first two axes.
    time
        The times ``(times,)``.
    mean, low, high
        The expression, and the ends of its band, ``(fates, genes, times)``.
    measured
        The mean of measured cells of each group, ``(fates, genes, snapshots)``; NaN where there are none.
    measured_time
        The times of snapshots.
    about
        Further facts about them.
    """

    fates: tuple[str, ...]
    genes: tuple[str, ...]
    time: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    measured: np.ndarray
    measured_time: np.ndarray
    about: dict[str, Any]

    def some(self, genes: str | Sequence[str] | None, fates: str | Sequence[str] | None) -> "Trends":
        """Return the trends of some genes toward some fates, in the given order; ``None`` for all.

        Raises
        ------
        KeyError, ValueError
            When a gene or fate is unknown, or none is named.
        """
        of_genes, of_fates = _places(self.genes, genes, "gene"), _places(self.fates, fates, "fate")
        parts = {name: getattr(self, name)[np.ix_(of_fates, of_genes)] for name in ("mean", "low", "high", "measured")}
        names = tuple(self.genes[k] for k in of_genes), tuple(self.fates[k] for k in of_fates)
        return replace(self, genes=names[0], fates=names[1], **parts)


def read_trends(adata: "AnnData", key: str = "trends") -> Trends:
    """Read what `cellflow.tl.trends` wrote; it may come from a file.

    Raises
    ------
    KeyError
        When there are none of that name.

    Examples
    --------
    >>> import anndata
    >>> read_trends(anndata.AnnData(), key="trends")
    Traceback (most recent call last):
    KeyError: "No trends in `adata.uns['trends']`. Run `cf.tl.trends(adata, flow, genes=[...])` first."
    """
    found = adata.uns.get(key)
    arrays = ("time", "mean", "low", "high", "measured", "measured_time")
    if not isinstance(found, dict) or not {"fates", "genes", *arrays} <= set(found):
        raise KeyError(f"No trends in `adata.uns[{key!r}]`. Run `cf.tl.trends(adata, flow, genes=[...])` first.")
    fates, genes = (tuple(map(str, np.atleast_1d(found[name]))) for name in ("fates", "genes"))
    numbers = [np.asarray(found[name], dtype=np.float64) for name in arrays]
    time, mean, low, high, measured, measured_time = numbers
    return Trends(fates, genes, time, mean, low, high, measured, measured_time, dict(found))


def _places(known: Sequence[str], asked: str | Sequence[str] | None, kind: str) -> np.ndarray:
    if asked is None:
        return np.arange(len(known))
    names = [asked] if isinstance(asked, str) else list(asked)
    if kind == "gene":
        return places_of(pd.Index(known), names, where="the trends")
    lacking = [name for name in names if name not in known]
    if lacking or not names:
        found = repr(lacking[0]) if lacking else "no names"
        raise KeyError(f"Expected names of fates in `fates`; found {found}. There are {', '.join(map(repr, known))}.")
    return np.array([list(known).index(name) for name in names])
