"""Couplings match two clouds of points: two clouds in, a transport `Plan` out.

A coupling is deterministic; randomness enters when its plan is sampled. Which one to take:

* `Exact`: optimal transport, the least total cost. The default.
* `Independent`: pairs drawn at random.
* `Given`: pairs that are known already.
* `Sinkhorn`: entropic optimal transport; the noise of a diffusion sets its ``epsilon``.
* `UnbalancedSinkhorn`: entropic optimal transport for cells that divide and die between snapshots.
"""

from typing import Protocol

from torch import Tensor

from cellflow.couplings.cost import Euclidean, SquaredEuclidean
from cellflow.couplings.dense import DensePlan
from cellflow.couplings.exact import Exact, Given, Independent
from cellflow.couplings.plan import Plan
from cellflow.couplings.product import ProductPlan
from cellflow.couplings.sinkhorn import Sinkhorn, UnbalancedSinkhorn
from cellflow.couplings.sparse import SparsePlan
from cellflow.errors import unknown

__all__ = [
    "COUPLINGS",
    "Coupling",
    "DensePlan",
    "Euclidean",
    "Exact",
    "Given",
    "Independent",
    "Plan",
    "ProductPlan",
    "Sinkhorn",
    "SparsePlan",
    "SquaredEuclidean",
    "UnbalancedSinkhorn",
    "resolve",
]


class Coupling(Protocol):
    """Anything that matches two clouds."""

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` of shape ``(m, ...)``, weighted by ``a`` and ``b``."""


COUPLINGS: dict[str, Coupling] = {"exact": Exact(), "independent": Independent(), "given": Given()}
"""The couplings that have a name. Sinkhorn's ``epsilon`` depends on the data, so it has none."""


def resolve(coupling: str | Coupling) -> Coupling:
    """Return the coupling called by its name, or the coupling itself.

    Examples
    --------
    >>> resolve("independent")
    Independent()
    >>> resolve(Sinkhorn(epsilon=0.1)).epsilon
    0.1
    """
    if isinstance(coupling, str):
        if coupling not in COUPLINGS:
            raise ValueError(unknown("coupling", coupling, COUPLINGS))
        return COUPLINGS[coupling]
    if isinstance(coupling, type) or not callable(coupling):
        message = f"Expected a coupling such as Exact() or one of {sorted(COUPLINGS)}; found {coupling!r}."
        raise TypeError(message)
    return coupling
