"""Decoders: from states of any representation to genes, by a function of one's own, by regression, or by a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from cellflow.cells.expression import read_expression
from cellflow.cells.snapshots import read_rep
from cellflow.shapes import as_states, in_precision
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData

AT_ONCE = 4096
"""States that are decoded at a time."""
STEP = 1e-2
"""Step of a difference quotient, in units of the states' spread."""


@checked
@dataclass(frozen=True, eq=False)
class Decoder:
    """A map from states to genes, for every ``decode=``: a function, and what the columns of its result are called.

    Parameters
    ----------
    function
        Takes states ``(n, d)`` and returns ``(n, genes)``, in any units. It receives float32: tensors if it is a torch
        module, which is switched to evaluation mode meanwhile, or if ``tensors`` is true; otherwise arrays.
    genes
        The names of the genes, in the order of the columns.
    tensors
        Whether the function takes torch tensors, on the CPU.
    linear
        Whether it is linear up to a constant: then the mean of cells is decoded instead of the cells, which is much
        faster.
    width
        The width ``d`` of the states that it takes; ``None`` if unknown.
    variance, left
        The variance of each gene, and the part that the decoder does not carry, ``(genes,)``; ``None`` if unknown.

    Raises
    ------
    TypeError
        When the function is a class.
    ValueError
        When there are no genes, two have the same name, or an array per gene has another length; when decoding, for
        states or results of another width, or that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> decoder = Decoder(lambda states: states @ np.array([[1.0, 0.0, 2.0]]), genes=["GATA1", "SPI1", "KLF1"])
    >>> decoder.decode(np.ones((2, 1), "float32")).tolist()
    [[1.0, 0.0, 2.0], [1.0, 0.0, 2.0]]
    """

    function: Callable[..., Any]
    genes: Sequence[str]
    tensors: bool = False
    linear: bool = False
    width: int | None = None
    variance: np.ndarray | None = None
    left: np.ndarray | None = None
    chosen: np.ndarray | None = None
    """Which columns of the result are kept; ``None`` for all."""

    def __post_init__(self) -> None:
        if isinstance(self.function, type):
            raise TypeError(f"Expected a function of states; found the class {self.function.__name__}. Make one of it.")
        names = self.all_names
        if not len(names):
            raise ValueError("Expected the names of one gene or more in `genes`; found none.")
        if not names.is_unique:
            twice = names[names.duplicated()][0]
            raise ValueError(f"Two genes of the decoder are called {twice!r}. Give each its own name in `genes`.")
        for what, given in (("variance", self.variance), ("left", self.left)):
            if given is not None and np.shape(given) != (len(names),):
                raise ValueError(
                    f"Expected `{what}` of each of {len(names)} genes; found an array of shape {np.shape(given)}."
                )
        chosen = self.chosen if self.chosen is None else np.asarray(self.chosen)
        if chosen is not None and not (
            chosen.ndim == 1 and chosen.dtype.kind in "iu" and np.isin(chosen, np.arange(len(names))).all()
        ):
            raise ValueError(f"Expected `chosen` as columns, whole numbers from 0 to {len(names) - 1}; found {chosen}.")

    @property
    def all_names(self) -> pd.Index:
        """The names of all columns of the result."""
        return pd.Index([str(name) for name in self.genes])

    @property
    def names(self) -> pd.Index:
        """The names of the genes that are kept."""
        return self.all_names if self.chosen is None else self.all_names[self.chosen]

    @property
    def carried(self) -> float:
        """The share of the variance of the genes that it carries; NaN if unknown."""
        if self.variance is None or self.left is None:
            return float("nan")
        kept = slice(None) if self.chosen is None else self.chosen
        return share_carried(self.variance[kept], self.left[kept])

    @property
    def carried_of(self) -> np.ndarray:
        """The share of the variance of each gene that it carries, ``(genes,)``; NaN if unknown."""
        if self.variance is None or self.left is None:
            return np.full(len(self.names), np.nan)
        kept = slice(None) if self.chosen is None else self.chosen
        return shares_carried(self.variance[kept], self.left[kept])

    def some(self, places: np.ndarray) -> "Decoder":
        """Return the same map to some of its genes, by position."""
        places = np.unique(places)
        return replace(self, chosen=places if self.chosen is None else self.chosen[places])

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the expression ``(n, genes)`` at states ``(n, d)``."""
        states = in_precision(as_states(x, what="`x`"), torch.zeros(()), what="`x`").numpy()
        if states.ndim != 2:
            raise ValueError(f"Expected states (n, d) in `x`; found an array of shape {states.shape}.")
        if self.width is not None and states.shape[1] != self.width:
            raise ValueError(
                f"The decoder takes states of width {self.width}; found {states.shape[1]}, the width of the "
                "representation of the flow. Use a decoder of this representation."
            )
        starts = range(0, max(len(states), 1), AT_ONCE)
        return np.concatenate([self._decoded(states[start : start + AT_ONCE]) for start in starts])

    def change(self, x: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Return the change of expression ``(n, genes)`` per unit of time, for velocities ``(n, d)`` at states."""
        scale = STEP * float(np.std(x, axis=0).max()) or STEP
        length = np.linalg.norm(velocity, axis=1, keepdims=True)
        dt = scale / np.where(length > 0, length, 1.0)
        ahead, behind = (self.decode((x + sign * dt * velocity).astype(np.float32)) for sign in (1, -1))
        return np.asarray((ahead - behind) / (2 * dt), dtype=np.float32)

    def _decoded(self, x: np.ndarray) -> np.ndarray:
        try:
            found = self._call(np.ascontiguousarray(x, dtype=np.float32))
        except Exception as error:
            error.add_note(f"The decoder was given states of shape {x.shape}.")
            raise
        values = as_states(found, what="what the decoder returned").cpu().numpy()
        expected = (len(x), len(self.genes))
        if values.shape != expected:
            raise ValueError(
                f"Expected the decoder to return {expected}, a number for each of its {expected[1]} genes; found "
                f"{values.shape}. Name the genes in the order of its columns: `cf.cells.Decoder(function, genes=...)`."
            )
        bad = ~np.isfinite(values)
        if bad.any():
            gene = self.all_names[int(bad.any(axis=0).argmax())]
            raise ValueError(
                f"The decoder returned NaN or infinity for {bad.any(axis=1).sum()} of {len(x)} states, first of gene "
                f"{gene!r}. Check that it was made for this representation."
            )
        kept = values if self.chosen is None else values[:, self.chosen]
        return np.asarray(kept, dtype=np.float32)

    def _call(self, x: np.ndarray) -> Any:
        function = self.function
        if not isinstance(function, torch.nn.Module):
            with torch.no_grad():
                return function(torch.from_numpy(x) if self.tensors else x)
        weight = next(function.parameters(), torch.zeros(()))
        modes = {module: module.training for module in function.modules()}
        try:
            with torch.no_grad():
                return function.eval()(torch.from_numpy(x).to(weight))
        finally:
            for module, training in modes.items():
                module.training = training


def share_carried(variance: np.ndarray, left: np.ndarray) -> float:
    """Return the share of the variance of genes that is carried; NaN if there is no variance.

    Examples
    --------
    >>> share_carried(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    0.5
    """
    total = float(variance.sum())
    return 1 - float(left.sum()) / total if total > 0 else float("nan")


def shares_carried(variance: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the same of each gene ``(genes,)``.

    Examples
    --------
    >>> shares_carried(np.array([1.0, 4.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    array([0.  , 0.75,  nan])
    """
    known = variance > 0
    return np.where(known, 1 - left / np.where(known, variance, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Affine:
    """A linear map: ``x @ matrix + offset``, with ``matrix`` ``(d, genes)``."""

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return ``(n, genes)`` at states ``(n, d)``."""
        return np.asarray(x @ self.matrix + self.offset)


@checked
def fit_decoder(
    adata: "AnnData",
    *,
    rep: str = "X_pca",
    n_pcs: int | None = None,
    layer: str | None = None,
    use_raw: bool = False,
) -> Decoder:
    """Fit a linear decoder by least squares: to any expression, from any representation of the same cells.

    For files whose ``X`` has changed since the PCA, for genes that were not in the PCA, and for representations without
    loadings, such as those of Harmony. On the components and the expression of one PCA it gives its loadings.

    Parameters
    ----------
    adata
        Cells with both; more than the representation is wide.
    rep
        Key of the representation in ``obsm``.
    n_pcs
        How many of its first columns the flow uses; ``None`` for all.
    layer, use_raw
        Which expression: a layer, or ``raw``; by default ``X``.

    Returns
    -------
    Decoder
        For ``decode=``; its ``carried`` is the share of the variance of all genes that it carries.

    Raises
    ------
    KeyError, ValueError
        When the representation or expression is missing or not finite, or there are too few cells.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata, n_comps=10)
    >>> decoder = cf.cells.fit_decoder(adata, layer="fpkm")
    >>> decoder.decode(adata.obsm["X_pca"][:3]).shape
    (3, 2002)
    """
    x = read_rep(adata, rep, n_pcs=n_pcs).astype(np.float64)
    expression = read_expression(adata, layer=layer, use_raw=use_raw)
    n, width = x.shape
    if n <= width:
        raise ValueError(f"Expected more than {width} cells, the width of {rep!r}, to fit a decoder; found {n}.")
    middle = x.mean(axis=0)
    scores, rows = x - middle, np.arange(n)
    genes = len(expression.names)
    total, squares, products = np.zeros(genes), np.zeros(genes), np.zeros((genes, width))
    for some, values in expression.parts(rows):
        square = values.multiply(values) if hasattr(values, "multiply") else np.square(values)
        total += np.asarray(values.sum(axis=0)).ravel()
        squares += np.asarray(square.sum(axis=0)).ravel()
        products += np.asarray(values.T @ scores[some])
    if not np.isfinite(squares).all():
        raise ValueError(f"`{expression.where}` holds NaN or infinity. Remove or impute these genes first.")
    matrix = np.linalg.lstsq(scores.T @ scores, products.T, rcond=1e-10)[0]
    variance = np.maximum(squares - total**2 / n, 0)
    left = np.maximum(variance - np.einsum("dg,gd->g", matrix, products), 0)
    affine = Affine(matrix, total / n - middle @ matrix)
    names = [str(name) for name in expression.names]
    return Decoder(affine, names, linear=True, width=width, variance=variance / n, left=left / n)


@checked
def scvi_decoder(model: Any, *, batch: str | None = None, target_sum: float = 1e4) -> Decoder:
    """Return the decoder of a trained model of scvi-tools, such as ``SCVI`` or ``LinearSCVI``.

    Fit the flow on ``adata.obsm["X_scVI"] = model.get_latent_representation()``, and give this as ``decode=``. The
    model is not trained further.

    Parameters
    ----------
    model
        The model: ``model.module.generative`` decodes, and ``model.adata`` names the genes.
    batch
        The batch to decode as, by its name; ``None`` for the first.
    target_sum
        Total counts of a cell.

    Returns
    -------
    Decoder
        Of ``log(1 + counts)``, where the counts of a cell sum to ``target_sum``, as after ``sc.pp.normalize_total`` and
        ``sc.pp.log1p``.

    Raises
    ------
    TypeError
        When it is not such a model.
    ValueError
        When there is no such batch.

    Examples
    --------
    With scvi-tools installed: ``model = scvi.model.SCVI.load("model", adata)``. Here a stand-in:

    >>> import anndata, numpy as np, pandas as pd, torch
    >>> from types import SimpleNamespace as Some
    >>> module = torch.nn.Linear(2, 3)
    >>> module.generative = lambda z, library, batch_index: {"px": Some(scale=module(z).softmax(-1))}
    >>> names = pd.DataFrame(index=["GATA1", "SPI1", "KLF1"])
    >>> model = Some(module=module, adata=anndata.AnnData(np.zeros((4, 3), "float32"), var=names))
    >>> scvi_decoder(model).decode(np.zeros((5, 2), "float32")).shape
    (5, 3)
    """
    generative = getattr(getattr(model, "module", None), "generative", None)
    if generative is None or not isinstance(model.module, torch.nn.Module):
        raise TypeError(f"Expected a model of scvi-tools, with `module.generative`; found {type(model).__name__}.")
    if not 0 < target_sum < float("inf"):
        raise ValueError(f"Expected target_sum > 0; found {target_sum}.")
    code = 0 if batch is None else _code_of_batch(model, batch)
    weight = next(model.module.parameters())

    def decoded(z: torch.Tensor) -> torch.Tensor:
        z = z.to(weight)
        library = torch.full_like(z[:, :1], float(np.log(target_sum)))
        which = torch.full_like(z[:, :1], code, dtype=torch.long)
        training = model.module.training
        model.module.eval()
        try:
            found = generative(z=z, library=library, batch_index=which)
        finally:
            model.module.train(training)
        shares = found["px"].scale if "px" in found else found["px_scale"]
        return torch.log1p(target_sum * shares)

    width = getattr(model.module, "n_latent", None)
    return Decoder(decoded, [str(name) for name in model.adata.var_names], tensors=True, width=width)


def _code_of_batch(model: Any, batch: str) -> int:
    if not hasattr(model, "adata_manager"):
        raise TypeError(
            f"Expected a model of scvi-tools, whose `adata_manager` knows its batches; found {model!r:.60}."
        )
    known = [str(name) for name in model.adata_manager.get_state_registry("batch").categorical_mapping]
    if batch not in known:
        raise ValueError(f"The model knows no batch {batch!r}. There are {', '.join(map(repr, known))}.")
    return known.index(batch)
