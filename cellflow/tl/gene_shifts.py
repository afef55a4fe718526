"""Genes set to other amounts, as shifts of states through the loadings, and the same shifts of random other genes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from cellflow.cells.expression import places_of, read_expression
from cellflow.cells.loadings import Loadings, columns_of, read_loadings

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

AMOUNTS = ("down", "up")
POOL = 2
"""Genes among which a random one is drawn, as a multiple of how many are drawn: those with the nearest loadings."""


@dataclass(frozen=True, eq=False)
class GeneShifts:
    """How states change when genes are set to other amounts.

    Parameters
    ----------
    loadings
        From genes to components.
    places
        The genes, among those of the loadings ``(k,)``.
    change
        How much each gene changes in each cell ``(n, k)``.
    """

    loadings: Loadings
    places: np.ndarray
    change: np.ndarray

    def own(self) -> np.ndarray:
        """Return the shift of every cell ``(n, d)``."""
        return self._through(self.places)

    def random(self, n: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return shifts ``(n, d)`` by the same change of other genes, drawn from those with loadings of similar length.

        There are fewer where there are few genes.
        """
        length = np.linalg.norm(self.loadings.matrix, axis=1)
        others = np.setdiff1d(np.arange(len(length)), self.places)
        n = min(n, len(others) // len(self.places))
        drawn = []
        for place in self.places:
            nearest = others[np.argsort(np.abs(length[others] - length[place]), kind="stable")]
            chosen = rng.permutation(nearest[: max(POOL * n, n)])[:n]
            others = np.setdiff1d(others, chosen)
            drawn.append(chosen)
        return [self._through(np.array(one)) for one in zip(*drawn, strict=True)]

    def _through(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self.change @ self.loadings.matrix[places])


def read_gene_shifts(
    adata: "AnnData",
    flow: "SnapshotFlow",
    rows: np.ndarray,
    genes: Mapping[str, str | float],
    quantiles: tuple[float, float],
    *,
    layer: str | None,
    use_raw: bool,
) -> GeneShifts:
    """Return how the states of cells change when genes are set to other amounts.

    Raises
    ------
    TypeError, ValueError
        When an amount is neither a finite number nor ``"down"`` or ``"up"``, or a gene is named twice in the data.
    KeyError
        When the gene is unknown, the components do not include it, or there are no loadings.
    """
    amounts = _checked(genes, quantiles)
    expression = read_expression(adata, layer=layer, use_raw=use_raw)
    columns = places_of(expression.names, list(amounts), where=expression.where)
    found = read_loadings(adata, flow.rep, genes=True, layer=layer, use_raw=use_raw, width=flow.n_features_in_)
    loadings = cast("Loadings", found)  # what is asked for is there, or refused
    seen = columns_of(adata, expression)[loadings.seen]
    where = {column: place for place, column in enumerate(seen.tolist())}
    if unseen := [gene for gene, column in zip(amounts, columns, strict=True) if column not in where]:
        raise KeyError(
            f"The components do not include {unseen[0]!r}, which was not among the genes of the PCA (highly variable "
            "ones, for example): the flow cannot know what its change would do."
        )
    values = expression.dense(np.arange(adata.n_obs), columns)
    if not np.isfinite(values).all():
        raise ValueError(
            f"Expected finite expression of {list(amounts)} in `{expression.where}`; found NaN or infinity."
        )
    low, high = np.quantile(values, quantiles, axis=0)
    aims = [
        {"down": low[k], "up": high[k]}[amount] if isinstance(amount, str) else float(amount)
        for k, amount in enumerate(amounts.values())
    ]
    places = np.array([where[column] for column in columns.tolist()])
    return GeneShifts(loadings, places, np.array(aims)[None] - values[rows])


def _checked(genes: Mapping[str, str | float], quantiles: tuple[float, float]) -> dict[str, str | float]:
    such = "such as `{'GATA1': 'down'}` or `{'GATA1': 0.0}`"
    if not isinstance(genes, Mapping) or not genes:
        raise TypeError(f"Expected `genes` as a mapping from genes to amounts, {such}; found {genes!r:.60}.")
    for gene, amount in genes.items():
        number = isinstance(amount, int | float | np.number) and not isinstance(amount, bool)
        if not (number and np.isfinite(float(amount))) and not (isinstance(amount, str) and amount in AMOUNTS):
            raise ValueError(f"Expected 'down', 'up' or a finite number for {gene!r}, {such}; found {amount!r:.60}.")
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise ValueError(f"Expected `quantiles` from 0 to 1, the lower first; found {quantiles}.")
    return {str(gene): amount for gene, amount in genes.items()}
