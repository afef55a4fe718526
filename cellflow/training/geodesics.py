"""Geodesic pairs: paths that stay near the data, along geodesics of a learned metric."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.errors import ConvergenceError
from cellflow.fields import Field
from cellflow.modes import single_precision
from cellflow.networks import MLP, Standardized
from cellflow.objectives.energy import PathEnergy, bend_pairs
from cellflow.pairing.metric import rbf_metric
from cellflow.seeds import seeded
from cellflow.signature import checked
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe

SPREADS = (1e-17, 1e17)
"""Spreads of data at which squares of distances stay within single precision."""


@checked
@dataclass(frozen=True)
class Geodesics:
    """Paths along geodesics of a metric that is learned from the snapshots.

    A curve (see `cellflow.pairing.Curve`): a network learns the two bends of each pair before the field is trained. The
    matching does not change. Use it if cells move along a curved manifold that straight lines would leave.

    Parameters
    ----------
    centres, spread, floor
        See `cellflow.pairing.rbf_metric`. More centres and a smaller floor keep paths closer to the data.
    steps
        Training steps of the network.
    learning_rate
        Its peak learning rate.

    Source
    ------
    Kapusniak et al. 2024, section 4 (metric flow matching).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> clouds = [torch.randn(40, 2, generator=cf.generator(seed=k)) for k in range(3)]
    >>> curve, rng = Geodesics(centres=10, steps=5), cf.generator(seed=0)
    >>> batches = cf.pairing.snapshot_batches(clouds, [0.0, 0.5, 1.0], curve=curve, generator=rng)
    >>> next(iter(batches)).bend0.shape
    torch.Size([512, 2])
    """

    centres: int = 100
    spread: float = 1.0
    floor: float = 1e-2
    steps: int = 1000
    learning_rate: float = 2e-3

    @checked
    def bends(
        self,
        snapshots: Sequence[Tensor],
        times: Sequence[float],
        batches: Iterable[Batch],
        *,
        generator: torch.Generator,
    ) -> "LearnedBends":
        """Learn the metric from all snapshots, and the bends of pairs from batches of them.

        Parameters
        ----------
        snapshots
            Clouds of points, ``(n_k, d)``.
        times
            Not used: batches carry their own.
        batches
            An endless stream of straight pairs.
        generator
            Seeds the metric, the network and its training.

        Raises
        ------
        ConvergenceError
            When the training diverges.
        """
        points = torch.cat(list(snapshots))
        unit = float(points.std(dim=0).square().sum().sqrt())
        if not SPREADS[0] < unit < SPREADS[1]:
            raise ValueError(
                f"Geodesics need data with a spread between {SPREADS[0]:g} and {SPREADS[1]:g}; found {unit:.2g}. "
                "Rescale them, or choose another `curve`."
            )
        metric = rbf_metric(points, centres=self.centres, spread=self.spread, floor=self.floor, generator=generator)
        shift, scale = points.mean(dim=0).repeat(2), points.std(dim=0).repeat(2)
        with seeded(generator), single_precision():
            field = Standardized(MLP(2 * points.shape[1]), shift=shift, scale=scale, speed=scale).to(points.device)
        energy = PathEnergy(metric, unit=unit)
        recipe = Recipe(self.learning_rate, warmup=min(100, self.steps // 10), ema=0.99)
        fit(field, energy, batches, steps=self.steps, generator=generator, recipe=recipe)
        learned = LearnedBends(field.eval())
        rows = torch.zeros(0, dtype=torch.long)
        bent = learned(next(iter(batches)), rows, rows)
        if not all(bool(bend.isfinite().all()) for bend in (bent.bend0, bent.bend1) if bend is not None):
            raise ConvergenceError(
                f"The bends of pairs are not finite: their training has diverged. Lower `learning_rate` (now "
                f"{self.learning_rate:g}), or raise `floor` (now {self.floor:g})."
            )
        return learned


@checked
@dataclass(frozen=True, eq=False)
class LearnedBends:
    """Adds the bends that a trained network predicts.

    Parameters
    ----------
    field
        From the start times of pairs ``(n,)`` and both ends side by side ``(n, 2 d)`` to both bends side by side.

    Examples
    --------
    >>> import torch
    >>> bends = LearnedBends(lambda t, x, condition: torch.ones_like(x))
    >>> rows = torch.zeros(1, dtype=torch.long)
    >>> bends(Batch(torch.zeros(1, 1), torch.ones(1, 1)), rows, rows).bend1
    tensor([[1.]])
    """

    field: Field

    @torch.no_grad()
    def __call__(self, batch: Batch, source: Tensor, target: Tensor) -> Batch:
        """Return the batch with its bends; the rows ``source`` and ``target`` are not used."""
        return bend_pairs(self.field, batch)
