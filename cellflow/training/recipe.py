"""The settings of the optimiser, in one object."""

from dataclasses import dataclass
from math import cos, inf, pi
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cellflow.errors import unknown
from cellflow.signature import checked

SCHEDULES = ("cosine", "constant")
COMPILED = ("auto", "graphs")
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "64": "32-true", "bf16": "bf16-mixed"}
"""Precision in the terms of Fabric. For double precision the field and its batches are converted: Fabric's own way
swaps torch's default precision at every step, for all threads."""


@checked
@dataclass(frozen=True)
class Recipe:
    """Settings of the optimiser.

    Parameters
    ----------
    learning_rate
        Peak learning rate of AdamW.
    schedule
        Learning rate after the warm-up: ``"cosine"`` decays to zero, or ``"constant"``.
    warmup
        Steps over which the learning rate rises from zero; below 1 a share of all steps: ``0.05`` for a twentieth.
    ema
        Decay of the averaged weights per step; 0 for the last weights. The decay is smaller at first, so that the
        initial weights do not matter.
    clip
        Largest norm of the gradient; ``None`` for no clipping.
    weight_decay
        Decoupled weight decay.
    accumulate
        Batches per training step.
    precision
        ``"64"`` converts the field to double precision permanently; ``"32"`` does not change it; ``"bf16"`` for mixed
        precision.
    compile
        Whether the field is compiled before training, which takes half a minute and pays off on long runs:
        ``"graphs"`` also saves a GPU the launches of small networks; ``"auto"`` for graphs if there is one GPU and the
        training is long, and otherwise no compilation.

    Examples
    --------
    >>> recipe = Recipe(learning_rate=1.0, warmup=10)
    >>> recipe.rate_at(4, steps=100), round(recipe.rate_at(55, steps=100), 6)
    (0.5, 0.5)
    >>> Recipe(warmup=0.1).warmup_steps(100), recipe.warmup_steps(10_000)
    (10, 10)
    """

    learning_rate: float = 2e-3
    schedule: str = "cosine"
    warmup: float = 100
    ema: float = 0.999
    clip: float | None = 1.0
    weight_decay: float = 1e-5
    accumulate: int = 1
    precision: str | int = "32"
    compile: bool | str = False

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(unknown("schedule", self.schedule, SCHEDULES))
        if str(self.precision) not in PRECISIONS:
            raise ValueError(unknown("precision", self.precision, PRECISIONS))
        if isinstance(self.compile, str) and self.compile not in COMPILED:
            raise ValueError(unknown("compile", self.compile, (*COMPILED, "True", "False")))
        if not 0 <= self.ema < 1:
            raise ValueError(f"Expected 0 <= ema < 1; found {self.ema}.")
        if not (0 < self.learning_rate < inf and 0 <= self.weight_decay < inf) or not 0 <= self.warmup < inf:
            raise ValueError(f"Expected learning_rate > 0, warmup >= 0 and weight_decay >= 0, finite; found {self}.")
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(f"Expected warmup as a whole number of steps, or as a share below 1; found {self.warmup}.")
        if self.accumulate < 1:
            raise ValueError(f"Expected accumulate >= 1; found {self.accumulate}.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"Expected clip > 0, or None; found {self.clip}.")

    @checked
    def rate_at(self, step: int, *, steps: int) -> float:
        """Return the learning rate of training step ``step`` of ``steps``, both counted from 0."""
        warmup = self.warmup_steps(steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + cos(pi * (step - warmup) / max(steps - warmup, 1))) / 2

    @checked
    def warmup_steps(self, steps: int) -> int:
        """Return over how many of ``steps`` the learning rate rises."""
        return round(self.warmup * steps) if self.warmup < 1 else int(self.warmup)

    @checked
    def optimizer(self, field: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW over the weights of ``field``."""
        return torch.optim.AdamW(field.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)

    @torch.no_grad()
    @checked
    def update_average(self, averaged: list[Tensor], current: list[Tensor], *, step: int) -> None:
        """Update the averaged weights after ``step`` training steps; the first one copies the weights."""
        decay = min(self.ema, (step - 1) / (step + 8))
        get_ema_multi_avg_fn(decay)(averaged, current, step)


def check_settings(steps: object, batch_size: object, recipe: object) -> None:
    """Raise for invalid settings of a training.

    Raises
    ------
    ValueError, TypeError
        When a number is not whole, or below 1; when the recipe is of another class.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"Expected `{name}` to be a whole number >= 1; found {value!r}.")
    if recipe is not None and not isinstance(recipe, Recipe):
        raise TypeError(f"Expected `recipe` to be a `cf.training.Recipe`, or None; found {recipe!r}.")
