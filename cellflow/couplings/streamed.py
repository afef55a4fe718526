"""The dual potentials of entropic transport between clouds whose pairs do not fit into memory."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cellflow.couplings import flash
from cellflow.couplings.cost import Cost
from cellflow.couplings.exponents import ALL, Exponents
from cellflow.couplings.kernel import Kernel, log_column_sums, log_row_sums
from cellflow.couplings.plan import AT_ONCE
from cellflow.couplings.potentials import Potentials, Relaxed, advance
from cellflow.couplings.potentials_plan import PotentialsPlan
from cellflow.couplings.problem import MOST_BYTES, cost_matrix
from cellflow.couplings.relative import sampled

KERNEL_BYTES = 2**31
"""Most bytes of the kernel that are kept from one iteration to the next: up to 540 million pairs are computed once,
of more the rest at each iteration, which takes up to ten times as long."""
POINT_BYTES = 2000
"""Bytes for each point: two copies of fifty numbers in double precision and one in single, and potentials."""
BLOCKS = 6
"""Blocks that are in work at once, as measured."""
SUBSAMPLE = 2000
"""Points of each cloud from whose potentials those of all begin ..."""
SUBSAMPLE_ITERATIONS = 200
"""... after at most so many iterations."""
SINGLE = 2e-5
"""Share of misplaced mass that single precision tells: below, double precision goes on."""
_DRIFT = 20.0  # as in `potentials`; exp(2 x 20) times the smallest number of single precision is 1e-21
_FLOOR = 1e-12  # a sum above has lost less than a part in 10^9 to terms below the smallest number


def streamed_memory(n: int, m: int, kept: int) -> int:
    """Return the bytes that solving for ``n`` and ``m`` points takes without an array of all pairs.

    The points, in double precision and of up to fifty dimensions, sums over runs of the plan, and blocks.

    Parameters
    ----------
    n, m
        The number of points.
    kept
        Bytes of the kernel that are kept.

    Examples
    --------
    >>> streamed_memory(20_000, 22_000, 0) < 2**29
    True
    """
    runs = min(MOST_BYTES, 8 * n * math.isqrt(m))
    return POINT_BYTES * (n + m) + runs + min(kept, 8 * n * m) + BLOCKS * AT_ONCE


class StreamedPotentials:
    """The two potentials while they are being solved for, without an array of all pairs.

    An iteration walks the kernel once, in blocks of rows: a block gives the source potentials of its rows, and with
    these its part of the sums over the columns. Blocks are in single precision, taken at the potentials of an earlier
    iteration, so that what is rounded are numbers near those that count; sums over blocks are in double precision. Once
    the error is that of the tolerance, iterations go on in double precision, by which convergence is judged. The
    potentials begin at those of a subsample, by one update from its points to all; on a GPU where flash-sinkhorn is
    installed, they are first improved by its kernels (`flash`).

    Parameters
    ----------
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    cost
        Cost of matching two points.
    a, b, epsilon, relaxations
        As for `Potentials`; points without weight take no part.
    tolerance
        Share of misplaced mass to reach.
    kept
        Bytes of the kernel that are kept between iterations.

    Raises
    ------
    ValueError
        When epsilon is too small for double precision.

    Source
    ------
    Schmitzer 2019, "Stabilized sparse scaling algorithms for entropy regularized transport problems"; Feydy 2020,
    "Geometric data analysis, beyond convolutions", section 3.3, for sums that are not stored and coarse to fine.
    """

    def __init__(
        self,
        x0: Tensor,
        x1: Tensor,
        cost: Cost,
        a: Tensor,
        b: Tensor,
        epsilon: float,
        relaxations: tuple[float, float],
        *,
        tolerance: float,
        kept: int = KERNEL_BYTES,
    ) -> None:
        self.epsilon, self.weights = epsilon, (a, b)
        self.relaxed = Relaxed(epsilon, relaxations)
        self._clouds, self._cost, self._tolerance, self._kept = (x0, x1), cost, tolerance, kept
        self._chosen = a.nonzero().squeeze(1), b.nonzero().squeeze(1)
        x0, x1 = (_some(x, rows) for x, rows in zip(self._clouds, self._chosen, strict=True))
        self._a, self._b = a[self._chosen[0]], b[self._chosen[1]]
        self._some_costs, self._g = self._begun(x0, x1)
        if flash.usable(x0, cost):
            self._g = flash.begun(x0, x1, self._a, self._b, self._g, self.relaxed, max(tolerance, SINGLE))
        self._double = Exponents(x0, x1, cost, epsilon)
        single = Exponents(x0, x1, cost, epsilon, dtype=torch.float32)
        none = torch.zeros_like(self._a)
        self._source_sums = log_row_sums(single, ALL, none, self._g + self._b.log())
        self._f = self.relaxed.damped(self._source_sums, 0)
        self._next_g = self._g
        self._kernel = Kernel(single, (len(x0), len(x1)), self._f, self._g, kept=kept)
        self._judging = False

    def update_source(self) -> float:
        """Update the source potential; return the share of mass that a target update would move."""
        self._refresh()
        totals = self._walked()
        if self._drifted(self._f, self._kernel.f):
            self._kernel.take(self._f, self._g)
            totals = self._totals()
        sums = totals.log() - self._kernel.g
        far = ~_trustworthy(totals)
        if far.any():
            exact = log_column_sums(self._double, far, self._f + self._a.log(), torch.zeros_like(self._g))
            sums[far] = exact
        masses = self._b * (self._g + sums).exp()
        self._next_g = self.relaxed.damped(sums, 1)
        error = float((masses * torch.expm1(self._next_g - self._g).abs()).sum() / masses.sum())
        if self._judging:
            self._kernel.kept = self._kept  # more than one iteration in double precision
        elif error <= max(self._tolerance, SINGLE):
            self._judging = True
            self._kernel = Kernel(self._double, (len(self._f), len(self._g)), self._f, self._g, kept=0)
            return self.update_source()
        return error

    def update_target(self) -> None:
        """Update the target potential, then set the constant between both."""
        self._f, self._g = self.relaxed.shifted(self._f, self._next_g, self._a, self._b)

    def plan(self, least: float, *, iterations: int, error: float) -> PotentialsPlan:
        """Return the plan; each source point keeps a least share of its mass."""
        f, g = (
            _placed(values, rows, x, fill)
            for values, rows, x, fill in zip(
                (self._f, self._g), self._chosen, self._clouds, (self._source_of, self._target_of), strict=True
            )
        )
        a, b = self.weights
        if least:  # taken out of the logarithm: the mass of a distant point may be below all numbers
            lift = (math.log(least) - self._f - self._source_sums).clamp_min(0)
            a = a.index_put((self._chosen[0],), self._a * lift.exp())
        return PotentialsPlan(
            *self._clouds,
            (f * self.epsilon, g * self.epsilon),
            a,
            b,
            epsilon=self.epsilon,
            by=self._cost,
            iterations=iterations,
            error=error,
        )

    def mean_cost(self) -> float:
        """Return the mean over the pairs of a subsample, to judge epsilon by."""
        return self._some_costs

    def _begun(self, x0: Tensor, x1: Tensor) -> tuple[float, Tensor]:
        """Return the mean cost of a subsample, and the target potentials by its source potentials."""
        rows, columns = sampled(self._a, SUBSAMPLE), sampled(self._b, SUBSAMPLE)
        a, b = (side[those] * (side.sum() / side[those].sum()) for side, those in ((self._a, rows), (self._b, columns)))
        costs = cost_matrix(self._cost, x0[rows], x1[columns])
        mean = float(costs.mean())
        few = Potentials(costs, a, b, self.epsilon, self.relaxed.relaxations)
        advance(few, self._tolerance, SUBSAMPLE_ITERATIONS)
        f = few.values()[0] / self.epsilon
        exponents = Exponents(x0[rows], x1, self._cost, self.epsilon)
        sums = log_column_sums(exponents, ALL, f + a.log(), torch.zeros_like(self._b))
        return mean, self.relaxed.damped(sums, 1)

    def _walked(self) -> Tensor:
        """Solve for the source potential; return the sums over the columns by it, ``(m,)``, without what is in g."""
        kernel = self._kernel
        weights, totals = self._b * (self._g - kernel.g).exp(), torch.zeros_like(self._b)
        self._f = torch.empty_like(self._f)  # the kernel may hold the one before
        for rows, block in kernel.blocks():
            found = (block @ weights.to(block.dtype)).double()
            sums = found.log() - kernel.f[rows]
            far = (~_trustworthy(found)).nonzero().squeeze(1)
            if len(far):
                none = torch.zeros_like(self._a)
                sums[far] = log_row_sums(self._double, far + rows.start, none, self._g + self._b.log())
            self._source_sums[rows] = sums
            f = self.relaxed.damped(sums, 0)
            self._f[rows] = f
            factors = self._a[rows] * (f - kernel.f[rows]).exp()
            totals += (block.T @ factors.to(block.dtype)).double()
        return totals

    def _totals(self) -> Tensor:
        """Return the sums over the columns by the source potential as it is, ``(m,)``, without what is in g."""
        factors, totals = self._a * (self._f - self._kernel.f).exp(), torch.zeros_like(self._b)
        for rows, block in self._kernel.blocks():
            totals += (block.T @ factors[rows].to(block.dtype)).double()
        return totals

    def _refresh(self) -> None:
        if self._drifted(self._g, self._kernel.g):
            self._kernel.take(self._f, self._g)

    def _drifted(self, values: Tensor, before: Tensor) -> bool:
        return not bool(((values - before).abs() <= _DRIFT).all())

    def _source_of(self, x: Tensor) -> Tensor:
        """Return the source potentials of other points, ``(k,)``, by the target potentials."""
        others = Exponents(x, _some(self._clouds[1], self._chosen[1]), self._cost, self.epsilon)
        none = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        return self.relaxed.damped(log_row_sums(others, ALL, none, self._g + self._b.log()), 0)

    def _target_of(self, x: Tensor) -> Tensor:
        """Return the target potentials of other points, ``(k,)``, by the source potentials."""
        others = Exponents(_some(self._clouds[0], self._chosen[0]), x, self._cost, self.epsilon)
        none = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        return self.relaxed.damped(log_column_sums(others, ALL, self._f + self._a.log(), none), 1)


def _some(x: Tensor, rows: Tensor) -> Tensor:
    return x if len(rows) == len(x) else x[rows]


def _placed(values: Tensor, rows: Tensor, x: Tensor, others: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the potentials of all points ``(n,)``: those of some rows, and of the points that took no part."""
    if len(rows) == len(x):
        return values
    absent = torch.ones(len(x), dtype=torch.bool, device=x.device).index_fill(0, rows, False)
    found = values.new_empty(len(x))
    found[rows], found[absent] = values, others(x[absent])
    return found


def _trustworthy(sums: Tensor) -> Tensor:
    return (sums > _FLOOR) & (sums < math.inf)
