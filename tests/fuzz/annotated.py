"""AnnDatas with something wrong or unusual about them."""

from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from conftest import make_cells


def small() -> anndata.AnnData:
    """Two time points of twelve cells each, with what the tools read: types, lineages, weights, genes, layers."""
    adata = make_cells(times=(0.0, 1.0, 3.0), sizes=(9, 8, 7), dim=3)
    draw = np.random.default_rng(1)
    n = adata.n_obs
    obs = adata.obs.assign(
        kind=pd.Categorical(np.where(np.arange(n) % 2, "a", "b")),
        clone=[f"c{k % 5}" for k in range(n)],
        weight=draw.random(n) + 0.5,
        rate=draw.random(n),
        many=[f"m{k}" for k in range(n)],
    )
    x = draw.random((n, 10)).astype(np.float32)
    var = pd.DataFrame(index=["MCM5", "PCNA", "TYMS", "CDK1", "TOP2A", "BAX", "FAS", "CASP3", "CASP8", "TP53"])
    return anndata.AnnData(
        X=x, obs=obs, var=var, obsm={"X_pca": adata.obsm["X_pca"], "X_umap": adata.obsm["X_pca"][:, :2].copy()}
    )


def with_times(change: Callable[[pd.Series], object]) -> Callable[[anndata.AnnData], anndata.AnnData]:
    def changed(adata: anndata.AnnData) -> anndata.AnnData:
        adata.obs["day"] = change(adata.obs["day"])
        return adata

    return changed


def with_rep(change: Callable[[np.ndarray], object]) -> Callable[[anndata.AnnData], anndata.AnnData]:
    def changed(adata: anndata.AnnData) -> anndata.AnnData:
        adata.obsm["X_pca"] = change(adata.obsm["X_pca"].copy())
        return adata

    return changed


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def changed(x: np.ndarray) -> np.ndarray:
        x[0, 0] = value
        return x

    return changed


def without(part: str, key: str) -> Callable[[anndata.AnnData], anndata.AnnData]:
    def changed(adata: anndata.AnnData) -> anndata.AnnData:
        del getattr(adata, part)[key]
        return adata

    return changed


def with_column(name: str, value: Callable[[anndata.AnnData], object]) -> Callable[[anndata.AnnData], anndata.AnnData]:
    def changed(adata: anndata.AnnData) -> anndata.AnnData:
        adata.obs[name] = value(adata)
        return adata

    return changed


def renamed(adata: anndata.AnnData, names: list[str]) -> anndata.AnnData:
    adata.obs_names = names
    return adata


def first_missing(adata: anndata.AnnData) -> list[object]:
    return [None, *adata.obs["kind"].astype(str)[1:]]


ANNDATAS: dict[str, Callable[[anndata.AnnData], object]] = {
    "no time": without("obs", "day"),
    "no representation": without("obsm", "X_pca"),
    "no umap": without("obsm", "X_umap"),
    "no kinds": without("obs", "kind"),
    "a time is nan": with_times(lambda t: t.where(t.index != "cell0")),
    "times all nan": with_times(lambda t: t * np.nan),
    "one time": with_times(lambda t: 0 * t),
    "times of text": with_times(lambda t: "later"),
    "times in words": with_times(lambda t: "d" + t.astype(str)),
    "times as text": with_times(lambda t: t.astype(str)),
    "times of categories": with_times(lambda t: t.astype(str).astype("category")),
    "inf time": with_times(lambda t: t.replace(3.0, np.inf)),
    "times apart": with_times(lambda t: t * 1e15),
    "times together": with_times(lambda t: t * 1e-15),
    "times before 0": with_times(lambda t: t - 5),
    "every cell its time": with_times(lambda t: np.arange(len(t)) / 7),
    "times as durations": with_times(lambda t: pd.to_timedelta(t, unit="D")),
    "times as dates": with_times(lambda t: pd.to_datetime("2020-01-01") + pd.to_timedelta(t, unit="D")),
    "times as truth": with_times(lambda t: t > 0),
    "times as objects": with_times(lambda t: t.astype(object)),
    "whole times": with_times(lambda t: t.astype("Int64")),
    "another time": with_times(lambda t: t + 100),
    "nan in states": with_rep(put(np.nan)),
    "inf in states": with_rep(put(np.inf)),
    "one far cell": with_rep(put(1e12)),
    "states all zero": with_rep(lambda x: 0 * x),
    "huge states": with_rep(lambda x: x * 1e25),
    "tiny states": with_rep(lambda x: x * 1e-25),
    "double states": with_rep(lambda x: x.astype(float)),
    "whole states": with_rep(lambda x: x.astype(int)),
    "half states": with_rep(lambda x: x.astype(np.float16)),
    "one column": with_rep(lambda x: x[:, :1]),
    "no columns": with_rep(lambda x: x[:, :0]),
    "a column more": with_rep(lambda x: np.hstack([x, x[:, :1]])),
    "sparse states": with_rep(sparse.csr_matrix),
    "states of a frame": lambda a: with_rep(lambda x: pd.DataFrame(x, index=a.obs_names))(a),
    "columns of very different scales": with_rep(lambda x: x * [1, 1e8, 1]),
    "states of text": lambda a: with_rep(lambda x: pd.DataFrame(x.astype(str), index=a.obs_names))(a),
    "states alike": with_rep(lambda x: np.ones_like(x)),
    "a view": lambda a: a[::2],
    "another order": lambda a: a[::-1].copy(),
    "no cells": lambda a: a[:0].copy(),
    "one cell": lambda a: a[:1].copy(),
    "one cell at a time": lambda a: a[
        ~((a.obs["day"] == 0) & (np.arange(a.n_obs) > np.flatnonzero(a.obs["day"] == 0)[0]))
    ].copy(),
    "two times": lambda a: a[a.obs["day"] < 2].copy(),
    "no genes": lambda a: a[:, :0].copy(),
    "one gene": lambda a: a[:, :1].copy(),
    "duplicate names": lambda a: renamed(a, ["x", "x", *a.obs_names[2:]]),
    "numbers as names": lambda a: renamed(a, [str(k) for k in range(a.n_obs)]),
    "kinds missing": with_column("kind", first_missing),
    "kinds all missing": with_column("kind", lambda a: [None] * a.n_obs),
    "kinds of numbers": with_column("kind", lambda a: np.arange(a.n_obs) % 3),
    "one kind": with_column("kind", lambda a: "a"),
    "kinds unused": with_column("kind", lambda a: a.obs["kind"].cat.add_categories(["c"])),
    "kinds of markup": with_column("kind", lambda a: "<b>$x_1^{"),
    "weights nan": with_column("weight", lambda a: np.nan),
    "weights below 0": with_column("weight", lambda a: -1.0),
    "weights zero": with_column("weight", lambda a: 0.0),
    "weights of text": with_column("weight", lambda a: "a"),
    "rates inf": with_column("rate", lambda a: np.inf),
    "sparse genes": lambda a: anndata.AnnData(sparse.csr_matrix(a.X), obs=a.obs, var=a.var, obsm=a.obsm),
    "nan genes": lambda a: anndata.AnnData(a.X * np.nan, obs=a.obs, var=a.var, obsm=a.obsm),
    "no X": lambda a: anndata.AnnData(obs=a.obs, obsm=a.obsm),
    "a frame of cells": lambda a: a.obs,
    "its states": lambda a: a.obsm["X_pca"],
    "nothing in it": lambda a: anndata.AnnData(),
}
