"""Couplings match two clouds of points and return a transport `Plan`.

A coupling is deterministic; randomness enters when its plan is sampled. Which one to take:

* `Exact`: optimal transport, the least total cost. The default, except for snapshots of cells.
* `Hierarchical`: nearly optimal transport of 10,000 to 10 million points, in memory linear in their number.
* `Independent`: pairs drawn at random.
* `Given`: known pairs, or plans that another tool has computed.
* `Sinkhorn`: entropic optimal transport; ``Sinkhorn("path")`` for the noise of a `BrownianBridge`.
* `UnbalancedSinkhorn`: entropic optimal transport for cells that divide and die between snapshots; without settings
  (``"auto"``) the default for these.
* `Within`: any of these, inside each donor, batch or class.

Each declares the memory that it needs (`memory`), and whether it keeps the masses of points (`keeps_mass`); a function
of two clouds is a coupling too (`Custom`), with conservative defaults for both.
"""

from cellflow.couplings.cost import Euclidean, SquaredEuclidean
from cellflow.couplings.coupling import COUPLINGS, Coupling, CouplingLike, Custom, resolve
from cellflow.couplings.dense import DensePlan
from cellflow.couplings.exact import Exact, Independent
from cellflow.couplings.given import Given
from cellflow.couplings.hierarchical import Hierarchical
from cellflow.couplings.plan import Plan
from cellflow.couplings.potentials_plan import PotentialsPlan
from cellflow.couplings.product import ProductPlan
from cellflow.couplings.relative import Relative
from cellflow.couplings.sinkhorn import Sinkhorn
from cellflow.couplings.sparse import SparsePlan
from cellflow.couplings.unbalanced import UnbalancedSinkhorn
from cellflow.couplings.within import Within

__all__ = [
    "COUPLINGS",
    "Coupling",
    "CouplingLike",
    "Custom",
    "DensePlan",
    "Euclidean",
    "Exact",
    "Given",
    "Hierarchical",
    "Independent",
    "Plan",
    "PotentialsPlan",
    "ProductPlan",
    "Relative",
    "Sinkhorn",
    "SparsePlan",
    "SquaredEuclidean",
    "UnbalancedSinkhorn",
    "Within",
    "resolve",
]
