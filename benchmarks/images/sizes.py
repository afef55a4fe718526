"""How large the network and its training are: for one CPU core, or as published for a GPU."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

import cellflow as cf
from benchmarks.command import Several, numbers, parse, parser
from cellflow.seeds import seeded


@dataclass(frozen=True)
class Size:
    """Network, training and scoring of one size."""

    width: int
    multipliers: tuple[int, ...]  # of the levels of the U-Net; those that a picture cannot be halved for are left out
    blocks: int
    dropout: float
    patch: int  # side of the squares of pixels that become channels: 2 makes the network four times cheaper
    batch: int
    steps: int
    recipe: cf.training.Recipe
    images: int  # translated or generated for the scores, at most
    solver: tuple[int, ...]  # numbers of solver steps that are compared
    simulated: int  # images that are paired anew, or whose trajectories are followed
    flow_steps: int = 0  # of the flow that few-step methods start from
    device: str = "cpu"

    def network(self, shape: tuple[int, int, int], *, heads: int = 1, generator: torch.Generator) -> nn.Module:
        """Return a fresh network for images of this shape ``(c, h, w)``."""
        channels, height, width = shape
        levels = len(self.multipliers)
        while levels > 1 and (height % (self.patch << levels - 1) or width % (self.patch << levels - 1)):
            levels -= 1
        with seeded(generator):
            net: nn.Module = cf.networks.UNet(
                channels * self.patch**2, width=self.width, multipliers=self.multipliers[:levels],
                blocks=self.blocks, dropout=self.dropout, heads=heads,
            )  # fmt: skip
        return (net if self.patch == 1 else Patches(net, self.patch)).to(self.device)


class Patches(nn.Module):
    """A network ``network(t, x, condition)`` that sees squares of ``side`` pixels as channels."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the field at times ``t`` ``(n,)``, images ``x`` and condition."""
        return pixel_shuffle(self.network(t, pixel_unshuffle(x, self.side), condition), self.side)


CPU = Size(
    width=24, multipliers=(1, 2), blocks=1, dropout=0.0, patch=2, batch=32, steps=3000, images=256, solver=(1, 4, 16),
    simulated=512, recipe=cf.training.Recipe(learning_rate=2e-3, warmup=50, ema=0.995),
)  # fmt: skip
GPU = Size(
    width=128, multipliers=(1, 2, 2, 2), blocks=2, dropout=0.1, patch=1, batch=128, steps=100_000, images=2000,
    solver=(1, 4, 16, 64), simulated=20_000, device="cuda",
    recipe=cf.training.Recipe(learning_rate=2e-4, warmup=5000, ema=0.9999, schedule="constant", precision="bf16"),
)  # fmt: skip
"""Network and optimiser of Tong et al. 2024 for CIFAR-10 (35.7 million parameters), with a fourth of its steps."""


def arguments(
    kind: str,
    about: str | None,
    tasks: Sequence[str],
    methods: Iterable[str],
    sizes: Mapping[str, Size],
    words: Sequence[str] | None,
    **more: tuple[object, str],
) -> argparse.Namespace:
    """Return what was asked for; ``sized`` is the size with all that was given instead of its own.

    ``more`` are options of one kind of benchmark: by name, their default and help.
    """
    made = parser(f"images {kind}", about)
    made.add_argument("--task", type=Several(tasks), default=[tasks[0]], help=f"{', '.join(tasks)}, or all")
    made.add_argument("--method", type=Several(methods), default=list(methods), help="names with commas, or all")
    made.add_argument("--size", choices=list(sizes), default=next(iter(sizes)))
    made.add_argument("--steps", type=int, help="optimiser steps, instead of those of the size")
    made.add_argument("--flow-steps", type=int, help="those of the flow that few-step methods start from")
    made.add_argument("--batch", type=int, help="images in a batch")
    made.add_argument("--images", type=int, help="images that are translated or generated for the scores, at most")
    made.add_argument("--simulated", type=int, help="images that are paired anew, or whose trajectories are followed")
    made.add_argument("--solver", type=numbers, help="numbers of solver steps, such as 1,4,16,64")
    made.add_argument("--device", help="cpu or cuda")
    for name, (default, help_) in more.items():
        way: Any = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        made.add_argument(f"--{name}", help=help_, **way)
    found = parse(made, words)
    changes = {field.name: getattr(found, field.name, None) for field in fields(Size)}
    found.sized = replace(sizes[found.size], **{name: value for name, value in changes.items() if value})
    return found
