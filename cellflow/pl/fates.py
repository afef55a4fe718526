"""The fates that `cellflow.tl.fate` wrote, as plots use them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.pl.canvas import literal
from cellflow.pl.coloring import PLAIN, palette_of
from cellflow.pl.labels import time_label, unit_of_result
from cellflow.pl.look import Look
from cellflow.tl.fate_table import read_fate

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Fates:
    """Fates of cells.

    Parameters
    ----------
    groups
        Names of the fates.
    shares
        The probability or share of each, ``(n, groups)``; NaN for cells without a fate.
    known
        Which cells have one, ``(n,)``.
    descendants
        How many descendants each cell has, ``(n,)``; 1 where growth was not learned.
    groupby
        Column of ``obs`` with the groups.
    rep, time_key, unit
        The representation, the time column and the unit of time.
    said
        What a share is, for a label.
    """

    groups: tuple[str, ...]
    shares: np.ndarray
    known: np.ndarray
    descendants: np.ndarray
    groupby: str
    rep: str
    time_key: str
    unit: str
    said: str

    def colors(self, adata: "AnnData", look: Look = PLAIN) -> tuple[str, ...]:
        """Return a colour for each fate: that of its group in ``groupby``, if it has one."""
        column = adata.obs.get(self.groupby)
        names = list(map(str, column.astype("category").cat.categories)) if column is not None else []
        if not set(self.groups) <= set(names):
            names = list(self.groups)
        palette = palette_of(adata, self.groupby, names, look)
        return tuple(palette[names.index(group) % len(palette)] for group in self.groups)


def fates_of(adata: "AnnData", key: str) -> Fates:
    """Return the fates of a name.

    Raises
    ------
    KeyError
        When there are none.
    """
    table = read_fate(adata, key)
    about = dict(table.about)
    grown = adata.obs.get(f"{key}_descendants")
    descendants = np.ones(adata.n_obs) if grown is None else np.nan_to_num(grown.to_numpy(dtype=np.float64), nan=1.0)
    unit = unit_of_result(adata, about)
    return Fates(
        tuple(table.groups),
        table.shares,
        table.known,
        descendants,
        table.groupby or key,
        str(about["rep"]),
        str(about.get("time_key", "")),
        unit,
        _said(about, unit),
    )


def _said(about: dict[str, Any], unit: str) -> str:
    there = about.get("kind") == "neighbors"
    said = "share of this group\naround the end point" if there else "probability of this group"
    if "at" not in about:
        return said
    return literal(f"{said} at {time_label(float(about['at']), unit)}")
