"""Explicit Runge-Kutta methods: Butcher tables, and the step that evaluates them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cellflow.integrate.trajectory import Velocity
from cellflow.signature import checked


@checked
@dataclass(frozen=True)
class Table:
    """An explicit Runge-Kutta method: its Butcher table.

    Parameters
    ----------
    a
        Coefficients of the previous slopes in each stage: row i has i numbers.
    b
        Weights of the slopes in the step.
    c
        Time of each slope, as a fraction of the step.
    order
        Halving the step divides the error at the end by ``2**order``.

    Source
    ------
    Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential Equations I", section II.1.

    Examples
    --------
    >>> Table(a=((), (2 / 3,)), b=(1 / 4, 3 / 4), c=(0.0, 2 / 3), order=2).order  # Ralston's method
    2
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        rows = [len(row) if isinstance(row, Sequence) else None for row in self.a]
        if rows != list(range(len(self.b))) or len(self.c) != len(self.b):
            message = (
                f"An explicit table of {len(self.b)} stages needs rows of length 0, 1, 2, ... in `a` and as "
                f"many numbers in `c`; found rows of length {rows} and {len(self.c)} in `c`."
            )
            raise ValueError(message)

    @checked
    def step(self, velocity: Velocity, x: Tensor, u: float, du: float) -> Tensor:
        """Advance ``x`` from ``u`` by ``du``."""
        slopes: list[Tensor] = []
        for fraction, row in zip(self.c, self.a, strict=True):
            slopes.append(velocity(u + fraction * du, _shifted(x, du, row, slopes)))
        return _shifted(x, du, self.b, slopes)


TABLES: dict[str, Table] = {
    "euler": Table(a=((),), b=(1.0,), c=(0.0,), order=1),
    "midpoint": Table(a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2), order=2),
    "heun": Table(a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), order=2),
    "rk4": Table(
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
        c=(0.0, 1 / 2, 1 / 2, 1.0),
        order=4,
    ),
}


def _shifted(x: Tensor, du: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """Return x + du * (sum of weight * slope); the sum is formed first, so that x is rounded once."""
    used = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    if not used:
        return x
    (unit, move), *others = used
    for weight, slope in others:
        move = move.add(slope, alpha=weight / unit)
    return x.add(move, alpha=du * unit)
