"""States: points in the space of a representation, in whatever form a caller holds them."""

import numbers
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

StatesLike: TypeAlias = np.ndarray | Tensor | Any
"""An array, a tensor, a data frame, a sparse matrix, a memory map, nested lists: whatever holds real numbers."""


def as_states(given: StatesLike, *, what: str) -> Tensor:
    """Return states of any form as a dense tensor of real numbers that no gradient flows through.

    Every public method that takes states reads them here. The type of the numbers and the shape are kept, except that
    what torch cannot hold (unsigned integers beyond bytes, extended precision) becomes float64.

    Parameters
    ----------
    given
        An array in any memory layout and byte order, ``np.matrix``, a data frame, a sparse matrix or array, a memory
        map, nested lists, or a tensor, which stays on its device.
    what
        How the caller's argument is called in a message, such as ``"`x`"``.

    Raises
    ------
    TypeError
        When it is no array.
    ValueError
        When it holds text, complex numbers or anything else that is not a real number, or masked entries.

    Examples
    --------
    >>> as_states(np.arange(6.0).reshape(2, 3)[::-1, ::-1], what="`x`")
    tensor([[5., 4., 3.],
            [2., 1., 0.]], dtype=torch.float64)
    """
    if isinstance(given, Tensor):
        values = given.detach()
        values = values if values.layout == torch.strided else values.to_dense()
    else:
        values = torch.from_numpy(_array(given, what))
    if values.is_complex():
        raise ValueError(f"Expected real numbers in {what}; found {values.dtype}. Take their real part first.")
    return values


def _array(given: Any, what: str) -> np.ndarray:
    """Return an array that torch can take over: C order, native byte order, writeable, real numbers."""
    if hasattr(given, "toarray"):  # every sparse format of scipy
        given = given.toarray()
    elif hasattr(given, "to_numpy"):  # pandas, polars
        given = given.to_numpy()
    if np.ma.is_masked(given):
        raise ValueError(f"Expected every number in {what} to be known; some are masked. Impute or remove these first.")
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"Expected an array of numbers in {what}; found rows of different lengths.") from error
    if array.dtype == object and array.ndim and all(isinstance(value, numbers.Real) for value in array.flat):
        array = array.astype(np.float64)  # columns of different types, brought together by pandas
    if array.dtype.kind not in "biufc" or not array.ndim:
        found = f"{array.dtype} of shape {array.shape}" if array.ndim else type(given).__name__
        message = f"Expected numbers in {what}, states of shape (n, ...); found {found}."
        raise (ValueError if array.ndim else TypeError)(message)
    dtype = array.dtype.newbyteorder("=")
    if (dtype.kind == "u" and dtype.itemsize > 1) or (dtype.kind == "f" and dtype.itemsize > 8):
        dtype = np.dtype(np.float64)
    # numpy calls an array of one row C-contiguous whatever the sign of its strides; torch takes none below 0.
    ready = array.flags.c_contiguous and array.flags.writeable and min(array.strides) >= 0 and array.dtype == dtype
    return array if ready else np.array(array, dtype=dtype, order="C")
