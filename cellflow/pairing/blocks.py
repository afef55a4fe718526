"""Blocks of pairs: each serves many steps of a training, and any block can be made without those before it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cellflow.couplings import Coupling, Plan
from cellflow.pairing.masses import Masses, WeighedPlan, match
from cellflow.seeds import generator_at

Pairs = tuple[Tensor, ...]
"""Source and target points, and where asked for the logs of their masses at both ends."""


@dataclass(frozen=True)
class Whole:
    """Pairs of an interval, drawn from one plan over both whole snapshots."""

    plan: Plan
    drawn: Plan | WeighedPlan
    seed: int
    steps_per_block: int

    def block(self, index: int, batch_size: int) -> Pairs:
        """Draw the pairs of ``steps_per_block`` batches: every cell about equally often."""
        return self.drawn.sample(
            self.steps_per_block * batch_size, generator=generator_at(self.seed, index), replace=False
        )


@dataclass(frozen=True)
class Super:
    """Pairs of an interval, each block of steps from a plan between fresh random parts of the snapshots."""

    x0: Tensor
    x1: Tensor
    coupling: Coupling
    size: int
    seed: int
    steps_per_block: int
    masses: Masses | None

    def block(self, index: int, batch_size: int) -> Pairs:
        """Match two random parts, and draw the pairs of ``steps_per_block`` batches."""
        generator = generator_at(self.seed, index)
        rows, columns = (torch.randperm(len(x), generator=generator)[: self.size] for x in (self.x0, self.x1))
        parts = self.x0[rows.to(self.x0.device)], self.x1[columns.to(self.x1.device)]
        _, drawn = match(self.coupling, *parts, self.masses)
        i, j, *masses = drawn.sample(self.steps_per_block * batch_size, generator=generator, replace=False)
        return rows.to(i.device)[i], columns.to(j.device)[j], *masses
