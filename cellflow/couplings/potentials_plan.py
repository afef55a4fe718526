"""The plan that stores the dual potentials of an entropic problem and computes masses on demand."""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost, SquaredEuclidean
from cellflow.couplings.draws import comb, shuffled
from cellflow.couplings.exponents import ALL, Chosen, Exponents
from cellflow.couplings.plan import AT_ONCE, Plan, row_slices, solved
from cellflow.couplings.problem import MOST_BYTES, check_clouds, weights_of
from cellflow.shapes import as_states, finite
from cellflow.signature import checked

_BELOW = 1 - 1e-12
"""Heights stay this far below a sum of masses, so that rounding leads to none that is zero."""


class Sums(NamedTuple):
    """Sums over the masses of a plan.

    Parameters
    ----------
    parts
        Mass of each source point in each run of `width` target points, ``(n, k)``.
    width
        Target points in a run; the last may be shorter.
    columns
        Mass of each target point ``(m,)``.
    entropy
        Sum of each mass times its logarithm.
    """

    parts: Tensor
    width: int
    columns: Tensor
    entropy: float


@checked
@final
class PotentialsPlan(Plan):
    """A plan of entropic transport that stores points and potentials: its memory is linear in the points.

    Its masses are ``a_i b_j exp((f_i + g_j - C_ij) / epsilon)``. Each use computes those it needs, a few rows at a
    time: `push` and `pull` all of them, a draw those of its source point in one run of target points. `Sinkhorn` and
    `UnbalancedSinkhorn` return it if the masses would take more than 256 MiB.

    Parameters
    ----------
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    potentials
        The dual potentials ``(n,)`` and ``(m,)``, in units of the cost.
    a, b
        Weights of the points ``(n,)`` and ``(m,)``, used as given; by default 1/n and 1/m.
    epsilon
        Strength of the entropic regularisation, in units of the cost.
    by
        Cost of matching two points.
    iterations, error, settings
        As for `DensePlan`.

    Raises
    ------
    ValueError
        When there is not one finite potential for each point, or the masses are not finite or all 0.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> plan = PotentialsPlan(x, x, (torch.zeros(2), torch.zeros(2)), epsilon=1.0)
    >>> plan
    PotentialsPlan(2 x 2, mass 0.6839, cost 0.1839)
    >>> plan.push(torch.tensor([1.0, 0.0]))
    tensor([0.7311, 0.2689])
    """

    def __init__(
        self,
        x0: Tensor,
        x1: Tensor,
        potentials: tuple[Tensor, Tensor],
        a: Tensor | None = None,
        b: Tensor | None = None,
        *,
        epsilon: float,
        by: Cost = SquaredEuclidean(),
        iterations: int | None = None,
        error: float | None = None,
        settings: Mapping[str, float] | None = None,
    ) -> None:
        check_clouds(x0, x1)
        if not 0 < epsilon < math.inf:
            raise ValueError(f"Expected epsilon above 0 and finite; found {epsilon}.")
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        f, g = (_potential(side, x) for side, x in zip(potentials, (x0, x1), strict=True))
        self.potentials = (f, g)
        self.iterations, self.error, self.settings = iterations, error, dict(settings or {})
        self._exponents = Exponents(x0, x1, by, epsilon)
        self._terms = f / epsilon + a.log(), g / epsilon + b.log()
        self._rates: Sequence[tuple[Tensor, Tensor]] = ()
        total = float(self._sums.columns.sum())
        if not 0 < total < math.inf:
            raise ValueError(f"Expected potentials of a plan that carries finite mass; found {total:.3g}.")
        known = zip(self._terms, self.marginals(), strict=True)
        linear = sum(float(torch.where(mass > 0, mass * term, 0).sum()) for term, mass in known)
        self.cost = epsilon * (linear - self._sums.entropy)

    @checked
    def joining(self, cost: float, **settings: float) -> "PotentialsPlan":
        """Return the same masses with the transport cost to report, as `DensePlan.joining`.

        Parameters
        ----------
        cost
            The transport cost.
        **settings
            Settings that the solver chose.
        """
        joined = copy.copy(self)
        joined.cost, joined.settings = cost, settings
        return joined

    def rescaled(self, source: Tensor, target: Tensor) -> "PotentialsPlan":
        """Return the plan with each mass multiplied by the sum of its source's rate and its target's rate."""
        found = copy.copy(self)
        found.__dict__ = {name: value for name, value in vars(self).items() if name not in _OF_MASSES}
        found._rates = [*self._rates, (source, target)]
        found.cost, found.iterations, found.error, found.settings = None, None, None, {}
        return found

    @property
    def converged(self) -> bool | None:
        """True for the plan of a solver, which raises if it does not converge; ``None`` for any other."""
        return None if self.iterations is None else True

    @property
    def shape(self) -> tuple[int, int]:
        """The number of source points and of target points."""
        return self._terms[0].numel(), self._terms[1].numel()

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Return the mass of every source point ``(n,)`` and of every target point ``(m,)``."""
        return self._sums.parts.sum(dim=1), self._sums.columns

    @property
    def permutation(self) -> Tensor | None:
        """The target of the source point if there is one point on each side, else ``None``: no mass is zero."""
        return torch.zeros(1, dtype=torch.long, device=self._device) if self.shape == (1, 1) else None

    @property
    def _device(self) -> torch.device:
        return self._terms[0].device

    def _details(self) -> list[str]:
        return [*super()._details(), *solved(self.iterations, self.settings)]

    @cached_property
    def _sums(self) -> Sums:
        n, m = self.shape
        # About as many runs as points in a run: a draw then looks at twice the root of m.
        width = max(math.isqrt(m - 1) + 1, math.ceil(8 * n * m / MOST_BYTES))
        whole = m // width
        parts = torch.empty(n, math.ceil(m / width), dtype=torch.float64, device=self._device)
        columns, entropy = torch.zeros(m, dtype=torch.float64, device=self._device), 0.0
        for rows in row_slices(n, m, AT_ONCE):
            masses, exponents = self._block(rows, ALL)
            entropy += float(torch.vdot(masses.flatten(), exponents.flatten()))
            parts[rows, :whole] = masses[:, : whole * width].reshape(-1, whole, width).sum(dim=2)
            parts[rows, whole:] = masses[:, whole * width :].sum(dim=1, keepdim=True)
            columns += masses.sum(dim=0)
        return Sums(parts, width, columns, entropy)

    @cached_property
    def _cumulative(self) -> Tensor:
        return self._row_mass.cumsum(dim=0)

    def _independent(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        heights = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
        return self._found(heights.to(self._device) * self._cumulative[-1])

    def _even(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        heights = comb(self._cumulative[-1], n, generator=generator)
        i, j = shuffled(torch.stack(self._found(heights), dim=1), generator=generator).unbind(dim=1)
        return i, j

    def _found(self, heights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs at some heights of all masses, added up row by row, as a `DensePlan` has them."""
        sums = self._sums
        i, rest = _reached(self._cumulative[None], heights[None])
        i, rest = i[0], rest[0]
        j = torch.empty_like(i)
        runs = torch.empty_like(i)
        for some in row_slices(len(i), sums.parts.shape[1], AT_ONCE):
            run, left = _reached(sums.parts[i[some]].cumsum(dim=1), rest[some][:, None])
            runs[some], rest[some] = run[:, 0], left[:, 0]
        order = runs.argsort()
        counts = runs.bincount(minlength=sums.parts.shape[1]).tolist()
        for number, of_run in enumerate(order.split(counts)):
            first = number * sums.width
            columns = slice(first, min(self.shape[1], first + sums.width))
            for part in of_run.split(max(1, AT_ONCE // (8 * sums.width))) if len(of_run) else ():
                masses, _ = self._block(i[part], columns)
                j[part] = first + _reached(masses.cumsum(dim=1), rest[part][:, None])[0][:, 0]
        return i, j

    def _rows(self, rows: Tensor) -> Tensor:
        return self._block(rows, ALL)[0]

    def _block(self, rows: Chosen, columns: Chosen) -> tuple[Tensor, Tensor]:
        """Return the masses of some rows and columns, and the logarithms of those without rates."""
        exponents = self._exponents(rows, columns, *self._terms)
        masses = exponents.exp()
        for source, target in self._rates:
            masses.mul_(source[rows][:, None] + target[columns])
        return masses, exponents.clamp_(min=-1000.0)  # a mass of 0 times a logarithm that is finite

    def _forward(self, values: Tensor) -> Tensor:
        carried = values.new_zeros(self.shape[1], values.shape[1])
        for rows, masses in self.blocks():
            carried += masses.T @ values[rows]
        return carried

    def _backward(self, values: Tensor) -> Tensor:
        return torch.cat([masses @ values for _, masses in self.blocks()])


_OF_MASSES = ("_sums", "_cumulative", "_row_mass", "_column_mass")
"""What is found from all masses once, and kept."""


def _potential(values: Tensor, x: Tensor) -> Tensor:
    """Return one potential as float64, beside its points."""
    values = finite(as_states(values, what="a potential"), what="a potential").to(x.device).double()
    if values.shape != (len(x),):
        raise ValueError(f"Expected a potential for each of {len(x)} points; found shape {tuple(values.shape)}.")
    return values


def _reached(cumulative: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """Return for heights ``(k, l)`` in cumulative masses ``(k, p)`` the places that reach them, and what is left."""
    heights = torch.minimum(heights.clamp(min=0), cumulative[:, -1:] * _BELOW)
    places = torch.searchsorted(cumulative, heights, right=True)
    below = torch.where(places > 0, cumulative.gather(1, (places - 1).clamp(min=0)), 0)
    return places, heights - below
