"""Whether a field is compiled before it is trained, and how."""

from typing import cast

import torch
from torch import nn

from cellflow.training.recipe import Recipe

LONG = 30_000
"""Steps from which ``"auto"`` compiles: half a minute of compiling, at a millisecond that a step then saves."""


def compiled(field: nn.Module, recipe: Recipe, *, steps: int, device: torch.device, processes: int = 1) -> nn.Module:
    """Return what training steps call: the field itself, or a compiled form that shares its weights.

    A step of a small network is hundreds of operations, each of which takes a GPU less time than its launch. Graphs
    launch all of them at once.

    Parameters
    ----------
    field
        The field.
    recipe
        Says how it is compiled.
    steps
        Steps that it is trained for.
    device, processes
        Where, and by how many processes.

    Raises
    ------
    ValueError
        When graphs are requested but impossible.

    Examples
    --------
    >>> field = nn.Linear(2, 2)
    >>> compiled(field, Recipe(compile="auto"), steps=100_000, device=torch.device("cpu")) is field
    True
    """
    graphs = device.type == "cuda" and processes == 1 and recipe.accumulate == 1
    way = recipe.compile
    if way == "auto":
        way = "graphs" if graphs and steps >= LONG else False
    if way == "graphs" and not graphs:
        raise ValueError(
            f"Graphs need one GPU and one batch per step, whose gradients they keep in fixed memory; found {processes} "
            f"process(es) on {device.type} and accumulate={recipe.accumulate}. Pass "
            "`Recipe(compile=True)`, or 'auto', which uses graphs if they are possible."
        )
    if not way:
        return field
    return cast("nn.Module", torch.compile(field, mode="reduce-overhead" if way == "graphs" else None))
