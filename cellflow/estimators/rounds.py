"""Further rounds of training on a flow's own pairs, made some samples at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cellflow.estimators.image_flow import check_settings
from cellflow.objectives import Objective
from cellflow.paths import GaussianPath
from cellflow.training import History, MarkovianFitting, Recipe, Reflow, Repairing, refit


def repairing_for(path: GaussianPath, *, stochastic: bool) -> Repairing:
    """Return how a flow pairs anew: a bridge by its own diffusion (DSBM), a deterministic flow by its ends (Reflow).

    Examples
    --------
    >>> import cellflow as cf
    >>> repairing_for(cf.paths.Linear(), stochastic=False)
    Reflow(solver=Fixed(method='rk4', steps=100), both_ends=False)
    """
    return MarkovianFitting(sigma=path.sigma) if stochastic else Reflow()


def go_on(
    field: nn.Module,
    objective: Objective,
    ends: tuple[Tensor, Tensor],
    *,
    history: History,
    repairing: Repairing,
    rounds: int,
    steps: int,
    batch_size: int,
    recipe: Recipe | None,
    generator: torch.Generator,
    condition: Tensor | None = None,
    progress: bool,
) -> None:
    """Train a fitted field for some rounds more, pairs made a batch at a time, and write on in its history.

    Parameters
    ----------
    field, objective, rounds, steps, recipe, generator, condition, progress
        As for `cellflow.training.refit`.
    ends
        Samples of source and target.
    history
        That of the fit, to which the rounds are added.
    repairing
        A way that makes each pair from one sample.
    batch_size
        Pairs in a step, and samples that are paired anew at a time.

    Raises
    ------
    ValueError, TypeError
        For settings that make no sense, or a way to pair anew that is none.
    """
    check_settings(steps, batch_size, recipe)
    if not callable(repairing):
        raise TypeError(f"Expected a way to pair anew, such as `cf.training.Reflow()`; found {repairing!r}.")
    found = refit(
        field,
        objective,
        *ends,
        repairing=InParts(repairing, size=batch_size),
        rounds=rounds,
        steps=steps,
        generator=generator,
        batch_size=batch_size,
        recipe=recipe,
        condition=condition,
        progress=progress,
    )
    for name, column in history.columns.items():
        column += [value for one in found for value in one[name]]


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
        self,
        field: nn.Module,
        objective: Objective,
        x0: Tensor,
        x1: Tensor,
        *,
        turn: int,
        generator: torch.Generator,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return pairs ``(n, ...)`` and ``(n, ...)`` for round ``turn``, in the order of the way itself."""
        n = min(len(x0), len(x1), -(-max(len(x0), len(x1)) // self.size))
        known = [{}] * n if condition is None else [{"condition": part} for part in torch.tensor_split(condition, n)]
        parts = list(zip(torch.tensor_split(x0, n), torch.tensor_split(x1, n), strict=True))
        found = [
            self.repairing(field, objective, a, b, turn=turn, generator=generator, **given)
            for (a, b), given in zip(parts, known, strict=True)
        ]
        # Where there is a pair for each point of both sides, those of x0 go first, of all parts, then those of x1.
        cuts = [_from_x0(len(a), len(b), len(y0)) for (a, b), (y0, _) in zip(parts, found, strict=True)]
        y0, y1 = (
            [part.tensor_split([cut]) for part, cut in zip(side, cuts, strict=True)]
            for side in zip(*found, strict=True)
        )
        return _sorted(y0), _sorted(y1)


def _from_x0(n0: int, n1: int, pairs: int) -> int:
    """Return how many pairs come from the points of x0, where points of both sides may each have made one."""
    return n0 if pairs == n0 + n1 else pairs


def _sorted(parts: list[tuple[Tensor, ...]]) -> Tensor:
    first, second = zip(*parts, strict=True)
    return torch.cat([*first, *second])
