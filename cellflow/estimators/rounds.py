"""Further rounds of training on a flow's own pairs, made some samples at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cellflow.objectives import Objective
from cellflow.paths import GaussianPath
from cellflow.training import MarkovianFitting, Reflow, Repairing


def repairing_for(path: GaussianPath, score: str | None) -> Repairing:
    """Return how a flow pairs anew: a bridge by its own diffusion (DSBM), a deterministic flow by its ends (Reflow).

    Examples
    --------
    >>> import cellflow as cf
    >>> repairing_for(cf.paths.Linear(), None)
    Reflow(steps=100, both_ends=False)
    """
    return Reflow() if score is None else MarkovianFitting(sigma=path.sigma)


@dataclass(frozen=True)
class InParts:
    """A way to pair anew, some samples at a time.

    Parameters
    ----------
    repairing
        A way that makes each pair from one sample, as `Reflow` and `MarkovianFitting` do.
    size
        How many samples at a time.
    """

    repairing: Repairing
    size: int

    def __call__(
        self, field: nn.Module, objective: Objective, x0: Tensor, x1: Tensor, *, turn: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return pairs ``(n, ...)`` and ``(n, ...)`` for round ``turn``."""
        n = min(len(x0), len(x1), -(-max(len(x0), len(x1)) // self.size))
        parts = (torch.tensor_split(x, n) for x in (x0, x1))
        pairs = [
            self.repairing(field, objective, a, b, turn=turn, generator=generator) for a, b in zip(*parts, strict=True)
        ]
        return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
