"""Real cells with and without a treatment."""

import numpy as np
from anndata import AnnData
from scipy.sparse import diags

from cellflow.datasets.single_cell import shipped

_PER_CELL = 1e4


def kang() -> AnnData:
    """Human blood cells, untreated and six hours after interferon beta, of 13 types.

    2,800 cells by the 2,000 most variable genes, shipped in the package: to predict how a type responds from how others
    respond. ``X`` is log(1 + counts), with counts scaled to 10,000 of all genes in each cell; the counts are in
    ``layers["counts"]``. There are no donors.

    Returns
    -------
    adata
        ``obs``: condition ("control" 1,310, "IFN-beta" 1,490), cell_type (13, of which 9 have 40 cells or more of each
        condition) and total_counts (of all genes). ``uns["source"]`` is the attribution.

    Source
    ------
    Kang et al. 2018, "Multiplexed droplet single-cell RNA-sequencing using natural genetic variation", Nature
    Biotechnology 36:89, GEO GSE96583; the part of it in rDeepmaps (copyright 2021 Cankun Wang, MIT).

    Examples
    --------
    >>> adata = kang()
    >>> adata.shape, sorted(set(adata.obs["condition"]))
    ((2800, 2000), ['IFN-beta', 'control'])
    """
    adata = shipped("kang")
    adata.layers["counts"] = adata.X.copy()
    scale = diags(np.float32(_PER_CELL) / adata.obs["total_counts"].to_numpy(np.float32))
    adata.X = (scale @ adata.X).log1p().tocsr()
    adata.uns["log1p"] = {}  # where scanpy looks before it takes logarithms a second time
    return adata


def norman() -> AnnData:
    """Human leukemia cells (K562) in which no gene, one gene or two genes were activated.

    3,375 cells by the 500 most variable genes, shipped in the package: to predict the joint effect of two genes from
    their single effects. ``X`` is the logarithm of scaled counts, as published.

    Returns
    -------
    adata
        ``obs``: perturbation ("control" 100, 18 single genes, 15 pairs "A+B", of which 5 have both genes among the
        single ones) and total_counts. ``uns["source"]`` is the attribution.

    Source
    ------
    Norman et al. 2019, "Exploring genetic interaction manifolds constructed from rich single-cell phenotypes", Science
    365:786, GEO GSE133344; the part of it that perturbench tests with (copyright 2024 Altos Labs, BSD-3-Clause).

    Examples
    --------
    >>> adata = norman()
    >>> adata.shape, adata.obs["perturbation"].nunique()
    ((3375, 500), 34)
    """
    adata = shipped("norman")
    adata.uns["log1p"] = {}
    return adata
