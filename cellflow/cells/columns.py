"""Columns of ``obs``: groups, labels, weights and other numbers, in every form in which pandas holds them."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.treatments import coded

if TYPE_CHECKING:
    from anndata import AnnData

NAMED = 5
"""Offending values that a message shows."""
MOST_NUMBERS, MOST_FRACTIONS = 100, 30
"""Different numbers of a column that may still be names of groups: whole ones, and others."""


def read_column(adata: "AnnData", name: str, *, setting: str) -> pd.Series:
    """Return one column of ``obs``.

    Parameters
    ----------
    adata
        The cells.
    name
        Name of the column.
    setting
        The setting that names it, for the message.

    Raises
    ------
    TypeError
        When it is not a name.
    KeyError
        When the column does not exist.
    ValueError
        When there are two.

    Examples
    --------
    >>> import cellflow as cf
    >>> read_column(cf.datasets.hsmm(), "hours", setting="time_key").unique()
    array([ 0, 24, 48, 72])
    """
    if not isinstance(name, str):
        raise TypeError(f"Expected the name of one column of `adata.obs` in `{setting}`; found {name!r}.")
    if name not in adata.obs:
        raise KeyError(f"No `adata.obs[{name!r}]`. Available: {list(adata.obs.columns)}. Set `{setting}`.")
    column: pd.Series = adata.obs[name]
    if column.ndim > 1:
        raise ValueError(f"`adata.obs` has {column.shape[1]} columns called {name!r}. Rename all but one.")
    return column


def read_labels(adata: "AnnData", column: str, *, setting: str) -> pd.Series:
    """Return the label of every cell as text, missing (NaN) for cells without one; labels may have any type.

    Parameters
    ----------
    adata, column, setting
        As for `read_column`.

    Raises
    ------
    TypeError, KeyError
        As for `read_column`.
    ValueError
        When they are numbers that differ from cell to cell, such as a pseudotime.

    Examples
    --------
    >>> import cellflow as cf
    >>> sorted(read_labels(cf.datasets.branching(seed=0), "fate", setting="groupby").unique())[:2]
    ['lower', 'upper']
    """
    given = read_column(adata, column, setting=setting)
    dtype = given.dtype.categories.dtype if isinstance(given.dtype, pd.CategoricalDtype) else given.dtype
    different = given.nunique()
    if pd.api.types.is_float_dtype(dtype) and different > max(2, len(given) / 2):
        raise ValueError(
            f"`adata.obs[{column!r}]` holds {different} different numbers for {len(given)} cells: no groups. Name a "
            f"column with labels in `{setting}`, or bin it first, for example with "
            f"`adata.obs['part'] = pd.cut(adata.obs[{column!r}], 5).astype(str)`."
        )
    labels = given.astype(object)
    return labels.where(labels.isna(), labels.astype(str))


def read_kinds(adata: "AnnData", column: str, *, setting: str, instead: str = "") -> pd.Series:
    """Return the label of every cell as `read_labels` does, after checking that they are few enough to be groups.

    Parameters
    ----------
    adata, column, setting
        As for `read_column`.
    instead
        What else the user can do, for the message.

    Raises
    ------
    TypeError, KeyError
        As for `read_column`.
    ValueError
        When they are numbers of a continuous quantity. Categories are groups, whatever they are called.

    Examples
    --------
    >>> import cellflow as cf
    >>> read_kinds(cf.datasets.hsmm(), "hours", setting="groupby").nunique()
    4
    """
    given = read_column(adata, column, setting=setting)
    kinds, different = pd.api.types, given.nunique()
    if kinds.is_integer_dtype(given.dtype) or kinds.is_float_dtype(given.dtype):
        numbers = given.dropna().to_numpy(dtype=np.float64)
        whole = bool((numbers == np.round(numbers)).all())
        if different > (MOST_NUMBERS if whole else MOST_FRACTIONS):
            raise ValueError(
                f"`adata.obs[{column!r}]` holds {different} different numbers for {len(given)} cells: no groups. Name "
                f"a column with labels in `{setting}`, or bin it first, for example with "
                f"`adata.obs['part'] = pd.cut(adata.obs[{column!r}], 5).astype(str)`.{instead}"
            )
    return read_labels(adata, column, setting=setting)


def read_groups(adata: "AnnData", column: str, *, setting: str) -> np.ndarray:
    """Return the name of the group of every cell, ``(n,)``.

    Parameters
    ----------
    adata, column, setting
        As for `read_column`.

    Raises
    ------
    TypeError, KeyError
        As for `read_column`.
    ValueError
        When a cell has no group.

    Examples
    --------
    >>> import cellflow as cf
    >>> np.unique(read_groups(cf.datasets.branching(seed=0), "fate", setting="within")).size > 1
    True
    """
    labels = read_labels(adata, column, setting=setting)
    missing = int(labels.isna().sum())
    if missing:
        raise ValueError(
            f"{missing} of {adata.n_obs} cells have no group in `adata.obs[{column!r}]`. Leave them out first: "
            f"`adata = adata[adata.obs[{column!r}].notna()].copy()`, or give them their own group."
        )
    codes, names = coded(adata.obs[column])  # 1 and 1.0 are one group, as they are one treatment
    found: np.ndarray = np.array(names, dtype=str)[codes]
    return found


def read_weights(adata: "AnnData", column: str) -> np.ndarray:
    """Return the sampling weight of every cell as float64, ``(n,)``.

    Raises
    ------
    TypeError, KeyError
        As for `read_column`.
    ValueError
        When a weight is negative or not a finite number.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> adata = anndata.AnnData(np.zeros((2, 1), "float32"), obs=pd.DataFrame({"w": [1, 3]}, index=["a", "b"]))
    >>> read_weights(adata, "w")
    array([1., 3.])
    """
    weights = read_numbers(adata, column, setting="weight_key")
    if (weights < 0).any():
        raise ValueError(
            f"{(weights < 0).sum()} of {adata.n_obs} weights in `adata.obs[{column!r}]` are negative. A weight is how "
            "many cells of the population a cell stands for; 0 for none."
        )
    return weights


def read_numbers(adata: "AnnData", column: str, *, setting: str) -> np.ndarray:
    """Return a finite number for every cell as float64, ``(n,)``, from any numeric type of pandas.

    Parameters
    ----------
    adata, column, setting
        As for `read_column`.

    Raises
    ------
    TypeError, KeyError
        As for `read_column`.
    ValueError
        When a value is missing or not a finite number; the message shows which.

    Examples
    --------
    >>> import cellflow as cf
    >>> read_numbers(cf.datasets.branching(seed=0), "growth_rate", setting="prior_key").dtype
    dtype('float64')
    """
    given, where = read_column(adata, column, setting=setting), f"`adata.obs[{column!r}]`"
    dtype = given.dtype.categories.dtype if isinstance(given.dtype, pd.CategoricalDtype) else given.dtype
    kinds = pd.api.types
    if any(no(dtype) for no in (kinds.is_complex_dtype, kinds.is_datetime64_any_dtype, kinds.is_timedelta64_dtype)):
        raise ValueError(f"Expected numbers in {where}, the `{setting}`; found {dtype}.")
    values = given.astype(object)
    numbers: np.ndarray = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    text = values[np.isnan(numbers) & values.notna().to_numpy()]
    if len(text):
        shown = ", ".join(map(repr, text.unique()[:NAMED]))
        raise ValueError(f"Expected numbers in {where}, the `{setting}`; found {shown} at {len(text)} cells.")
    bad = int((~np.isfinite(numbers)).sum())
    if bad:
        neutral = 0.0 if setting == "prior_key" else 1.0
        raise ValueError(
            f"{bad} of {adata.n_obs} cells have no finite number in {where}. Fill these in, for example with "
            f"`adata.obs[{column!r}] = adata.obs[{column!r}].astype(float).replace(np.inf, np.nan).fillna({neutral})`, "
            f"or leave the cells out first: `adata = adata[np.isfinite(adata.obs[{column!r}].astype(float))].copy()`."
        )
    return numbers
