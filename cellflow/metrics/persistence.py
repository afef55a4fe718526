"""Scores of where each cell goes: whether its mass lands on its own label, and near its own clone.

A distance between populations does not show which cell went where; these scores do. Report both beside not moving and
static plans, which are scored with the same neighbours.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow.cells.states import StatesLike, as_states
from cellflow.couplings import Euclidean, Plan
from cellflow.couplings.problem import MOST_BYTES, check_clouds, weights_of
from cellflow.nearest import Nearest
from cellflow.shapes import finite
from cellflow.signature import checked

NEIGHBORS = 10
"""Measured cells around a landing point whose labels are read."""
_PAIRS_AT_ONCE = 2**21  # 16 MiB of float64, of which ranking makes a few copies

Labels: TypeAlias = pd.Series | np.ndarray | Sequence[Any]
"""A label for each cell; a missing value (``None``, NaN) for none."""


@checked
def label_persistence(
    moved: StatesLike | Plan,
    labels: Labels,
    x_next: StatesLike,
    labels_next: Labels,
    *,
    weights: StatesLike | None = None,
    n_neighbors: int = NEIGHBORS,
) -> float:
    """Return the share of the cells' mass that lands on their own label.

    The labels at a landing point are their shares among the nearest measured cells of the next snapshot. A share below
    that of not moving is a warning, not proof: cells do change state.

    Parameters
    ----------
    moved
        Where the cells land: points ``(n, d)``, or a plan from them to ``x_next``, whose targets use the same
        neighbours. The cells' own states give the share of not moving.
    labels
        The label of each cell ``(n,)``. Cells without one are left out; one that is not in ``labels_next`` cannot be
        kept.
    x_next, labels_next
        Cells of the next snapshot ``(m, d)``, and their labels; cells without one do not count as neighbours.
    weights
        Mass of each cell where it lands ``(n,)``, such as ``Trajectory.shares()[-1]``; by default equal, or that of the
        rows of a plan.
    n_neighbors
        Number of measured cells around a landing point; all of them if there are fewer.

    Raises
    ------
    ValueError
        When lengths differ, or no cell with a label has mass.

    Examples
    --------
    >>> import torch
    >>> x_next = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> label_persistence(torch.tensor([[0.0], [5.0]]), ["a", "a"], x_next, ["a", "a", "b", "b"], n_neighbors=2)
    0.5
    """
    share, mass = label_shares(moved, labels, x_next, labels_next, weights=weights, n_neighbors=n_neighbors)
    return float(share @ mass / mass.sum())


@checked
def label_shares(
    moved: StatesLike | Plan,
    labels: Labels,
    x_next: StatesLike,
    labels_next: Labels,
    *,
    weights: StatesLike | None = None,
    n_neighbors: int = NEIGHBORS,
) -> tuple[Tensor, Tensor]:
    """Return the share of each cell's mass that lands on its own label ``(n,)``, and its mass ``(n,)``.

    `label_persistence` is the mean of the shares weighted by the masses; a cell without a label has no mass.

    Parameters
    ----------
    moved, labels, x_next, labels_next, weights, n_neighbors
        As for `label_persistence`.

    Examples
    --------
    >>> import torch
    >>> from cellflow.couplings import DensePlan
    >>> plan = DensePlan(torch.tensor([[0.25, 0.25], [0.0, 0.5]]))
    >>> share, mass = label_shares(plan, ["a", "b"], torch.eye(2), ["a", "b"], n_neighbors=1)
    >>> share.tolist(), mass.tolist()
    ([0.5, 1.0], [0.5, 0.5])
    """
    if n_neighbors < 1:
        raise ValueError(f"Expected n_neighbors >= 1; found {n_neighbors}.")
    cells, there, n = _groups(labels, labels_next, x_next)
    states = finite(as_states(x_next, what="`x_next`"), what="`x_next`").cpu()
    if states.ndim != 2:
        raise ValueError(f"Expected `x_next` as states (m, d); found shape {tuple(states.shape)}.")
    known, group = states[there >= 0].numpy(), there[there >= 0]
    nearest = Nearest(known, min(n_neighbors, len(known)))

    def votes(points: Tensor) -> Tensor:
        near = group[torch.from_numpy(nearest.rows(points.numpy()).astype(np.int64))]
        each = torch.full(near.shape, 1.0, dtype=torch.float64)
        return torch.zeros(len(points), n, dtype=torch.float64).scatter_add_(1, near, each) / near.shape[1]

    return _own(moved, cells, votes, states, weights, n=n, rows=_PAIRS_AT_ONCE // (n + n_neighbors))


@checked
def clone_agreement(
    moved: StatesLike | Plan,
    clones: Labels,
    x_next: StatesLike,
    clones_next: Labels,
    *,
    weights: StatesLike | None = None,
) -> Tensor:
    """Return for each clone in both snapshots how near to its own cells it lands: 1 at best, 0.5 by chance.

    The probability that a cell of the same clone or track in the next snapshot is nearer to the landing point than a
    cell of another: the area under the ROC curve, which depends on no scale. It is averaged over the cells of a clone
    by their mass. Clones are independent of each other, cells of a clone are not: take the mean over clones, and
    `bootstrap` it for an interval.

    Parameters
    ----------
    moved, weights
        As for `label_persistence`.
    clones
        The clone, or the track, of each cell ``(n,)``. Cells without one are left out.
    x_next, clones_next
        Cells of the next snapshot ``(m, d)`` and their clones; those without one are left out.

    Returns
    -------
    Tensor
        One number for each clone with cells in both snapshots, sorted by name, ``(k,)``.

    Raises
    ------
    ValueError
        When no clone is in both snapshots, or the later one has only one clone; when lengths differ.

    Source
    ------
    Mann and Whitney 1947, for the share of ordered pairs.

    Examples
    --------
    >>> import torch
    >>> x_next = torch.tensor([[0.0], [1.0], [5.0]])
    >>> clone_agreement(torch.tensor([[0.2], [0.9]]), ["a", "b"], x_next, ["a", "b", "b"])
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    cells, there, n = _groups(clones, clones_next, x_next)
    states = finite(as_states(x_next, what="`x_next`"), what="`x_next`").cpu()
    known, group = states[there >= 0].double(), there[there >= 0]
    size = torch.bincount(group, minlength=n).double()
    both = torch.bincount(cells[cells >= 0], minlength=n).bool() & (size > 0)
    if not both.any() or (size > 0).sum() < 2:
        raise ValueError(
            "Expected a clone with cells in both snapshots, and another one in the later; found "
            f"{int(both.sum())} in both, and {int((size > 0).sum())} in the later."
        )

    from scipy.stats import rankdata

    def nearer(points: Tensor) -> Tensor:
        ranks = torch.from_numpy(rankdata(Euclidean()(points.double(), known).numpy(), axis=1))
        # A clone's own ranks sum to at least size (size + 1) / 2; what is above counts the others that are nearer.
        summed = torch.zeros(len(points), n, dtype=torch.float64).index_add_(1, group, ranks)
        before = summed - size * (size + 1) / 2
        return 1 - before / (size * (len(known) - size)).clamp(min=1)

    cells = torch.where(cells < 0, cells, torch.where(both[cells], cells, -1))
    value, mass = _own(moved, cells, nearer, states, weights, n=n, rows=_PAIRS_AT_ONCE // max(len(known), n))
    total = torch.zeros(n, dtype=torch.float64).index_add(0, cells[cells >= 0], mass[cells >= 0])
    held = torch.zeros(n, dtype=torch.float64).index_add(0, cells[cells >= 0], (value * mass)[cells >= 0])
    return (held / total)[total > 0]


def _groups(labels: Labels, labels_next: Labels, x_next: StatesLike) -> tuple[Tensor, Tensor, int]:
    """Return the group of each cell of both snapshots as a number, -1 for none, and how many groups there are."""
    columns = [labels_of(one, name=name) for one, name in ((labels, "labels"), (labels_next, "labels of the next"))]
    states = as_states(x_next, what="`x_next`")
    n = len(states) if states.ndim else 0
    if len(columns[1]) != n or not n:
        raise ValueError(f"Expected a label for each of {n} cells in `x_next`; found {len(columns[1])}.")
    known = pd.concat([column.dropna() for column in columns]).astype(str)
    names = sorted(known.unique())
    codes = [
        torch.from_numpy(pd.Categorical(column.where(column.isna(), column.astype(str)), names).codes.astype(np.int64))
        for column in columns
    ]
    if not all((side >= 0).any() for side in codes):
        raise ValueError("Expected cells with a label in both snapshots; found one without any.")
    return codes[0], codes[1], len(names)


def labels_of(labels: Labels, *, name: str) -> pd.Series:
    """Return one label for each cell ``(n,)``; missing for cells without one.

    Raises
    ------
    ValueError
        When there is not one label for each cell.

    Examples
    --------
    >>> labels_of(["a", None], name="labels").isna().tolist()
    [False, True]
    """
    found = np.empty(len(labels), dtype=object)
    if getattr(labels, "ndim", 1) != 1 or any(np.ndim(one) for one in labels):
        raise ValueError(
            f"Expected `{name}` with one label for each cell (n,); found {type(labels).__name__} of more axes."
        )
    found[:] = list(labels)
    return pd.Series(found)


def _own(
    moved: StatesLike | Plan,
    cells: Tensor,
    votes: Callable[[Tensor], Tensor],
    x_next: Tensor,
    weights: StatesLike | None,
    *,
    n: int,
    rows: int,
) -> tuple[Tensor, Tensor]:
    """Return what each cell finds of its own group where it lands, and its mass, 0 for a cell without a group.

    ``votes`` returns for points ``(k, d)`` what is there of each of ``n`` groups, ``(k, n)``; it is asked for at most
    ``rows`` points at once, and for the targets of a plan again for every few groups that fit `MOST_BYTES`.
    """
    points = x_next if isinstance(moved, Plan) else as_states(moved, what="`moved`").cpu()
    n_cells = moved.shape[0] if isinstance(moved, Plan) else len(points)
    check_clouds(points, x_next)
    if len(cells) != n_cells:
        raise ValueError(f"Expected a label for each of {n_cells} cells; found {len(cells)}.")
    parts, own = points.split(max(1, rows)), cells.clamp(min=0)[:, None]
    if isinstance(moved, Plan):
        mass = moved.marginals()[0]
        found, few = torch.zeros(n_cells, 1, dtype=torch.float64), max(1, MOST_BYTES // (8 * max(n_cells, len(points))))
        for first in range(0, n, few):
            there = torch.cat([votes(part)[:, first : first + few] for part in parts]).to(mass.device)
            shares, place = moved.barycentric(there, alone=0.0).cpu(), own - first
            among = (place >= 0) & (place < there.shape[1])
            found = torch.where(among, shares.gather(1, place.clamp(0, there.shape[1] - 1)).double(), found)
        mass = mass.cpu()
    else:
        found = torch.cat([votes(x).gather(1, k) for x, k in zip(parts, own.split(max(1, rows)), strict=True)])
        mass = torch.ones(n_cells, dtype=torch.float64)
    if weights is not None:
        mass = weights_of(as_states(weights, what="`weights`").cpu(), mass, name="weights")
    mass = torch.where(cells >= 0, mass, 0.0)
    if not mass.sum() > 0:
        raise ValueError("Expected cells with a label that have mass; found none.")
    return found[:, 0], mass
