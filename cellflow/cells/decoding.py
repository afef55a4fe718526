"""Which genes a result holds, how they are decoded, and what is said of it: the same for every tool and estimator."""

import logging
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from cellflow.cells.decoders import Decoder
from cellflow.cells.expression import places_of
from cellflow.cells.loadings import Loadings, read_loadings
from cellflow.errors import unknown

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)

Genes: TypeAlias = bool | str | Sequence[str]
"""Which genes to decode: all, none, ``"auto"``, or those of some names."""
Decode: TypeAlias = Decoder | Callable[..., Any]
"""A decoder, or a function from states to the genes of ``var_names``."""
MOST_DECODED = 2**28
"""Numbers of decoded genes, 1 GiB, beyond which they are left out unless they are asked for."""


def read_decoder(
    adata: "AnnData",
    rep: str,
    *,
    genes: Genes,
    decode: Decode | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    width: int | None = None,
    rows: int = 0,
    most: int = MOST_DECODED,
) -> Loadings | Decoder | None:
    """Return the map from a representation to the requested genes, or ``None`` for no genes.

    The log says how much variance the map carries, and which genes it leaves out.

    Parameters
    ----------
    adata
        The cells.
    rep
        Their representation.
    genes
        Whether to decode genes, or the names of those to decode; ``"auto"`` for all if that is possible and takes
        little memory.
    decode
        A decoder, or a function that gives the genes of ``var_names``; ``None`` for the loadings of the PCA.
    layer, use_raw, width
        As for `read_loadings`.
    rows
        How many states will be decoded, and
    most
        how many numbers ``"auto"`` decodes at most.

    Raises
    ------
    TypeError
        When ``genes`` or ``decode`` is of another type.
    KeyError
        When a gene is unknown or was not in the PCA, or there is nothing to decode with.
    ValueError
        When a name belongs to several genes, or the loadings do not fit the expression.
    """
    names = _asked(genes)
    if rep == "X" and decode is None and names is not None:
        raise ValueError("The states of this flow are the genes: the result has all. Leave `genes` out.")
    if decode is not None and (layer is not None or use_raw):
        raise ValueError("Expected `decode`, or a `layer` or `use_raw` for the loadings; found both. Leave one out.")
    if isinstance(genes, bool | np.bool_) and not genes:
        return None
    if isinstance(genes, str) and genes != "auto" and decode is None and genes not in adata.var_names:
        near = get_close_matches(genes, adata.var_names, n=3) or list(adata.var_names[:3])
        raise ValueError(unknown("value of `genes`", genes, [True, False, "auto", *near]))
    found: Loadings | Decoder | None
    if decode is not None:
        found = as_decoder(adata, decode)
    else:
        auto: bool | str = "auto" if names is None and genes == "auto" else True
        found = read_loadings(adata, rep, genes=auto, layer=layer, use_raw=use_raw, width=width)
    if found is None:
        return None
    if names is not None:
        found = found.some(_places(adata, found, names))
    elif genes == "auto" and rows * len(found.names) > most:
        log.warning(
            "genes are not decoded: %d rows of %d genes take %.1f GiB. Name some with `genes=[...]`, or decode all "
            "with `genes=True`",
            rows,
            len(found.names),
            4 * rows * len(found.names) / 2**30,
        )
        return None
    _say(adata, found, named=names is not None)
    return found


def as_decoder(adata: "AnnData", decode: Decode) -> Decoder:
    """Return a decoder as it is, and a function as one of the genes of ``var_names``.

    Raises
    ------
    TypeError
        When it is neither.
    """
    if isinstance(decode, Decoder):
        return decode
    if isinstance(decode, type) or not callable(decode):
        raise TypeError(
            "Expected `decode` as a function from states (n, d) to genes, or a `cf.cells.Decoder`; found "
            f"{decode!r:.60}."
        )
    if not adata.n_vars:
        raise ValueError(
            "`adata` names no genes. Name those of the decoder: `cf.cells.Decoder(function, genes=[...])`."
        )
    return Decoder(decode, [str(name) for name in adata.var_names])


def var_of(adata: "AnnData", decoder: Loadings | Decoder) -> pd.DataFrame:
    """Return the table of the genes that a decoder gives, with the columns of ``var`` where they are all there."""
    if isinstance(decoder, Loadings):
        return pd.DataFrame(adata.var[decoder.seen].copy())
    if adata.var_names.is_unique and decoder.names.isin(adata.var_names).all():
        return pd.DataFrame(adata.var.loc[decoder.names].copy())
    return pd.DataFrame(index=decoder.names)


def about_genes(adata: "AnnData", decoder: Loadings | Decoder | None) -> dict[str, Any]:
    """Return what a result records about how its genes were decoded.

    ``"variance_carried"``, the share of the variance of these genes that the components carry, if known; and
    ``"genes_left_out"``, how many genes of ``var`` it lacks.
    """
    if decoder is None:
        return {}
    carried = {"variance_carried": float(decoder.carried)} if np.isfinite(decoder.carried) else {}
    return {**carried, "genes_left_out": _left_out(adata, decoder)}


def _left_out(adata: "AnnData", decoder: Loadings | Decoder) -> int:
    return int((~adata.var_names.isin(decoder.names)).sum())


def _asked(genes: Any) -> list[str] | None:
    """Return the names that are asked for; ``None`` for all or none."""
    if isinstance(genes, bool | np.bool_) or (isinstance(genes, str) and genes == "auto"):
        return None
    if isinstance(genes, type) or not isinstance(genes, Iterable):
        raise TypeError(f"Expected `genes` as True, False, 'auto' or names of genes; found {genes!r:.60}.")
    return [genes] if isinstance(genes, str) else [str(name) for name in genes]


def _places(adata: "AnnData", decoder: Loadings | Decoder, names: list[str]) -> np.ndarray:
    unseen = [name for name in map(str, names) if name not in decoder.names and name in adata.var_names]
    if unseen:
        why = "it was not in the PCA" if isinstance(decoder, Loadings) else "it is not one of its genes"
        raise KeyError(
            f"The gene {unseen[0]!r} cannot be decoded: {why}. Decode it by regression, "
            "`decode=cf.cells.fit_decoder(adata, rep=...)`."
        )
    return places_of(decoder.names, names, where="the genes that are decoded")


def _say(adata: "AnnData", decoder: Loadings | Decoder, *, named: bool) -> None:
    left, carried = _left_out(adata, decoder), decoder.carried
    if np.isfinite(carried):
        log.info("%.0f%% of the variance of the %d decoded genes is carried", 100 * carried, len(decoder.names))
    if left and not named:
        log.warning(
            "%d of %d genes are not in the result: they cannot be decoded, since they were not in the PCA. "
            "`decode=cf.cells.fit_decoder(adata, rep=...)` decodes all by regression",
            left,
            adata.n_vars,
        )
