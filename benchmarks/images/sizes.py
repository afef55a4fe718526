"""How large the network and its training are: for one CPU core, or as published for a GPU."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

import cellflow as cf
from cellflow.seeds import seeded


@dataclass(frozen=True)
class Size:
    """Network, training and scoring of one size.

    Parameters
    ----------
    width, multipliers, blocks, dropout
        Of the U-Net; levels that a picture cannot be halved for are left out.
    patch
        Side of the squares of pixels that become channels before the network: 2 makes it four times cheaper.
    batch, steps
        Of the training.
    recipe
        How the optimiser runs.
    images
        How many test images are translated or generated for the scores, at most.
    solver
        Numbers of solver steps that are compared.
    simulated
        Pairs that a bridge makes anew in every round.
    device
        Where all of it runs.
    """

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    dropout: float
    patch: int
    batch: int
    steps: int
    recipe: cf.training.Recipe
    images: int
    solver: tuple[int, ...]
    simulated: int
    device: str = "cpu"

    def network(self, shape: tuple[int, int, int], *, heads: int, generator: torch.Generator) -> nn.Module:
        """Return a fresh network for images of this shape ``(c, h, w)``.

        Examples
        --------
        >>> net = SIZES["cpu"].network((1, 28, 28), heads=1, generator=cf.generator(seed=0))
        >>> net(torch.zeros(2), torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 1, 28, 28])
        """
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
    """A network that sees squares of pixels as channels.

    Parameters
    ----------
    network
        Called as ``network(t, x, condition)`` with images of ``side**2`` times the channels.
    side
        Of a square.

    Examples
    --------
    >>> echo = Patches(lambda t, x, condition: x, 2)
    >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> torch.equal(echo(torch.zeros(1), x), x)
    True
    """

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the field at times ``t`` ``(n,)``, images ``x`` and condition."""
        return pixel_shuffle(self.network(t, pixel_unshuffle(x, self.side), condition), self.side)


CPU = cf.training.Recipe(learning_rate=2e-3, warmup=50, ema=0.995)
GPU = cf.training.Recipe(learning_rate=2e-4, warmup=5000, ema=0.9999, schedule="constant", precision="bf16")
SIZES = {
    "cpu": Size(
        width=24, multipliers=(1, 2), blocks=1, dropout=0.0, patch=2, batch=32, steps=3000, recipe=CPU, images=256,
        solver=(1, 4, 16), simulated=512,
    ),
    "gpu": Size(
        width=128, multipliers=(1, 2, 2, 2), blocks=2, dropout=0.1, patch=1, batch=128, steps=100_000, recipe=GPU,
        images=2000, solver=(1, 4, 16, 64), simulated=20_000, device="cuda",
    ),
}  # fmt: skip
"""The two sizes. That of the GPU is the network and the optimiser of Tong et al. 2024 for CIFAR-10 (35.7 million
parameters), with a fourth of its steps."""
