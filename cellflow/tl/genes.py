"""Genes in the results of tools: `cellflow.cells.decoding` says which, and how they are decoded."""

from cellflow.cells.decoding import MOST_DECODED, Decode, Genes, about_genes, read_decoder, var_of
from cellflow.cells.loadings import CHUNK, LOADINGS, REP, Loadings, read_loadings

__all__ = [
    "CHUNK",
    "LOADINGS",
    "MOST_DECODED",
    "REP",
    "Decode",
    "Genes",
    "Loadings",
    "about_genes",
    "read_decoder",
    "read_loadings",
    "var_of",
]
