"""What would fail only after a fit, in its scores, previews and report, checked before it begins."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

from cellflow.cells.expression import alike, places_of, read_expression
from cellflow.cells.fingerprint import LOADINGS
from cellflow.cells.loadings import misfit
from cellflow.cli.built import solver_of
from cellflow.cli.settings import Settings
from cellflow.errors import unknown
from cellflow.integrate import Fixed, Jumps, Noisy
from cellflow.metrics import feature_network

if TYPE_CHECKING:
    from anndata import AnnData


def check_figures(
    adata: "AnnData", basis: str | None, *, rep: str, genes: Iterable[str] = (), setting: str = "data.genes"
) -> None:
    """Raise if figures could not be drawn.

    Parameters
    ----------
    adata
        The cells.
    basis
        Embedding of the figures; ``None`` for a UMAP if there is one, else the representation.
    rep
        The representation.
    genes
        Genes to draw over time.
    setting
        The setting that names them, for the message.

    Raises
    ------
    KeyError, ValueError
        When the embedding or a gene is unknown, genes cannot be decoded, or the embedding has only one column.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> check_figures(adata, "latent", rep="X_latent")
    >>> check_figures(adata, "umap", rep="X_latent")
    Traceback (most recent call last):
    ...
    KeyError: "No `adata.obsm['X_umap']`. Available: ['X_latent', 'velocity_true']. Compute one first..."
    """
    from cellflow.pl.basis import read_basis

    if basis is not None:
        read_basis(adata, basis, rep=rep)
    asked = list(genes)
    for gene in asked:
        if gene not in adata.var_names:
            raise KeyError(
                f"`{setting}` names {gene!r}, which is not one of the {adata.n_vars:,} genes of the data. "
                f"{alike(gene, adata.var_names)}"
            )
    if asked:  # and each of them is there once, and can be decoded
        places_of(adata.var_names, asked, where="adata.var_names")
        check_decodes(adata, rep, setting)


def check_decodes(adata: "AnnData", rep: str, setting: str) -> None:
    """Raise if genes cannot be decoded from a representation by the loadings of its PCA.

    Raises
    ------
    KeyError, ValueError
        When there are no loadings, or they do not fit the expression.

    Examples
    --------
    >>> import cellflow as cf
    >>> check_decodes(cf.datasets.hematopoiesis(), "X_pca", "data.genes")
    Traceback (most recent call last):
    ...
    KeyError: "`data.genes` needs `adata.varm['PCs']`, the loadings of `adata.obsm['X_pca']`..."
    """
    key = LOADINGS.get(rep, rep)
    if rep == "X":
        raise ValueError(f"`{setting}` decodes genes, and the states of `rep` 'X' are the genes. Leave it out.")
    if key not in adata.varm:
        raise KeyError(
            f"`{setting}` needs `adata.varm[{key!r}]`, the loadings of `adata.obsm[{rep!r}]`, to decode genes; there "
            f"are {list(adata.varm) or 'none'}. Run `sc.pp.pca(adata)` and save the cells, or leave `{setting}` out."
        )
    if said := misfit(adata, rep, read_expression(adata)):
        raise ValueError(f"`{setting}` cannot be decoded. {said}")


def check_solver(cfg: Settings, *, noisy: bool) -> None:
    """Raise for a solver that a model cannot use during its fit.

    Parameters
    ----------
    cfg
        The settings of the command.
    noisy
        Whether a score is learned, which a solver with noise needs.

    Raises
    ------
    ValueError
        For jumps, and for noise without a score.
    """
    solver = solver_of(cfg, default=Fixed())
    if isinstance(solver, Jumps):
        raise ValueError(f"Expected a solver for a new fit; found {solver!r}, which is for use after `distill`.")
    if isinstance(solver, Noisy) and not noisy:
        raise ValueError(
            f"Expected a solver without noise, as no score is learned; found {solver!r}. Choose `solver=fixed`, or "
            "to translate with noise `path=brownian_bridge stochastic=true`."
        )


def check_scores(images: Tensor, network: str | None, target_class: str | None = None) -> None:
    """Raise if images could not be scored.

    Parameters
    ----------
    images
        Some of them, ``(n, c, h, w)`` from -1 to 1.
    network
        Name of the network whose features compare them; ``None`` for principal components.
    target_class
        A class of that network.

    Raises
    ------
    ValueError
        When the network takes other images, or has no such class.

    Examples
    --------
    >>> import torch
    >>> check_scores(torch.zeros(2, 1, 32, 32), "silhouettes", "cytd")
    """
    if network is None:
        if target_class is not None:
            raise ValueError("`target_class` is a class of a `feature_network`: choose a network too.")
        return
    known = feature_network(network)
    known(images)
    if target_class is not None and target_class not in known.classes:
        raise ValueError(unknown("target class", target_class, known.classes))
