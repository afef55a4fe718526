"""The kernel of an entropic problem in blocks of rows, cached as far as memory allows, and exact sums over it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cellflow.couplings.exponents import ALL, Chosen, Exponents
from cellflow.couplings.plan import AT_ONCE, row_slices


class Kernel:
    """Blocks of ``exp(f_i + g_j - C_ij / epsilon)`` at potentials in units of epsilon, those of some earlier iteration.

    Parameters
    ----------
    exponents
        What its blocks are made of.
    shape
        The number of source points and of target points.
    f, g
        The potentials ``(n,)`` and ``(m,)``.
    kept
        Bytes of blocks that are kept from one pass to the next; all others are recomputed.
    """

    def __init__(self, exponents: Exponents, shape: tuple[int, int], f: Tensor, g: Tensor, *, kept: int) -> None:
        self.exponents, self._shape, self.kept = exponents, shape, kept
        self.take(f, g)

    def take(self, f: Tensor, g: Tensor) -> None:
        """Switch to other potentials; `f` and `g` are then these, to the precision of the blocks."""
        self.f, self.g = self.exponents.rounded((f, g))
        self._blocks: dict[int, Tensor] = {}
        self._bytes = 0

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of ``k`` rows and their blocks ``(k, m)``."""
        for rows in row_slices(*self._shape, AT_ONCE):
            block = self._blocks.get(rows.start)
            if block is None:
                block = self.exponents(rows, ALL, self.f, self.g).exp_()
                if self._bytes + block.nbytes <= self.kept:
                    self._blocks[rows.start] = block
                    self._bytes += block.nbytes
            yield rows, block


def log_row_sums(exponents: Exponents, rows: Chosen, r: Tensor, c: Tensor) -> Tensor:
    """Return the logarithm of the sum over all columns of some rows of ``exp(exponents)``, float64.

    Examples
    --------
    >>> import torch
    >>> from cellflow.couplings import SquaredEuclidean
    >>> x = torch.tensor([[0.0], [2.0]])
    >>> log_row_sums(Exponents(x, x, SquaredEuclidean(), 2.0), ALL, torch.zeros(2), torch.tensor([5.0, 7.0]))
    tensor([5.6931, 7.0181], dtype=torch.float64)
    """
    places = torch.arange(len(r), device=r.device)[rows]
    found = [_log_sums(exponents(places[some], ALL, r, c), dim=1) for some in row_slices(len(places), len(c), AT_ONCE)]
    return torch.cat(found)


def log_column_sums(exponents: Exponents, columns: Chosen, r: Tensor, c: Tensor) -> Tensor:
    """Return the logarithm of the sum over all rows of some columns of the exponentials, as `log_row_sums`."""
    places = torch.arange(len(c), device=c.device)[columns]
    found = torch.full((len(places),), -torch.inf, dtype=torch.float64, device=c.device)
    for rows in row_slices(len(r), len(places), AT_ONCE):
        found = torch.logaddexp(found, _log_sums(exponents(rows, places, r, c), dim=0))
    return found


def _log_sums(block: Tensor, dim: int) -> Tensor:
    """Return the log-sum-exp of a block that may be overwritten, in the time of its exponentials."""
    most = block.amax(dim=dim, keepdim=True)
    return block.sub_(most).exp_().sum(dim=dim).double().log_() + most.squeeze(dim)
