"""How many states are carried at a time: the one place that decides, so that memory grows with the results alone."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from cellflow.fields import Field, Outputs, outputs
from cellflow.integrate import Adaptive, Solver, Trajectory
from cellflow.seeds import generator, generator_at
from cellflow.shapes import in_precision
from cellflow.training.recipe import check_settings
from cellflow.training.run import progress_bar

MOST_ROWS, MOST_NUMBERS = 2**16, 2**24
"""States that are carried together, and numbers in them, 64 MiB in single precision: solvers keep some ten copies."""
IN_A_CACHE, ON_A_DEVICE = 2**18, 2**26
"""Numbers in one layer of a network, 1 MiB and 256 MiB in single precision: several of these fit the cache of a CPU;
a GPU is busy with less."""
PIXELS_IN_A_CACHE, PIXELS_ON_A_DEVICE = 2**16, 2**21
"""Pixels of images that are carried together: at 64 x 64 on a CPU 16 images, which take half the time that 128 do."""
MOST_IMAGES, VECTORS_IN_A_CACHE, VECTORS_ON_A_DEVICE = 128, 2**11, 2**15
"""Images of any size, and vectors of any length, that are carried together."""


@dataclass(frozen=True, eq=False)
class Portion:
    """States that are carried together.

    Parameters
    ----------
    number
        Its number; noise depends on a seed, this number, and the position of a state in the portion.
    rows
        Its states among all.
    x
        The states ``(k, d)``, in the precision and on the device of the model.
    times
        Model times of each, ``(k,)`` each.
    condition
        The condition that the field sees, ``(k, width)``; ``None`` for none.
    """

    number: int
    rows: slice
    x: Tensor
    times: tuple[Tensor, ...]
    condition: Tensor | None

    def noise(self, seed: int) -> torch.Generator:
        """Return the generator of the noise of these states."""
        device = self.x.device
        return generator_at(seed, self.number, device) if self.number else generator(seed=seed, device=device)


@dataclass(frozen=True, eq=False)
class Inputs:
    """States, their times and conditions, of which some at a time go to the device of a model.

    Parameters
    ----------
    x
        States ``(n, d)``.
    like
        A weight of the model.
    times
        Model times, ``(n,)`` each.
    condition
        The condition that the field sees, ``(n, width)``; ``None`` for none.
    shown
        Whether to show a progress bar if there are several portions, as in `cellflow.training.run.progress_bar`.
    """

    x: Tensor
    like: Tensor
    times: tuple[Tensor, ...] = ()
    condition: Tensor | None = None
    shown: bool | None = None

    def evaluated(self, evaluate: Callable[[Portion], Tensor]) -> Tensor:
        """Return what is evaluated at all states, ``(n, ...)``, on the CPU."""
        found: Tensor | None = None
        with torch.no_grad(), self._bar(slices := rows_of(*self.x.shape)) as bar:
            for number, rows in enumerate(slices):
                found = _put(found, evaluate(self._portion(number, rows)), rows, len(self.x), axis=0)
                bar(rows.stop, None)
        return cast("Tensor", found)

    def carried(self, carry: Callable[[Portion], Trajectory], *, solver: Solver) -> Trajectory:
        """Return the trajectories of all states, on the CPU; the times are those of the last portion.

        An adaptive solver chooses its steps for all states together: they are then one portion.
        """
        adaptive, n = isinstance(solver, Adaptive), len(self.x)
        x: Tensor | None = None
        log_weight: Tensor | None = None
        with self._bar(slices := [slice(0, n)] if adaptive else rows_of(*self.x.shape)) as bar:
            for number, rows in enumerate(slices):
                part = carry(self._portion(number, rows))
                x = _put(x, part.x, rows, n, axis=1)
                if part.log_weight is not None:
                    log_weight = _put(log_weight, part.log_weight, rows, n, axis=1)
                bar(rows.stop, None)
        return Trajectory(part.t.cpu(), cast("Tensor", x), part.evaluations, log_weight)

    def log_weight(self, some: Portion) -> Tensor:
        """Return the log weight of each state of a portion at the start, where all states together weigh 1."""
        return some.x.new_full((len(some.x),), -math.log(len(self.x)) if len(self.x) else 0.0)

    def _portion(self, number: int, rows: slice) -> Portion:
        x, seen = in_precision(self.x[rows], self.like, what="`x`"), self.condition
        seen = None if seen is None else in_precision(seen[rows], x, what="`condition`")
        return Portion(number, rows, x, tuple(time[rows] for time in self.times), seen)

    def _bar(self, slices: list[slice]) -> AbstractContextManager[Callable[[int, float | None], None]]:
        shown = self.shown if len(slices) > 1 else False
        return progress_bar(shown=shown, start=0, steps=len(self.x), what="carrying cells")


def rows_of(n: int, dim: int) -> list[slice]:
    """Return which of ``n`` states of ``dim`` numbers are carried together, from these two numbers only.

    Noise depends on it: up to here all states have the noise of one generator, as they are drawn.

    Examples
    --------
    >>> rows_of(100_000, 50), rows_of(0, 50)
    ([slice(0, 65536, None), slice(65536, 100000, None)], [slice(0, 0, None)])
    """
    step = max(1, min(MOST_ROWS, MOST_NUMBERS // max(1, dim)))
    return [slice(start, min(start + step, n)) for start in range(0, max(n, 1), step)]


def few_at_once(field: Field, dim: int) -> Any:
    """Return a field that is evaluated on few states at a time: on a CPU as many as fit its cache.

    To rounding it returns the same, in bounded memory; with many states on a CPU in about two thirds of the time.

    Parameters
    ----------
    field
        A field, which may return more than a velocity.
    dim
        Width of the states.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> from cellflow.estimators.fields import blank, build_field
    >>> field, t, x = build_field(cf.networks.MLP, blank(2), ("score",)), torch.rand(5000), torch.rand(5000, 2)
    >>> found, known = few_at_once(field, 2)(t, x, None), field(t, x, None)
    >>> torch.allclose(found.velocity, known.velocity), torch.allclose(found.score_drift, known.score_drift)
    (True, True)
    """
    width = _width(field, dim)

    def evaluated(t: Tensor, x: Tensor, condition: Tensor | None, /) -> Outputs:
        rows = max(64, (IN_A_CACHE if x.device.type == "cpu" else ON_A_DEVICE) // width)
        if len(x) <= rows:
            return outputs(field(t, x, condition))
        found: list[Tensor | None] = []
        for start in range(0, len(x), rows):
            some = slice(start, start + rows)
            part = outputs(field(t[some], x[some], None if condition is None else condition[some]))
            found = found or [None if one is None else one.new_empty((len(x), *one.shape[1:])) for one in part]
            for whole, one in zip(found, part, strict=True):
                if whole is not None and one is not None:
                    whole[some] = one
        return Outputs._make(found)

    evaluated.__wrapped__ = field  # type: ignore[attr-defined]
    return evaluated


def at_once(batch_size: int | None, shape: tuple[int, ...], device: torch.device) -> int:
    """Return how many samples a translator or a generator carries together.

    Parameters
    ----------
    batch_size
        How many are asked for; ``None`` for as many as are quickest, of vectors or images ``shape`` on this device.

    Raises
    ------
    ValueError
        When it is below 1.

    Examples
    --------
    >>> cpu, gpu = torch.device("cpu"), torch.device("cuda")
    >>> [at_once(None, shape, cpu) for shape in ((1, 8, 8), (3, 64, 64), (3, 512, 512), (50,))]
    [128, 16, 1, 2048]
    >>> [at_once(None, (3, side, side), gpu) for side in (64, 512)], at_once(7, (3, 64, 64), gpu)
    ([128, 8], 7)
    """
    check_settings(1, 1 if batch_size is None else batch_size, None)
    if batch_size is not None:
        return batch_size
    cpu = device.type == "cpu"
    if len(shape) == 1:
        return VECTORS_IN_A_CACHE if cpu else VECTORS_ON_A_DEVICE
    pixels = math.prod(shape[1:])
    return min(max((PIXELS_IN_A_CACHE if cpu else PIXELS_ON_A_DEVICE) // pixels, 1), MOST_IMAGES)


def in_parts(
    flow: Callable[[Tensor], Trajectory], parts: Iterable[Tensor], *, n: int = 0, batch_size: int = 1
) -> Trajectory:
    """Carry states in portions; return all of them, on the CPU.

    Parameters
    ----------
    flow, parts
        What carries a portion, and the portions.
    n, batch_size
        Number of states in all and in a portion, with which the log tells the time left if that is long.

    Examples
    --------
    >>> import torch
    >>> stay = lambda x: Trajectory(torch.tensor([0.0, 1.0]), torch.stack([x, x]), 1)
    >>> in_parts(stay, [torch.zeros(2, 3), torch.zeros(1, 3)]).x.shape
    torch.Size([2, 3, 3])
    """
    steps, found = -(-n // batch_size), []
    with progress_bar(shown=False, start=0, steps=steps, what=f"carrying {n} samples, {batch_size} at once") as bar:
        for number, part in enumerate(parts, start=1):
            found.append(flow(part))
            bar(number, None)
    return Trajectory(
        found[0].t.cpu(), torch.cat([one.x.cpu() for one in found], dim=1), sum(one.evaluations for one in found)
    )


def _put(whole: Tensor | None, part: Tensor, rows: slice, n: int, *, axis: int) -> Tensor:
    """Write a part into a whole on the CPU, which is made once; where a part is all of it, nothing is copied."""
    if part.shape[axis] == n:
        return part.cpu()
    if whole is None:
        shape = (*part.shape[:axis], n, *part.shape[axis + 1 :])
        whole = torch.empty(shape, dtype=part.dtype)
    whole.narrow(axis, rows.start, part.shape[axis]).copy_(part)
    return whole


def _width(field: Any, dim: int) -> int:
    """Return the widest input of a layer of a network: what it keeps of each state; of a function, a usual width."""
    layers = field.modules() if isinstance(field, nn.Module) else ()
    return max(128, 2 * dim, *(one.in_features for one in layers if isinstance(one, nn.Linear)))
