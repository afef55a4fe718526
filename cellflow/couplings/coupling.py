"""What a coupling is, what it declares about itself, and the couplings with a name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

from cellflow.couplings.exact import Exact, Independent
from cellflow.couplings.given import Given
from cellflow.couplings.hierarchical import Hierarchical
from cellflow.couplings.plan import Plan
from cellflow.couplings.problem import dense_memory
from cellflow.couplings.unbalanced import UnbalancedSinkhorn
from cellflow.errors import unknown
from cellflow.signature import checked


class Coupling(Protocol):
    """Anything that matches two clouds and declares the properties that its users need."""

    @property
    def keeps_mass(self) -> bool:
        """Whether the plan keeps the weight of every point, so that no cell gains on another."""

    @property
    def uses_states(self) -> bool:
        """Whether the plan depends on where the points are."""

    @property
    def divisible(self) -> bool:
        """Whether random parts of both clouds may be matched instead of the whole."""

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match ``n`` with ``m`` points at once."""

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` of shape ``(m, ...)``, weighted by ``a`` and ``b``."""


CouplingLike: TypeAlias = Coupling | Callable[..., Plan] | str
"""A coupling, a function of two clouds, or the name of a coupling."""


def over(coupling: Coupling, duration: float, sigma: float) -> Coupling:
    """Return the coupling for one interval: itself, unless its settings depend on the interval.

    A coupling with such settings has a method ``over`` with the same arguments.

    Parameters
    ----------
    coupling
        The coupling.
    duration
        Model time of the interval.
    sigma
        Scale of the Brownian motion of which the path is a bridge, per square root of model time; 0 for none.

    Examples
    --------
    >>> from cellflow.couplings import Sinkhorn
    >>> over(Sinkhorn("path"), 0.25, 2.0).epsilon, over(Sinkhorn(1.0), 0.25, 2.0).epsilon
    (2.0, 1.0)
    """
    settled = getattr(coupling, "over", None)
    return coupling if settled is None else settled(duration, sigma)


def between(
    coupling: Coupling, start: float, stop: float, source: Tensor | None = None, target: Tensor | None = None
) -> Coupling:
    """Return the coupling between two snapshots: itself, unless it holds plans for several pairs of snapshots.

    A coupling that does has a method ``between`` with the same arguments.

    Parameters
    ----------
    coupling
        The coupling.
    start, stop
        Their model times.
    source, target
        Rows of the plan that belong to the points to match, ``(n,)`` and ``(m,)``; ``None`` for all.

    Examples
    --------
    >>> import torch
    >>> given = Given({(0.0, 0.5): torch.eye(2), (0.5, 1.0): torch.ones(2, 3)})
    >>> between(given, 0.5, 1.0), between(Exact(), 0.5, 1.0) == Exact()
    (Given(2 x 3), True)
    """
    found = getattr(coupling, "between", None)
    return coupling if found is None else found(start, stop, source, target)


def at_scale(coupling: Coupling) -> Coupling | None:
    """Return the coupling that replaces another for clouds that are too large for it, or ``None``.

    A coupling that knows one has a method ``at_scale``.

    Examples
    --------
    >>> at_scale(Exact())
    Hierarchical(block=512, tolerance=0.001, passes=50, cost=SquaredEuclidean())
    >>> at_scale(Independent())
    """
    found = getattr(coupling, "at_scale", None)
    return None if found is None else found()


def of_points(coupling: Coupling) -> bool:
    """Whether the time of a coupling grows with the number of points rather than of pairs.

    It does if states are not used, or if the coupling says so by ``of_points``.

    Examples
    --------
    >>> of_points(Independent()), of_points(Exact()), of_points(Exact().at_scale())
    (True, False, True)
    """
    return not coupling.uses_states or getattr(coupling, "of_points", False)


@checked
@dataclass(frozen=True)
class Custom:
    """A function of two clouds as a coupling, with conservative defaults for what it does not declare.

    Parameters
    ----------
    match
        From clouds ``x0`` and ``x1`` to a plan; if pairs carry masses, also from their weights. Its attributes with the
        names of those of `Coupling` are used; by default it needs as much memory as a dense solver, need not keep
        masses, and uses the states.

    Examples
    --------
    >>> import torch
    >>> custom = Custom(lambda x0, x1: Exact()(x0.flip(0), x1))
    >>> custom(torch.zeros(3, 2), torch.ones(3, 2)).shape, custom.keeps_mass
    ((3, 3), False)
    """

    match: Callable[..., Plan]

    @property
    def keeps_mass(self) -> bool:
        """Whether it declares that every point keeps its weight."""
        return getattr(self.match, "keeps_mass", False)

    @property
    def uses_states(self) -> bool:
        """Whether the plan depends on where the points are: yes, unless declared otherwise."""
        return getattr(self.match, "uses_states", True)

    @property
    def divisible(self) -> bool:
        """Whether random parts may be matched instead of the whole: yes, unless declared otherwise."""
        return getattr(self.match, "divisible", True)

    def memory(self, n: int, m: int) -> int:
        """Return the bytes that it declares, or those of a dense solver."""
        return getattr(self.match, "memory", dense_memory)(n, m)

    def over(self, duration: float, sigma: float) -> "Custom":
        """Return the coupling for one interval, if it declares that it depends on the interval."""
        settled = getattr(self.match, "over", None)
        return self if settled is None else Custom(settled(duration, sigma))

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` of shape ``(m, ...)``, weighted where weights are given."""
        found = self.match(x0, x1) if a is None and b is None else self.match(x0, x1, a, b)
        if not isinstance(found, Plan):
            raise TypeError(
                f"Expected {self!r} to return a plan; found {type(found).__name__}. See `cf.couplings.DensePlan`."
            )
        return found

    def __repr__(self) -> str:
        return getattr(self.match, "__name__", repr(self.match))


COUPLINGS: dict[str, Coupling] = {
    "auto": UnbalancedSinkhorn(),
    "exact": Exact(),
    "independent": Independent(),
    "given": Given(),
    "hierarchical": Hierarchical(),
}
"""The couplings with a name: those without required settings."""

_DECLARED = ("keeps_mass", "uses_states", "divisible", "memory")


def resolve(coupling: CouplingLike) -> Coupling:
    """Return the coupling with this name, the coupling itself, or a function as a coupling.

    Examples
    --------
    >>> resolve("independent")
    Independent()
    >>> resolve(lambda x0, x1: Exact()(x0, x1)).keeps_mass
    False
    """
    if isinstance(coupling, str):
        if coupling not in COUPLINGS:
            raise ValueError(unknown("coupling", coupling, COUPLINGS))
        return COUPLINGS[coupling]
    if isinstance(coupling, type) or not callable(coupling):
        message = f"Expected a coupling such as Exact() or one of {sorted(COUPLINGS)}; found {coupling!r}."
        raise TypeError(message)
    return coupling if all(hasattr(coupling, name) for name in _DECLARED) else Custom(coupling)  # type: ignore[return-value]
