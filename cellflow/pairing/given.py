"""What pairing is given, read and checked: clouds, times, sizes, weights, rates and groups."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellflow.couplings.problem import check_clouds
from cellflow.couplings.within import Labels
from cellflow.renamed import warn
from cellflow.shapes import as_states


def clouds_of(snapshots: Sequence[Tensor], *, names: Sequence[str]) -> list[Tensor]:
    """Return clouds in one precision, the highest of theirs, and single for whole numbers; without gradients.

    Parameters
    ----------
    snapshots
        Clouds of points, ``(n_k, ...)`` each.
    names
        What a message calls them.

    Raises
    ------
    TypeError, ValueError
        When one is not a plain tensor of finite real numbers, is empty, or has states of another shape or device.

    Examples
    --------
    >>> whole = torch.ones(4, 2, dtype=torch.int64)
    >>> [cloud.dtype for cloud in clouds_of([whole, whole.double()], names=("x0", "x1"))]
    [torch.float64, torch.float64]
    """
    if len(list(snapshots)) != len(names):  # of a table the rows are counted, and the columns gone through
        raise TypeError(f"Expected a list of clouds, each a tensor; found {type(snapshots).__name__}.")
    for both in pairwise(zip(snapshots, names, strict=True)):
        (x0, name0), (x1, name1) = both
        check_clouds(x0, x1, names=(name0, name1))
    floats = [cloud.dtype if cloud.is_floating_point() else torch.float32 for cloud in snapshots]
    return [cloud.detach().to(reduce(torch.promote_types, floats)) for cloud in snapshots]


def numbers_of(given: Any, n: int, *, name: str, of: str) -> list[float]:
    """Return ``n`` finite numbers, given in any form.

    Parameters
    ----------
    given
        The numbers.
    n
        How many there must be.
    name, of
        What a message calls the argument, and what each number belongs to.

    Raises
    ------
    TypeError, ValueError
        When they are not numbers, too few, too many, or not finite.

    Examples
    --------
    >>> numbers_of((1, 2.5), 2, name="masses", of="snapshot")
    [1.0, 2.5]
    """
    found = as_states(given, what=f"`{name}`").double()
    if found.shape != (n,) or not bool(torch.isfinite(found).all()):
        raise ValueError(
            f"Expected a finite number in `{name}` for each {of}, {n} in all; found {found.tolist()!r:.80}."
        )
    return [float(number) for number in found.tolist()]


def numbers_of_points(given: Sequence[Any], sizes: Sequence[int], name: str) -> list[Tensor]:
    """Return one finite number for each point of each snapshot, in double precision.

    Examples
    --------
    >>> numbers_of_points([[1], [2, 3]], (1, 2), "weights")[1]
    tensor([2., 3.], dtype=torch.float64)
    """
    found = [as_states(values, what=f"`{name}`").double() for values in given]
    if [tuple(values.shape) for values in found] != [(size,) for size in sizes]:
        held = [len(values) if values.ndim == 1 else tuple(values.shape) for values in found]
        raise ValueError(f"Expected a number in `{name}` for each point, {list(sizes)}; found {held}.")
    if not all(torch.isfinite(values).all() for values in found):
        raise ValueError(f"Expected finite `{name}`; found NaN or infinity.")
    return found


def groups_of(within: Sequence[Labels], sizes: Sequence[int], *, weighed: bool) -> list[Tensor]:
    """Return the group of every point as a number; refuse groups without possible pairs.

    Parameters
    ----------
    within
        The group of each point of each snapshot.
    sizes
        Numbers of points.
    weighed
        Whether pairs carry masses: the growth of a group that one of two neighbours lacks is unknown.

    Examples
    --------
    >>> groups_of([["a", "b"], ["b", "a"]], (2, 2), weighed=False)
    [tensor([0, 1]), tensor([1, 0])]
    """
    found = [_labels(labels) for labels in within]
    if [len(labels) for labels in found] != list(sizes):
        raise ValueError(f"Expected a group in `within` for each point, {list(sizes)}; found {[*map(len, found)]}.")
    names, numbers = np.unique(np.concatenate(found), return_inverse=True)
    each = np.split(numbers, np.cumsum(sizes[:-1]))
    lacking = []
    for k, (before, after) in enumerate(pairwise(set(numbers.tolist()) for numbers in each), start=1):
        if not before & after:
            raise ValueError(f"Snapshots {k} and {k + 1} have no group in common, so there are no pairs within groups.")
        lacking += [f"{names[g]} in {k + 1} (after {k})" for g in sorted(before - after)]
        lacking += [f"{names[g]} in {k} (before {k + 1})" for g in sorted(after - before)]
    if lacking:
        message = f"Of {len(sizes)} snapshots, some lack groups of their neighbours: {', '.join(lacking)}."
        if weighed:
            raise ValueError(f"{message} Their growth is unknown: leave these cells out, or pair without `within`.")
        warn(f"{message} Cells of these groups have no partner there and are left out.")
    return [torch.from_numpy(part) for part in each]


def _labels(labels: Labels) -> np.ndarray:
    """Return the names of groups, or their whole numbers, ``(n,)``."""
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    texts = found.dtype == object and all(isinstance(name, str) for name in found.flat)
    known = found.dtype.kind in "biuU" or texts or (found.dtype.kind == "f" and bool(np.isfinite(found).all()))
    if found.ndim != 1 or not known:
        raise ValueError(
            "Expected the group of each point in `within`: names, or whole numbers, (n,) for each snapshot; found "
            f"{found.dtype} of shape {found.shape}, or missing ones."
        )
    return found.astype(str) if texts else found
