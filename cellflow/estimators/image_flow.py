"""What every flow of images needs: a network for their shape, training with looks in between, and parts in turn."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cellflow import networks, training
from cellflow.batch import Batch
from cellflow.integrate import Trajectory
from cellflow.objectives import Objective
from cellflow.training import History, Recipe
from cellflow.training.checkpoint import STATE, load_tensors
from cellflow.training.interrupt import Interrupt, goodbye

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Make = Callable[..., nn.Module]
"""From the width of vectors, or the channels of images, to a network."""

COARSEST = 16
"""Longest side, in pixels, on which every pixel looks at every other."""
_WIDTH = 32


class Session(NamedTuple):
    """How a training is run, whatever is trained.

    Parameters
    ----------
    folder, resume, fabric
        As for `cellflow.training.fit`.
    watch
        Called every so many steps with what happened so far, and the averaged weights in the field; None for never.
    every
        How many steps.
    """

    folder: str | Path | None = None
    resume: bool = False
    fabric: "Fabric | None" = None
    watch: Callable[[History], None] | None = None
    every: int = 1000


def check_settings(steps: object, batch_size: object, recipe: object) -> None:
    """Raise where settings are of the wrong kind.

    Raises
    ------
    ValueError, TypeError
        When numbers are none, or below 1; when the recipe is none.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"Expected `{name}` to be a whole number >= 1; found {value!r}.")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise TypeError(f"Expected `recipe` to be a `cf.training.Recipe`, or None; found {recipe!r}.")


def network_for(network: Make | str | None, shape: tuple[int, ...]) -> Make:
    """Return what makes the network: the one asked for, else the one that fits the shape of a sample.

    Vectors get an `MLP`. Images get a `UNet` of width 32 that halves them while both sides are even and more than
    four pixels long, at most three times, with attention from 16 pixels a side on.

    Raises
    ------
    ValueError
        When images cannot be halved down to where attention is affordable.

    Examples
    --------
    >>> network_for(None, (3, 32, 32)).keywords
    {'width': 32, 'multipliers': (1, 2, 2, 2), 'attention': (1, 2, 3)}
    """
    if network is not None:
        return networks.resolve(network)
    if len(shape) == 1:
        return networks.MLP
    sides = [shape[1:]]
    while all(side % 2 == 0 and side > 4 for side in sides[-1]) and len(sides) < 4:
        sides.append(tuple(side // 2 for side in sides[-1]))
    if max(sides[-1]) > COARSEST:
        raise ValueError(
            f"No network is known for images of {shape[1]} x {shape[2]}: halved while that is even, {len(sides) - 1} "
            f"time(s), they are still larger than {COARSEST} pixels a side. Resize them, with "
            "size=64 where they are read, or give a `network`."
        )
    return partial(
        networks.UNet,
        width=_WIDTH,
        multipliers=(1, 2, 2, 2)[: len(sides)],
        attention=tuple(level for level, two in enumerate(sides) if level and max(two) <= COARSEST),
    )


def train(
    field: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    steps: int,
    generator: torch.Generator,
    recipe: Recipe | None,
    about: Mapping[str, Any],
    progress: bool,
    session: Session,
) -> History:
    """Train as `cellflow.training.fit` does, in sittings where somebody watches: the weights are the same.

    Raises
    ------
    ValueError
        When somebody watches and there is no folder to go on from, or ``every`` is below 1.
    KeyboardInterrupt
        After Ctrl-C, also where it comes between two sittings: no look is cut off half-way.
    """
    with Interrupt() as interrupt:
        start = generator.get_state()
        history = History()
        for number, until in enumerate(_stops(session, steps)):
            history = training.fit(
                field,
                objective,
                batches,
                steps=steps,
                until=until,
                generator=torch.Generator(generator.device).set_state(start),
                recipe=recipe,
                folder=session.folder,
                resume=session.resume or number > 0,
                about=about,
                progress=progress,
                fabric=session.fabric,
            )
            if session.fabric is not None:
                session.fabric.barrier()  # until the state is written that all go on from
            if session.watch is not None and (session.fabric is None or session.fabric.is_global_zero):
                session.watch(history)
            if interrupt.pending:
                raise KeyboardInterrupt(goodbye(len(history), steps, session.folder))
    return history


def keeping_history(model: Any, watch: Callable[[Any], None] | None) -> Callable[[History], None] | None:
    """Return what a training calls so that ``watch`` sees the model as it is by then; None where nobody watches.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> look = keeping_history(SimpleNamespace(), lambda model: print(model.history_))
    >>> look(History({"loss": [2.0]}))
    History(1 steps, last loss 2)
    """
    if watch is None:
        return None

    def look(history: History) -> None:
        model.history_ = history
        watch(model)

    return look


def in_parts(flow: Callable[[Tensor], Trajectory], parts: Iterable[Tensor]) -> Trajectory:
    """Let states flow some at a time; return them all, on the CPU.

    Examples
    --------
    >>> import torch
    >>> stay = lambda x: Trajectory(torch.tensor([0.0, 1.0]), torch.stack([x, x]), 1)
    >>> in_parts(stay, [torch.zeros(2, 3), torch.zeros(1, 3)]).x.shape
    torch.Size([2, 3, 3])
    """
    found = [flow(part) for part in parts]
    return Trajectory(
        found[0].t.cpu(), torch.cat([one.x.cpu() for one in found], dim=1), sum(one.evaluations for one in found)
    )


def _stops(session: Session, steps: int) -> list[int]:
    """Return the steps after which a sitting ends."""
    if session.watch is None:
        return [steps]
    if session.folder is None or session.every < 1:
        raise ValueError("Looks in between need a `folder` to go on from, and `every` >= 1.")
    path = Path(session.folder) / STATE
    taken = load_tensors(path)[1].get("step", 0) if session.resume and path.exists() else 0
    first = (taken // session.every + 1) * session.every
    return [*range(first, steps, session.every), steps]
