"""Checks of the input of a coupling: two clouds, their weights and costs; and the memory that solving takes."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost
from cellflow.shapes import StatesLike, as_states, check_dense, extremes

PAIR_MEMORY = 48
"""Bytes for each pair that a dense solver holds at its peak, as measured: costs, a copy or a kernel, the plan, and
what is in work, six numbers of eight bytes."""

MOST_BYTES = 2**28
"""Most bytes of one array of pairs: what holds a number for each of n x m pairs is walked in blocks of rows above."""


def dense_memory(n: int, m: int) -> int:
    """Return the bytes that a dense solver takes for ``n`` and ``m`` points.

    Examples
    --------
    >>> dense_memory(1000, 1000)
    48000000
    """
    return PAIR_MEMORY * n * m


def check_clouds(x0: Tensor, x1: Tensor, names: tuple[str, str] = ("x0", "x1")) -> None:
    """Raise unless ``x0`` and ``x1`` are clouds ``(n, ...)`` and ``(m, ...)`` of comparable, finite states."""
    for name, x in zip(names, (x0, x1), strict=True):
        _check_cloud(name, x)
    if x0.shape[1:] != x1.shape[1:]:
        found = " and ".join(f"{tuple(x.shape[1:])} in {name}" for name, x in zip(names, (x0, x1), strict=True))
        message = f"Expected states of one shape; found {found}. Bring both clouds into the same representation."
        raise ValueError(message)
    if x0.device != x1.device:
        raise ValueError(f"Expected both clouds on one device; found x0 on {x0.device} and x1 on {x1.device}.")


def weights_of(weights: StatesLike | None, x: Tensor, *, name: str) -> Tensor:
    """Return ``(n,)`` float64 weights for the ``n`` points of ``x``: those given, in any form, or 1/n each.

    Examples
    --------
    >>> import torch
    >>> weights_of(None, torch.zeros(4, 2), name="a")
    tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    n = len(x) if x.ndim else 0
    if n == 0:
        raise ValueError(f"Expected points (n, ...) to weigh by `{name}`; found shape {tuple(x.shape)}.")
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=x.device)
    weights = as_states(weights, what=f"`{name}`").to(x.device).double()
    if weights.shape != (n,):
        raise ValueError(f"Expected `{name}` to hold {n} weights, one per point; found shape {tuple(weights.shape)}.")
    if not torch.isfinite(weights.sum()) or (weights < 0).any() or weights.sum() == 0:
        lowest, highest = float(weights.min()), float(weights.max())
        message = f"Expected `{name}` finite, nonnegative and not all zero; found values from {lowest} to {highest}."
        raise ValueError(message)
    return weights


def cost_matrix(cost: Cost, x0: Tensor, x1: Tensor) -> Tensor:
    """Return the ``(n, m)`` float64 costs of joining each pair, refusing costs that no solver can use."""
    matrix = cost(x0, x1)
    expected = (x0.shape[0], x1.shape[0])
    if not isinstance(matrix, Tensor) or matrix.is_complex():
        raise TypeError(f"Expected {cost} to return a tensor of real costs; found {type(matrix).__name__}.")
    if tuple(matrix.shape) != expected:
        raise ValueError(f"Expected {cost} to return shape {expected}; found {tuple(matrix.shape)}.")
    lowest, highest = extremes(matrix)
    if not -math.inf < lowest <= highest < math.inf:
        far = max(float(x.detach().double().abs().max()) for x in (x0, x1) if x.numel())
        raise ValueError(
            f"Expected finite costs; {cost} returned NaN or infinity for some pairs of states of up to {far:.2g}. "
            + ("Rescale the states: their squares exceed double precision." if far > 1e150 else "Fix the cost.")
        )
    return matrix.detach().double()


def cost_blocks(cost: Cost, x0: Tensor, x1: Tensor, *, most: int = MOST_BYTES) -> Iterator[tuple[slice, Tensor]]:
    """Yield the costs of `cost_matrix` a few rows at a time: a slice of ``k`` rows, and their ``(k, m)`` float64 costs.

    Equal to the rows of the whole matrix up to rounding, if the cost of a pair depends on its two points only.

    Parameters
    ----------
    cost
        Cost of matching two points; called with ``k`` points of ``x0`` and all of ``x1``.
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    most
        Maximum size of a block in bytes; a block has at least one row.

    Examples
    --------
    >>> import torch
    >>> from cellflow.couplings import SquaredEuclidean
    >>> x0, x1 = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [3.0]])
    >>> for rows, costs in cost_blocks(SquaredEuclidean(), x0, x1, most=32):
    ...     print(rows, costs.tolist())
    slice(0, 2, None) [[0.0, 9.0], [1.0, 4.0]]
    slice(2, 3, None) [[4.0, 1.0]]
    """
    n, k = len(x0), max(1, most // (8 * len(x1)))
    for first in range(0, n, k):
        rows = slice(first, min(n, first + k))
        yield rows, cost_matrix(cost, x0[rows], x1)


def _check_cloud(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        message = f"Expected `{name}` as a torch tensor; found {type(x).__name__}. Try torch.as_tensor({name})."
        raise TypeError(message)
    check_dense(x, what=f"`{name}`")
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"Expected `{name}` to hold at least one point (n, ...); found shape {tuple(x.shape)}.")
    bad = (~torch.isfinite(x)).reshape(x.shape[0], -1).any(dim=1)
    if bad.any():
        message = (
            f"Expected finite states; {int(bad.sum())} of {x.shape[0]} points in `{name}` hold NaN or infinity. "
            "Remove or impute them first."
        )
        raise ValueError(message)
