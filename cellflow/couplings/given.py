"""Known pairs: row by row, or from plans that were computed elsewhere."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cellflow.couplings.pair_masses import PAIR_BYTES, PairMasses, read_masses
from cellflow.couplings.problem import check_clouds, weights_of
from cellflow.couplings.sparse import SparsePlan
from cellflow.signature import checked

if TYPE_CHECKING:
    from scipy.sparse import csr_array

POINT_MEMORY = 32
"""Bytes for each point where nothing is solved: a weight, a sum and a row number or two."""
CLOSE = 1e-9
"""Times that differ by less are the same, but for rounding."""


@checked
@dataclass(frozen=True, eq=False)
class Given:
    """Known pairs: each source point with the target point in the same row, or from plans computed elsewhere.

    Without plans, for paired data or pairs that a model has generated itself. With plans, `SnapshotFlow` learns from
    the couplings of another tool, such as moscot or Waddington-OT. Plans are used as they are: weights of cells do not
    change them. If growth is learned (``growth=True``), the sum of a row, relative to others, tells how much its cell
    grows, provided that the column sums are the weights of the target cells: what both share is not growth.

    Parameters
    ----------
    plans
        For each pair of consecutive times ``(t0, t1)``, the masses between their cells, sources by targets: a sparse
        matrix, a dense array or a `Plan`, in the order of the cells in the AnnData; or a DataFrame or an AnnData with
        the names of cells, in any order (as moscot's and Waddington-OT's transport maps). If a matrix has more than
        eleven million pairs (256 MiB), only the largest masses of each row are kept, scaled to keep the sum of the row;
        the log says how much that changes.
    digest
        Identifies these plans; computed automatically. A saved model stores it instead of the plans, which would be
        large: a loaded flow predicts as before, but needs the plans again to be fitted.

    Raises
    ------
    TypeError, ValueError
        When a plan is not a matrix of finite, nonnegative masses with a positive sum, names cells twice, or its key is
        not a pair of increasing times.

    Examples
    --------
    >>> import torch
    >>> Given()(torch.zeros(3, 2), torch.ones(3, 2)).permutation
    tensor([0, 1, 2])

    Cells that another tool has matched:

    >>> import numpy as np, pandas as pd, cellflow as cf
    >>> adata = cf.datasets.branching((60, 80), times=(0, 2))
    >>> early, late = (adata.obs_names[adata.obs["time"] == t] for t in (0, 2))
    >>> plan = pd.DataFrame(np.ones((60, 80)), index=early, columns=late)  # as tools that pair at random
    >>> coupling = cf.couplings.Given({(0, 2): plan})
    >>> flow = cf.SnapshotFlow(rep="X_latent", coupling=coupling, steps=20).fit(adata)
    >>> flow.plans_
    [SparsePlan(60 x 80, mass 1, 4800 pairs)]
    """

    uses_states: ClassVar[bool] = False
    divisible: ClassVar[bool] = False  # random parts of the clouds would break the pairs

    plans: Mapping[Any, Any] | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.plans is None:
            return
        if not self.plans:
            raise ValueError("Expected a plan for each pair of consecutive times in `plans`; found none.")
        found = {_pair(key): read_masses(plan, what=f"the plan of {key}") for key, plan in self.plans.items()}
        digest = _digest(found)
        if self.digest not in (None, digest):
            raise ValueError("`digest` belongs to other plans. Leave it out: it is computed automatically.")
        object.__setattr__(self, "plans", found)
        object.__setattr__(self, "digest", digest)

    @property
    def by_row(self) -> bool:
        """Whether there are no plans, so that points in the same row are pairs."""
        return self.plans is None and self.digest is None

    @property
    def keeps_mass(self) -> bool:
        """Whether the plan keeps the weight of every point: given plans have their own masses."""
        return self.by_row

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match ``n`` with ``m`` points: a few numbers for each point and pair."""
        held = max((plan.masses.nnz for plan in (self.plans or {}).values()), default=0)
        return POINT_MEMORY * (n + m) + PAIR_BYTES * held

    def between(
        self, start: float, stop: float, source: Tensor | None = None, target: Tensor | None = None
    ) -> "Given | RowPlan":
        """Return the coupling between two snapshots.

        Parameters
        ----------
        start, stop
            Their times.
        source, target
            Rows of the plan to match, ``(n,)`` and ``(m,)``; ``None`` for all.

        Raises
        ------
        ValueError
            When there is no plan for these times, or the plans were not saved with the model.
        """
        if self.by_row:
            return self
        plans = self._known()
        near = [key for key in plans if _same(key[0], start) and _same(key[1], stop)]
        if not near:
            raise ValueError(f"No plan from time {start:g} to {stop:g} in `Given`. Available: {_listed(plans)}.")
        masses = plans[near[0]].masses
        masses = masses / masses.sum()
        if source is not None and target is not None:
            masses = masses[source.cpu().numpy()][:, target.cpu().numpy()]
        return RowPlan(masses.tocsr())

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> SparsePlan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1``: row by row, or by the plan if there is exactly one.

        The weight of a pair of rows is that of its source.

        Raises
        ------
        ValueError
            When clouds that are paired by row differ in size, or the two weights of a pair differ; when there are
            several plans, or the plan is for other numbers of points.
        """
        check_clouds(x0, x1)
        if not self.by_row:
            return self._planned(x0, x1, a, b)
        if len(x0) != len(x1):
            raise ValueError(f"Expected as many target points as source points; found {len(x0)} and {len(x1)}.")
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        if not torch.allclose(a, b):
            raise ValueError(
                "Expected the same weight at both ends of each pair; found different ones. Give them once."
            )
        rows = torch.arange(len(x0), device=x0.device)
        return SparsePlan(rows, rows, a / a.sum(), shape=(len(x0), len(x0)))

    def saved_values(self) -> dict[str, Any]:
        """Return what is saved with a model: the digest of the plans."""
        return {} if self.digest is None else {"digest": self.digest}

    def _planned(self, x0: Tensor, x1: Tensor, a: Tensor | None, b: Tensor | None) -> SparsePlan:
        plans = self._known()
        if len(plans) > 1:
            raise ValueError(f"Expected one plan for two clouds; found those of {_listed(plans)}. Take one of them.")
        (only,) = plans.values()
        if only.masses.shape != (len(x0), len(x1)):
            found = " x ".join(map(str, only.masses.shape))
            raise ValueError(f"Expected a plan between {len(x0)} and {len(x1)} points; found one of {found}.")
        rows, columns = (torch.arange(len(x), device=x.device)[:, None] for x in (x0, x1))
        return RowPlan(only.masses / only.masses.sum())(rows, columns, a, b)

    def _known(self) -> dict[tuple[Any, Any], PairMasses]:
        if self.plans is None:
            raise ValueError(
                "The plans of this coupling are not saved with a model. Give them again: "
                "`flow.set_params(coupling=cf.couplings.Given(plans))`."
            )
        return dict(self.plans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((Given, self.digest))

    def __repr__(self) -> str:
        if self.plans is not None:
            shapes = (f"{key}: <{' x '.join(map(str, plan.masses.shape))}>" for key, plan in self.plans.items())
            return f"Given({{{', '.join(shapes)}}})"
        return "Given()" if self.digest is None else f"Given(digest={self.digest!r})"


@dataclass(frozen=True, eq=False)
class RowPlan:
    """A plan between points that are given as row numbers instead of states.

    Parameters
    ----------
    masses
        Sparse, ``(n, m)``.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> RowPlan(csr_array([[0.2, 0.3], [0.5, 0.0]]))(torch.tensor([[1]]), torch.tensor([[0], [1]])).dense()
    tensor([[1., 0.]], dtype=torch.float64)
    """

    keeps_mass: ClassVar[bool] = False
    uses_states: ClassVar[bool] = False
    divisible: ClassVar[bool] = False

    masses: "csr_array"

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match ``n`` with ``m`` points."""
        return POINT_MEMORY * (n + m) + PAIR_BYTES * int(self.masses.nnz)

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> SparsePlan:
        """Couple rows ``x0`` of shape ``(n, 1)`` with columns ``x1`` ``(m, 1)``: the plan has mass 1 without weights.

        Raises
        ------
        ValueError
            When rows or columns are not in the plan, or there is no mass between them.
        """
        rows, columns = (x.reshape(-1).cpu().numpy() for x in (x0, x1))
        if rows.max() >= self.masses.shape[0] or columns.max() >= self.masses.shape[1]:
            raise ValueError(
                f"Expected a plan between at least {rows.max() + 1} and {columns.max() + 1} cells; found one of "
                f"{' x '.join(map(str, self.masses.shape))}."
            )
        found = self.masses[rows][:, columns].tocoo()
        if not found.nnz:
            raise ValueError(
                f"A given plan has no mass between {len(rows)} source cells and {len(columns)} target cells."
            )
        i, j = (torch.from_numpy(side.astype(np.int64)).to(x0.device) for side in (found.row, found.col))
        masses = torch.from_numpy(np.asarray(found.data, dtype=np.float64)).to(x0.device)
        whole = masses if a is not None or b is not None else masses / masses.sum()
        return SparsePlan(i, j, whole, shape=(len(rows), len(columns)))

    def __repr__(self) -> str:
        return f"Given({' x '.join(map(str, self.masses.shape))})"


def _pair(key: Any) -> tuple[Any, Any]:
    """Return a key of plans as two times that can be ordered."""
    if isinstance(key, str) or not hasattr(key, "__len__") or len(key) != 2:
        raise ValueError(f"Expected plans by their two times, as {{(2.0, 4.0): plan}}; found the key {key!r}.")
    start, stop = (time.item() if isinstance(time, np.generic | Tensor) else time for time in key)
    for time in (start, stop):
        if time is None or isinstance(time, bool) or (isinstance(time, Real) and not math.isfinite(time)):
            raise ValueError(f"Expected two finite times as the key of a plan; found {key!r}.")
    if isinstance(start, Real) and isinstance(stop, Real) and not start < stop:
        raise ValueError(f"Expected a plan from an earlier to a later time; found the key {key!r}.")
    return start, stop


def _same(time: Any, other: float) -> bool:
    return isinstance(time, Real) and math.isclose(float(time), other, rel_tol=CLOSE, abs_tol=CLOSE)


def _listed(keys: Any) -> str:
    return ", ".join(f"({start}, {stop})" for start, stop in keys)


def _digest(plans: Mapping[tuple[Any, Any], PairMasses]) -> str:
    found = hashlib.sha256()
    for key in sorted(plans, key=str):
        found.update(f"{key}{plans[key].digest()}".encode())
    return found.hexdigest()
