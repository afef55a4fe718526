"""States and times, read once: a state is ``(n, ...)`` of real, finite numbers, a time is one number or ``(n,)``.

All states come in here: `as_states` reads any form of array, `finite` refuses NaN and infinity, `in_precision` takes
them to the precision of a model. Functions that take only tensors use `check_dense` to refuse those that are not plain
arrays.
"""

import numbers
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

StatesLike: TypeAlias = np.ndarray | Tensor | Any
"""An array, a tensor, a data frame, a sparse matrix, a memory map, nested lists: whatever holds real numbers."""
_HARDLY_COMPUTED = (torch.uint16, torch.uint32, torch.uint64)


def check_points(x: Tensor, *, name: str, axes: int | None = None, least: int = 1) -> None:
    """Raise unless a tensor holds finite floating-point states, in a dense layout.

    Parameters
    ----------
    x
        States ``(n, ...)``.
    name
        The name of the argument.
    axes
        How many axes it must have; ``None`` for any.
    least
        Fewest states.

    Raises
    ------
    TypeError
        When it is not a tensor, or has another type.
    ValueError
        When there are too few states, other axes, or some are NaN or infinite.

    Examples
    --------
    >>> check_points(torch.zeros(3, 2), name="x", axes=2)
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"Expected `{name}` as a torch tensor; found {type(x).__name__}. Try `torch.as_tensor({name})`."
        )
    if not x.is_floating_point() or x.layout != torch.strided:
        found = x.dtype if x.layout == torch.strided else x.layout
        raise TypeError(f"Expected `{name}` as a dense tensor of floating-point numbers; found {found}.")
    if x.ndim != (axes or max(x.ndim, 1)) or len(x) < least or x[:1].numel() == 0:
        form = "(n, ...)" if axes is None else f"of {axes} axes"
        raise ValueError(f"Expected `{name}` {form}, with {least} states or more; found shape {tuple(x.shape)}.")
    # On the meta device models are built without numbers, to be compared with those of a file.
    bad = 0 if x.is_meta else int((~torch.isfinite(x)).reshape(len(x), -1).any(dim=1).sum())
    if bad:
        raise ValueError(f"Expected finite numbers in `{name}`; {bad} of {len(x)} states hold NaN or infinity.")


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Reshape ``(n,)`` to ``(n, 1, ..., 1)``, so that it multiplies a state ``x`` of shape ``(n, ...)``.

    Examples
    --------
    >>> import torch
    >>> per_sample(torch.zeros(5), torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 1, 1, 1])
    """
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def time_of(t: float | Tensor, x: Tensor) -> Tensor:
    """Give every sample of ``x`` its time: ``t`` is one number or ``(n,)``, the result is ``(n,)``.

    Raises
    ------
    ValueError
        When ``t`` has neither one element nor one per sample, or one is NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> time_of(0.5, torch.zeros(3, 2))
    tensor([0.5000, 0.5000, 0.5000])
    """
    if isinstance(t, Tensor):
        check_dense(t, what="the times")
    times = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if not bool(torch.isfinite(times).all()):
        found = torch.as_tensor(t).reshape(-1)[~torch.isfinite(times.reshape(-1)).to(torch.as_tensor(t).device)]
        raise ValueError(f"Expected finite times; found {found[0].item()} where numbers are {x.dtype}.")
    if times.numel() == 1:
        return times.reshape(1).expand(x.shape[0])
    if times.shape != x.shape[:1]:
        message = f"Expected one time, or one for each of {x.shape[0]} samples; found shape {tuple(times.shape)}."
        raise ValueError(message)
    return times


def as_states(given: StatesLike, *, what: str) -> Tensor:
    """Return states of any form as a dense tensor of real numbers, detached from gradients.

    Every public method that takes states reads them here. The type of the numbers and the shape are kept, except that
    what torch cannot hold or hardly computes with (unsigned integers beyond bytes, extended precision) becomes float64.

    Parameters
    ----------
    given
        An array in any memory layout and byte order, ``np.matrix``, a data frame, a sparse matrix or array, a memory
        map, nested lists, or a tensor, which stays on its device.
    what
        What a message calls the caller's argument, such as ``"`x`"``.

    Raises
    ------
    TypeError
        When it is not an array.
    ValueError
        When it holds text, complex numbers or anything else that is not a real number, or masked entries; when a tensor
        is nested, quantised, or holds nothing (on the meta device).

    Examples
    --------
    >>> as_states(np.arange(6.0).reshape(2, 3)[::-1, ::-1], what="`x`")
    tensor([[5., 4., 3.],
            [2., 1., 0.]], dtype=torch.float64)
    """
    if isinstance(given, Tensor):
        values = given.detach()
        values = values if values.is_nested or values.layout == torch.strided else values.to_dense()
    else:
        values = torch.from_numpy(_array(given, what))
    check_dense(values, what=what)
    return values.double() if values.dtype in _HARDLY_COMPUTED else values


def finite(x: Tensor, *, what: str) -> Tensor:
    """Return states, after checking that every number is finite.

    Raises
    ------
    ValueError
        When some are NaN or infinite; the message says how many.

    Examples
    --------
    >>> finite(torch.zeros(2, 1), what="`x`").shape
    torch.Size([2, 1])
    """
    if bool(torch.isfinite(x).all()):
        return x
    bad = ~torch.isfinite(x).reshape(len(x), -1).all(dim=1) if x.ndim else torch.ones(1, dtype=torch.bool)
    raise ValueError(
        f"Expected finite numbers in {what}; {int(bad.sum())} of {len(bad)} states hold NaN or infinity. Remove or "
        "impute them first."
    )


def extremes(x: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest number; NaN for both if there is one, 0 if there are no numbers.

    Looks at each number once, several times as fast as `torch.isfinite` does and what must then be counted.

    Examples
    --------
    >>> extremes(torch.tensor([[1.0, 3.0], [2.0, -1.0]])), extremes(torch.tensor([1.0, float("nan")]))
    ((-1.0, 3.0), (nan, nan))
    """
    if not x.numel():
        return 0.0, 0.0
    lowest, highest = torch.aminmax(x.detach())
    return float(lowest), float(highest)


def in_precision(x: Tensor, like: Tensor, *, what: str) -> Tensor:
    """Return finite states in the precision and on the device of a tensor, such as a weight of a model.

    Raises
    ------
    ValueError
        When some are NaN or infinite, or beyond the largest number of that precision.

    Examples
    --------
    >>> in_precision(torch.ones(2, 1, dtype=torch.int64), torch.zeros(1), what="`x`").dtype
    torch.float32
    """
    found = finite(x, what=what).to(like)
    if not bool(torch.isfinite(found).all()):
        raise ValueError(
            f"Expected numbers of at most {torch.finfo(like.dtype).max:.2g} in {what}, because this model computes in "
            f"{like.dtype}; found {float(x.double().abs().max()):.2g}. Give states in units of the fit."
        )
    return found


def check_dense(x: Tensor, *, what: str) -> None:
    """Raise for a tensor that is not a plain array of real numbers.

    Raises
    ------
    ValueError
        When it is nested, quantised, sparse, complex, or on the meta device, which holds no numbers.

    Examples
    --------
    >>> check_dense(torch.eye(2).to_sparse(), what="`x0`")
    Traceback (most recent call last):
        ...
    ValueError: Expected a plain tensor in `x0`; found a sparse one. Make it dense first: `.to_dense()`.
    """
    if x.is_complex():
        raise ValueError(f"Expected real numbers in {what}; found {x.dtype}. Take their real part first.")
    kinds = {
        "a nested one. Pad it first: `.to_padded_tensor(...)`": x.is_nested,
        "a quantised one. Read its numbers first: `.dequantize()`": x.is_quantized,
        "one on the meta device, which holds no numbers. Compute it on a real one": x.is_meta,
        "a sparse one. Make it dense first: `.to_dense()`": not x.is_nested and x.layout != torch.strided,
    }
    for kind, found in kinds.items():
        if found:
            raise ValueError(f"Expected a plain tensor in {what}; found {kind}.")


def _array(given: Any, what: str) -> np.ndarray:
    """Return an array that torch can take over: C order, native byte order, writeable, real numbers."""
    if hasattr(given, "obsm"):
        raise TypeError(f"Expected numbers in {what}; found an AnnData. Give a representation: `adata.obsm['X_pca']`.")
    if hasattr(given, "toarray"):  # every sparse format of scipy
        given = given.toarray()
    elif hasattr(given, "to_numpy"):  # pandas, polars
        given = given.to_numpy()
    elif isinstance(given, list | tuple):  # numpy takes no tensors that have gradients
        given = [value.tolist() if isinstance(value, Tensor) and not value.is_meta else value for value in given]
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
