"""The training loop."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from itertools import count, islice
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.modes import own_modes
from cellflow.objectives import Objective
from cellflow.renamed import renamed
from cellflow.seeds import draw_seed, generator_at, seeded
from cellflow.signature import checked_but
from cellflow.together import together
from cellflow.training.checkpoint import STATE, TrainingState, refuse_existing
from cellflow.training.compiled import compiled
from cellflow.training.history import History
from cellflow.training.losses import LARGEST, check_batch, check_field, check_function, largest, not_finite, terms_of
from cellflow.training.recipe import PRECISIONS, Recipe
from cellflow.training.run import OLD_KEYWORDS, Interrupt, Run, Stopped, progress_bar
from cellflow.training.stopping import HELD_OUT, EarlyStopping

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SEEN_AT = (1, 5)
"""Steps of a training that are shown too, so that the time left is known soon."""
READ_EVERY = 10
"""Steps between two looks at the losses: reading one waits for the device."""
OnStep = Callable[[int, Mapping[str, float]], object]
"""From the number of a step, counted from 1, and its terms to anything: a logger."""


@checked_but("batches")
@own_modes()
def fit(
    field: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    steps: int,
    generator: torch.Generator,
    recipe: Recipe | None = None,
    run: Run | None = None,
    until: int | None = None,
    about: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
    stopping: EarlyStopping | None = None,
    **old: Any,
) -> History:
    """Train a field in place, and return the history.

    On return ``field`` holds the averaged weights, if the recipe averages. The same seed gives the same weights,
    also across an interruption: 100 steps and a resumed 100 equal 200, bit for bit on the CPU.

    Parameters
    ----------
    field
        The module to train.
    objective
        The loss to minimise.
    batches
        Any iterable of batches: those of `cellflow.pairing.paired_batches`, a torch ``DataLoader``, a list, a
        generator. Iterables that can be iterated again are repeated when they run out. What an iterable draws from
        torch's global random state, such as the order of a ``DataLoader``, follows from the seed.
    steps
        Total number of training steps, including those before resuming.
    generator
        Seeds the noise and the times of the objective; advances by one number.
    recipe
        How the optimiser runs; ``None`` for ``Recipe()``.
    run
        Folder, resumption, monitoring and devices of the training; ``None`` for ``Run()``.
    until
        Step after which to stop, with a schedule that still spans ``steps``: for training in several parts.
    about
        Further settings, as JSON, that must be equal when the training resumes, such as a digest of the data.
    on_step
        Called with the number of each step and its terms as numbers, for any logger; a few steps late, since reading
        them waits for the device.
    stopping
        When to stop early, judged by held-out batches; their loss is in the history as ``"validation"``, NaN at steps
        without a measurement.

    Raises
    ------
    FileExistsError
        When the folder of the run already holds a training, and ``resume`` is false.
    FloatingPointError
        When the loss is not finite; the message names the step.
    CheckpointError
        When there is nothing to resume from, the state does not match, or another process trains in the folder.
    ValueError
        When the batches run out, or mixed precision is requested for a field in double precision.
    OSError
        When the state cannot be written, as on a full disk; what was saved before is unchanged.
    KeyboardInterrupt
        After Ctrl-C, SIGTERM or SIGHUP, once the current step is finished and, given a folder, saved; with several
        processes, some steps later.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> rng = cf.generator(seed=0)
    >>> field = cf.networks.MLP(dim=2, width=16)
    >>> batches = cf.pairing.paired_batches(torch.zeros(9, 2), torch.ones(9, 2), batch_size=4, generator=rng)
    >>> fit(field, cf.objectives.VelocityMatching(), batches, steps=20, generator=rng)
    History(20 steps, last loss ...)
    """
    run = renamed("fit", old, OLD_KEYWORDS).get("run", run) or Run()
    recipe = recipe or Recipe()
    seed = draw_seed(generator)
    check_field(field)
    check_function(on_step, name="on_step")
    if str(recipe.precision) == "64":
        field.double()
    run = run.joined(device=next(field.parameters()).device.type, recipe=recipe)
    fabric = run.fabric or _fabric_for(field, recipe)
    state = TrainingState(field, recipe, seed, about or {}, processes=fabric.world_size)
    with run.locked():
        _open(state, run)
        last = steps if until is None else min(until, steps)
        state.require_within(last)
        last = state.step if _stops(state, stopping) else last
        stream = _train(state, objective, _shared(batches, state, last, fabric), steps, last, fabric)
        shown = run.progress if fabric.is_global_zero else False
        with Interrupt() as interrupt, progress_bar(shown=shown, start=state.step, steps=steps) as bar:
            saves, told = _Saves(state, run, fabric), on_step if fabric.is_global_zero else None
            first, due = state.step, _first_look(run)
            rows: list[dict[str, Tensor | float]] = []
            for row in stream:
                rows.append(row)
                if stopping is not None:
                    row.update(_measured(state, objective, stopping, fabric))
                    if stopping.measures(state.step):
                        _read(rows, state, on_step=told, fabric=fabric)
                ends = state.step == last or _stops(state, stopping)
                watching = run.watch is not None and (ends or state.step % run.watch_every == 0)
                looking = ends or watching or saves.due() or len(rows) == READ_EVERY
                early = not watching and time.monotonic() >= due
                stops, late, early = _agreed([interrupt.pending, saves.late(), early], looking, fabric)
                watching, due = watching or early, inf if watching or early else due
                if looking or stops or late or early:
                    _read(rows, state, on_step=told, fabric=fabric)
                    if ends or stops or late or saves.due():
                        saves.save()
                    bar(state.step, state.history["loss"][-1])
                elif rows and state.step - first in SEEN_AT:
                    bar(state.step, float(rows[-1]["loss"]))
                if watching and not stops:
                    _watch(state, cast("Callable[[Any], object]", run.watch), fabric)
                    stops = fabric.world_size == 1 and interrupt.pending
                if stops:
                    saves.save()  # of what was not saved before `watch` was called
                    fabric.barrier()  # no process says that it stopped before the first one has saved
                    raise Stopped(state.step, steps, run.folder)
                if ends:
                    break
    state.settle()
    return state.history


class _Saves:
    """When the state of a training is saved: by steps and by the clock; by the first process."""

    def __init__(self, state: TrainingState, run: Run, fabric: "Fabric") -> None:
        self._state, self._run, self._leads = state, run, fabric.is_global_zero
        self._time, self._step = time.monotonic(), -1

    def due(self) -> bool:
        """Return whether it is a step after which to save, the same ones in all processes."""
        return self._run.folder is not None and self._state.step % self._run.save_every == 0

    def late(self) -> bool:
        """Return whether the last save is long ago."""
        minutes = None if self._run.folder is None else self._run.save_minutes
        return minutes is not None and time.monotonic() - self._time >= 60 * minutes

    def save(self) -> None:
        """Save the state, if there is a folder, and once for each step."""
        if self._run.folder is not None and self._state.step != self._step:
            if self._leads:
                self._state.save(Path(self._run.folder) / STATE)
            self._time, self._step = time.monotonic(), self._state.step


def _first_look(run: Run) -> float:
    """Return when ``watch`` is called at the latest, by the clock that only rises."""
    return inf if run.watch is None or run.watch_first is None else time.monotonic() + 60 * run.watch_first


def _agreed(wishes: list[bool], looking: bool, fabric: "Fabric") -> list[bool]:
    """Return what any of several processes wishes: where they look, which is at the same steps, and otherwise nothing.

    Without, one would stop after a step that the others have finished, and these would wait for it for ever.
    """
    if fabric.world_size == 1:
        return wishes
    if not looking:
        return [False] * len(wishes)
    found = fabric.all_reduce(torch.tensor(wishes, dtype=torch.float32, device=fabric.device), reduce_op="sum")
    return [value > 0 for value in cast("Tensor", found).tolist()]


def _open(state: TrainingState, run: Run) -> None:
    """Load the state in a folder to resume it; otherwise refuse to overwrite one."""
    if run.folder is None:
        return
    path = Path(run.folder) / STATE
    if run.resume:
        state.load(path)
    else:
        refuse_existing(path)


def _train(
    state: TrainingState, objective: Objective, batches: Iterator[Batch], steps: int, last: int, fabric: "Fabric"
) -> Iterator[dict[str, Tensor | float]]:
    """Take steps until there are ``last``, on a schedule of ``steps``; yield the terms of each, still on the device."""
    recipe = state.recipe
    left, processes = last - state.step, fabric.world_size
    field = compiled(state.field, recipe, steps=left, device=fabric.device, processes=processes)
    model, optimizer = fabric.setup(field, state.optimizer)
    state.field.train()
    dtype, draws = next(state.field.parameters()).dtype, _draws(state.field)
    while state.step < last:
        rate = recipe.rate_at(state.step, steps=steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        terms: dict[str, Tensor] = {}
        for micro in range(recipe.accumulate):
            batch = check_batch(next(batches)).to(fabric.device, dtype)
            position = (state.step * recipe.accumulate + micro) * fabric.world_size + fabric.global_rank
            numbers = partial(generator_at, state.seed, position, device=fabric.device)
            with fabric.no_backward_sync(model, enabled=micro + 1 < recipe.accumulate):
                with seeded(numbers()) if draws else nullcontext():
                    found = terms_of(objective(model, batch, generator=numbers()))
                fabric.backward(found["loss"] / recipe.accumulate)
            for name, value in (*found.items(), (LARGEST, largest(batch))):
                terms[name] = terms.get(name, 0) + value.detach() / recipe.accumulate
        if recipe.clip is not None:
            fabric.clip_gradients(model, optimizer, max_norm=recipe.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        state.advance()
        yield {**terms, "learning_rate": rate}


def _read(
    rows: list[dict[str, Tensor | float]], state: TrainingState, *, on_step: OnStep | None, fabric: "Fabric"
) -> None:
    """Copy rows from the device into the history, and stop at the first loss that is not finite."""
    into = state.history
    for values in _numbers(_averaged(rows, fabric)):
        size = values.pop(LARGEST)
        if not -float("inf") < values["loss"] < float("inf"):
            raise not_finite(values["loss"], len(into) + 1, size, state.field, state.recipe)
        into.append(values)
        if on_step is not None:
            on_step(len(into), values)
    rows.clear()


def _numbers(rows: list[dict[str, Tensor | float]]) -> list[dict[str, float]]:
    """Return rows as numbers, all of them copied from the device at once."""
    held = [value.reshape(()) for row in rows for value in row.values() if isinstance(value, Tensor)]
    numbers = iter(torch.stack([value.to(held[-1].device) for value in held]).tolist() if held else [])
    return [
        {name: next(numbers) if isinstance(value, Tensor) else float(value) for name, value in row.items()}
        for row in rows
    ]


def _averaged(rows: list[dict[str, Tensor | float]], fabric: "Fabric") -> list[dict[str, Tensor | float]]:
    """Return rows whose terms are the means over all processes, each of which has batches of its own."""
    if fabric.world_size == 1 or not rows:
        return rows
    names = [name for name, value in rows[0].items() if isinstance(value, Tensor)]
    own = torch.stack([torch.stack([cast("Tensor", row[name]).double() for name in names]) for row in rows])
    mean = cast("Tensor", fabric.all_reduce(own, reduce_op="mean"))
    return [{**row, **dict(zip(names, values, strict=True))} for row, values in zip(rows, mean, strict=True)]


def _watch(state: TrainingState, watch: Callable[[Any], object], fabric: "Fabric") -> None:
    """Call ``watch`` with the averaged weights in the field, in the first process only, while the others wait."""
    if fabric.is_global_zero:
        with state.averaged(), together(None):
            watch(state.history)
    fabric.barrier()


def _measured(
    state: TrainingState, objective: Objective, stopping: EarlyStopping, fabric: "Fabric"
) -> dict[str, float]:
    """Return what the averaged weights are worth on held-out batches, NaN where not due; one for all processes."""
    if not stopping.measures(state.step):
        return dict.fromkeys(stopping.measured(objective), nan)
    with state.averaged():
        found = stopping.measure(state.field, objective)
    if fabric.world_size == 1:
        return found
    own = torch.tensor([*found.values()], dtype=torch.float64, device=fabric.device)
    return dict(zip(found, cast("Tensor", fabric.all_reduce(own, reduce_op="mean")).tolist(), strict=True))


def _stops(state: TrainingState, stopping: EarlyStopping | None) -> bool:
    """Return whether a training is over before its last step."""
    if stopping is None or not stopping.measures(state.step):
        return False
    return stopping.best(state.history.columns.get(HELD_OUT, [])) is not None


def _draws(field: nn.Module) -> bool:
    """Return whether a field draws random numbers of its own: torch's dropout takes no generator."""
    shares = [getattr(module, name, None) for module in field.modules() for name in ("p", "dropout")]
    return any(isinstance(share, float) and share > 0 for share in shares)


def _fabric_for(field: nn.Module, recipe: Recipe) -> "Fabric":
    """Return a Fabric for one device: the one on which the field is."""
    from lightning_fabric import Fabric

    weight = next(field.parameters())
    device = weight.device
    if weight.dtype == torch.float64 and PRECISIONS[str(recipe.precision)] != "32-true":
        raise ValueError(
            "Mixed precision is for fields in single precision; this one is in double. Found precision="
            f"{recipe.precision!r} in the recipe: leave it out."
        )
    devices = 1 if device.type in ("cpu", "mps") else [device.index or 0]
    return Fabric(accelerator=device.type, devices=devices, precision=PRECISIONS[str(recipe.precision)])


def _shared(batches: Iterable[Batch], state: TrainingState, last: int, fabric: "Fabric") -> Iterator[Batch]:
    """Iterate over the batches of this device from the current step: directly if supported, otherwise by skipping."""
    each = state.recipe.accumulate * fabric.world_size
    first = state.step * each + fabric.global_rank
    if isinstance(batches, type) or not hasattr(batches, "__iter__"):
        raise TypeError(f"Expected `batches` to yield `cellflow.Batch`; found {batches!r}, which is not iterable.")
    iterate = getattr(batches, "iterate", None)
    stream = iterate(first) if iterate else islice(_repeated(batches, last * each, state.seed), first, None)
    return stream if fabric.world_size == 1 else islice(stream, 0, None, fabric.world_size)


def _repeated(batches: Iterable[Batch], needed: int, seed: int) -> Iterator[Batch]:
    """Yield batches, repeated when they run out; their random numbers follow from the seed and their number."""
    stream = None
    for number in count():
        with seeded(generator_at(seed, number)):
            stream = iter(batches) if stream is None else stream
            batch = next(stream, None)
            if batch is None and stream is not batches and number:  # an iterator is its own: it cannot begin again
                stream = iter(batches)
                batch = next(stream, None)
        if batch is None:
            raise ValueError(
                f"The batches ran out after {number}, and {needed} are needed. Give more of them, or an iterable that "
                "can restart: a list, a DataLoader, or batches of `cellflow.pairing`."
            )
        if not isinstance(batch, Batch):
            raise TypeError(f"Expected batches as `cellflow.Batch`; found {type(batch).__name__}.")
        yield batch
