"""torchcfm as others train it: its matchers, its plain network, its loop."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cellflow.errors import optional

KINDS = {
    "independent": "ConditionalFlowMatcher",
    "exact": "ExactOptimalTransportConditionalFlowMatcher",
    "bridge": "SchrodingerBridgeConditionalFlowMatcher",
}


def is_there(package: str = "torchcfm") -> bool:
    """Say whether a package is installed, and print where it is not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"skipped {package}: it is not installed (`make bench` installs torchcfm and diffusers)")
    return found


def matcher(kind: str, sigma: float) -> Any:
    """Return a matcher of torchcfm."""
    module = optional("torchcfm.conditional_flow_matching", install="pip install --no-deps torchcfm")
    return getattr(module, KINDS[kind])(sigma=sigma)


class PlainMLP(nn.Module):
    """Three hidden layers of 64 with SELU on ``[t, x]``, a linear output: the network of torchcfm's examples."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers = [(nn.Linear(wide, narrow), nn.SELU()) for wide, narrow in pairwise([dim + 1, 64, 64, 64])]
        self.net: Callable[[Tensor], Tensor] = nn.Sequential(*chain(*layers), nn.Linear(64, dim))

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net(torch.cat([t[:, None], x], dim=1))


class Loop:
    """torchcfm's training loop, a number of steps at a time.

    ``draw`` returns times ``(n,)``, states and velocities ``(n, dim)``, from the global state of torch and NumPy.
    """

    def __init__(self, dim: int, draw: Callable[[], Any], rate: float = 1e-3, decay: float = 1e-5) -> None:
        self.field, self.draw, self.loss = PlainMLP(dim), draw, torch.zeros(())
        self.optimizer = torch.optim.AdamW(self.field.parameters(), lr=rate, weight_decay=decay)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            t, x, velocity = self.draw()
            self.optimizer.zero_grad()
            self.loss = (self.field(t, x) - velocity).square().mean()
            self.loss.backward()
            self.optimizer.step()


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global state that a peer draws from, and put it back afterwards."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
