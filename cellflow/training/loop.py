"""The one loop that trains."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.objectives import Objective
from cellflow.seeds import draw_seed, generator_at, seeded
from cellflow.training.checkpoint import STATE, TrainingState
from cellflow.training.history import History
from cellflow.training.interrupt import Interrupt, goodbye
from cellflow.training.progress import progress_bar
from cellflow.training.recipe import PRECISIONS, Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

READ_EVERY = 10
"""Steps between two looks at the losses: reading one waits for the device."""


def fit(
    field: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    steps: int,
    generator: torch.Generator,
    recipe: Recipe | None = None,
    until: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    save_every: int = 1000,
    progress: bool = False,
    fabric: "Fabric | None" = None,
) -> History:
    """Train a field in place, and return what happened.

    On return ``field`` holds the averaged weights, if the recipe averages. The same seed gives the same weights,
    also across an interruption: 100 steps and a resumed 100 equal 200, bit for bit on the CPU.

    Parameters
    ----------
    field
        The module to train.
    objective
        What is minimised.
    batches
        Batches without end, the same ones at every iteration, as from `cellflow.pairing.paired_batches`.
    steps
        Optimiser steps in all, those before a resumption included.
    generator
        Seeds the noise and the times of the objective; advances by one number.
    recipe
        How the optimiser runs; None for ``Recipe()``.
    until
        Step after which to stop, with a schedule that still spans ``steps``: to train in several sittings.
    folder
        Where the training state is kept, to resume from; None keeps none.
    resume
        Whether to go on from the state in ``folder``.
    about
        What else must be the same when the training is resumed, as JSON: settings, a digest of the data.
    save_every
        Steps between two saves of the training state.
    progress
        Whether to show a bar with the loss and the time left.
    fabric
        A launched ``lightning_fabric.Fabric``, for several devices, which share the batches out; None trains where
        the field is.

    Raises
    ------
    FileExistsError
        When ``folder`` holds a training already, and it is not to be resumed.
    FloatingPointError
        When the loss is not finite; the message names the step.
    CheckpointError
        When there is nothing to resume from, or what is there does not fit.
    KeyboardInterrupt
        After Ctrl-C, once the step under way is finished and, given a ``folder``, saved.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> rng = cf.generator(seed=0)
    >>> field = cf.networks.MLP(dim=2, width=16)
    >>> batches = cf.pairing.paired_batches(torch.zeros(9, 2), torch.ones(9, 2), batch_size=4, generator=rng)
    >>> fit(field, cf.objectives.VelocityMatching(), batches, steps=20, generator=rng)
    History(20 steps, last loss ...)
    """
    recipe = recipe or Recipe()
    seed = draw_seed(generator)
    fabric = fabric or _fabric_for(field, recipe)
    if str(recipe.precision) == "64":
        field.double()
    state = TrainingState(field, recipe, seed, about or {})
    _open(state, folder, resume=resume, save_every=save_every)
    last = steps if until is None else min(until, steps)
    state.require_within(last)
    first = state.step * recipe.accumulate
    with Interrupt() as interrupt, progress_bar(shown=progress, start=state.step, steps=steps) as bar:
        rows: list[dict[str, Tensor | float]] = []
        for row in _train(state, objective, _from(batches, first, fabric), steps, last, fabric):
            rows.append(row)
            due = folder is not None and (state.step % save_every == 0 or state.step == last)
            if due or interrupt.pending or len(rows) == READ_EVERY or state.step == last:
                _read(rows, into=state.history)
                bar(state.step, state.history["loss"][-1])
            if folder is not None and (due or interrupt.pending) and fabric.is_global_zero:
                state.save(Path(folder) / STATE)
            if interrupt.pending:
                raise KeyboardInterrupt(goodbye(state.step, steps, folder))
    state.settle()
    return state.history


def _open(state: TrainingState, folder: str | Path | None, *, resume: bool, save_every: int) -> None:
    """Go back to the state in a folder where it is to be resumed; refuse to write over one otherwise."""
    if save_every < 1:
        raise ValueError(f"Expected save_every >= 1; found {save_every}.")
    if folder is None:
        return
    path = Path(folder) / STATE
    if resume:
        state.load(path)
    elif path.exists():
        raise FileExistsError(f"{path} is there already. Go on from it with `resume=True`, or choose another folder.")


def _train(
    state: TrainingState, objective: Objective, batches: Iterator[Batch], steps: int, last: int, fabric: "Fabric"
) -> Iterator[dict[str, Tensor | float]]:
    """Take steps until there are ``last``, on a schedule of ``steps``; yield the terms of each, still on the device."""
    recipe = state.recipe
    field = cast("nn.Module", torch.compile(state.field)) if recipe.compile else state.field
    model, optimizer = fabric.setup(field, state.optimizer)
    state.field.train()
    dtype, draws = next(state.field.parameters()).dtype, _draws(state.field)
    while state.step < last:
        rate = recipe.rate_at(state.step, steps=steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        terms: dict[str, Tensor] = {}
        for micro in range(recipe.accumulate):
            batch = next(batches).to(fabric.device, dtype)
            position = state.step * recipe.accumulate + micro
            numbers = partial(generator_at, state.seed + fabric.global_rank, position, device=fabric.device)
            with fabric.no_backward_sync(model, enabled=micro + 1 < recipe.accumulate):
                with seeded(numbers()) if draws else nullcontext():
                    found = objective(model, batch, generator=numbers())
                fabric.backward(found["loss"] / recipe.accumulate)
            for name, value in found.items():
                terms[name] = terms.get(name, 0) + value.detach() / recipe.accumulate
        if recipe.clip is not None:
            fabric.clip_gradients(model, optimizer, max_norm=recipe.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        state.advance()
        yield {**terms, "learning_rate": rate}


def _read(rows: list[dict[str, Tensor | float]], *, into: History) -> None:
    """Move rows from the device into the history, and stop at the first loss that is not finite."""
    for row in rows:
        values = {name: float(value) for name, value in row.items()}
        if not -float("inf") < values["loss"] < float("inf"):
            raise FloatingPointError(
                f"The loss is {values['loss']} at step {len(into) + 1}. Look for extreme values in the data, lower "
                "`Recipe.learning_rate`, or set `Recipe.clip`."
            )
        into.append(values)
    rows.clear()


def _draws(field: nn.Module) -> bool:
    """Return whether a field draws random numbers of its own: torch's dropout takes no generator."""
    shares = [getattr(module, name, None) for module in field.modules() for name in ("p", "dropout")]
    return any(isinstance(share, float) and share > 0 for share in shares)


def _fabric_for(field: nn.Module, recipe: Recipe) -> "Fabric":
    """Return a Fabric for one device: the one on which the field is."""
    from lightning_fabric import Fabric

    device = next(field.parameters()).device
    devices = 1 if device.type in ("cpu", "mps") else [device.index or 0]
    return Fabric(accelerator=device.type, devices=devices, precision=PRECISIONS[str(recipe.precision)])


def _from(batches: Iterable[Batch], start: int, fabric: "Fabric") -> Iterator[Batch]:
    """Iterate from batch ``start`` of this device on: directly where the batches know how, else by skipping."""
    first = start * fabric.world_size + fabric.global_rank
    iterate = getattr(batches, "iterate", None)
    stream = iterate(first) if iterate is not None else islice(iter(batches), first, None)
    return stream if fabric.world_size == 1 else islice(stream, 0, None, fabric.world_size)
