"""Outer loops: fit again and again on pairs of the model's own, as in reflow and iterative Markovian fitting."""

from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, is_dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.couplings import Given
from cellflow.errors import CheckpointError
from cellflow.integrate import Adaptive, Fixed, Noisy, ode, resolve, sde
from cellflow.objectives import Objective
from cellflow.pairing.batches import paired_batches
from cellflow.renamed import Rules, renamed
from cellflow.signature import checked_but
from cellflow.training.checkpoint import STATE, load_tensors, refuse_existing, save_tensors
from cellflow.training.history import History
from cellflow.training.kinds import check_record, one_of
from cellflow.training.loop import fit
from cellflow.training.reading import Entry, read_header
from cellflow.training.recipe import Recipe
from cellflow.training.resumption import read_stated
from cellflow.training.run import OLD_KEYWORDS, Run

GENERATOR = "generator.safetensors"
"""Name of the file with the state of the generator at the start of a round's training."""

OLD_REFITTING: Rules = {"repairing": lambda coupling: {"coupling": coupling}}
"""The former keyword of a coupling that a model makes, see `cellflow.renamed.renamed`."""


class ModelCoupling(Protocol):
    """A coupling that a model makes itself, by carrying points."""

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
        """Return pairs ``(n, ...)`` and ``(n, ...)`` for round ``turn``, counted from 0.

        One pair for each point of one side, in order; or for each point of both sides, those of ``x0`` first.
        ``condition`` ``(n, k)`` belongs to the points of either side.
        """
        ...


@checked_but("solver")
@dataclass(frozen=True)
class Reflow:
    """Pair each source point with the end of its trajectory: trajectories become straighter with every round.

    Parameters
    ----------
    solver
        Solver of the trajectories: as for `cellflow.integrate.ode`.
    both_ends
        Whether to carry target points back too. Half of the pairs then end at real points, so that errors of the
        model's own samples do not accumulate over rounds, at twice the time. Off in the published method.

    Source
    ------
    Liu, Gong and Liu 2023, algorithm 1; Kim et al. 2025 (simple reflow) for pairs that end at real points.

    Examples
    --------
    >>> Reflow()
    Reflow(solver=Fixed(method='rk4', steps=100), both_ends=False)
    """

    solver: Fixed | Adaptive | str | int = Fixed(steps=100)
    both_ends: bool = False
    steps: InitVar[int | None] = None  # the old name of a number of steps

    def __post_init__(self, steps: int | None) -> None:
        old = {} if steps is None else {"steps": steps}
        solver = resolve(self.solver, default=Fixed(steps=100), verb="Reflow", noisy="MarkovianFitting", old=old)
        object.__setattr__(self, "solver", solver)

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
        """Return source points and the ends of their trajectories; then the starts of trajectories to target points."""
        velocity = objective.velocity(field)
        ends = ode(velocity, x0, solver=self.solver, condition=condition).x[-1]
        if not self.both_ends:
            return x0, ends
        starts = ode(velocity, x1, solver=self.solver, start=1.0, stop=0.0, condition=condition).x[-1]
        return torch.cat([x0, starts]), torch.cat([ends, x1])


@checked_but("solver")
@dataclass(frozen=True)
class MarkovianFitting:
    """Pair points by the model's own diffusion, started from the source and from the target in alternating rounds.

    The process converges to the Schrödinger bridge of scale ``sigma``, and keeps both marginals in every round, since
    one end of each pair is a real point.

    Parameters
    ----------
    sigma
        Scale of the noise: that of the path of the objective.
    solver
        Solver of the simulation: as for `cellflow.integrate.sde`.

    Raises
    ------
    ValueError
        When sigma is not above 0.
    TypeError
        For a solver without noise.

    Source
    ------
    Shi et al. 2023, algorithm 1; one field with two heads serves both directions.

    Examples
    --------
    >>> MarkovianFitting(sigma=1.0)
    MarkovianFitting(sigma=1.0, solver=Noisy(steps=100, method='heun', power=1.0, denoise=False))
    """

    sigma: float
    solver: Noisy | str | int = Noisy()
    steps: InitVar[int | None] = None  # the old name of a number of steps

    def __post_init__(self, steps: int | None) -> None:
        old = {} if steps is None else {"steps": steps}
        solver = resolve(self.solver, default=Noisy(), verb="MarkovianFitting", smooth="Reflow", old=old)
        object.__setattr__(self, "solver", solver)
        if not self.sigma > 0:
            raise ValueError(f"Expected sigma > 0; found {self.sigma}. Without noise, use `Reflow`.")

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
        """Return pairs that are simulated forward in even rounds, backward in odd ones."""
        simulate = partial(sde, field, sigma=self.sigma, solver=self.solver, generator=generator, condition=condition)
        if turn % 2 == 0:
            return x0, simulate(x0).x[-1]
        return simulate(x1, start=1.0, stop=0.0).x[-1], x1


@checked_but("coupling", "rounds")
def refit(
    field: nn.Module,
    objective: Objective,
    x0: Tensor,
    x1: Tensor,
    *,
    rounds: int,
    steps: int,
    generator: torch.Generator,
    coupling: ModelCoupling = Reflow(),
    batch_size: int = 256,
    at_once: int | None = None,
    recipe: Recipe | None = None,
    condition: Tensor | None = None,
    run: Run | None = None,
    about: Mapping[str, Any] | None = None,
    **old: Any,
) -> list[History]:
    """Train a fitted field further on its own pairs, in several rounds.

    Parameters
    ----------
    field
        A fitted field, for example on independent pairs.
    objective
        The loss to minimise.
    x0, x1
        Source and target points, ``(n, ...)`` and ``(m, ...)``.
    rounds
        Number of rounds.
    steps
        Training steps per round.
    generator
        Seeds all random numbers.
    coupling
        How the field makes new pairs: `Reflow` or `MarkovianFitting`.
    batch_size
        Pairs per batch.
    at_once
        Number of points of each side from which to make pairs at a time; ``None`` for all.
    recipe
        How the optimiser runs in each round; ``None`` for ``Recipe()``.
    condition
        Condition of each point, ``(n, k)``: the same for the source point and the target point of one row.
    run
        Folder, resumption, monitoring and devices; each round has its own folder within that of the run, and
        ``watch`` sees the history of all rounds so far.
    about
        As for `cellflow.training.fit`.

    Returns
    -------
    list of History
        One for each round.

    Raises
    ------
    ValueError
        When ``rounds`` is not a whole number >= 1, ``at_once`` is below 1, or the condition has another number of rows
        than there are points.
    TypeError
        When ``coupling`` does not come from the model, as those of `cellflow.couplings`.
    FileExistsError, FloatingPointError, CheckpointError, KeyboardInterrupt
        As for `cellflow.training.fit`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> rng = cf.generator(seed=0)
    >>> field, objective = cf.networks.MLP(dim=2, width=16), cf.objectives.VelocityMatching()
    >>> x = torch.randn(50, 2, generator=rng)
    >>> len(refit(field, objective, x, x + 1, rounds=2, steps=5, generator=rng))
    2
    """
    given = renamed("refit", old, OLD_KEYWORDS | OLD_REFITTING)
    run, coupling = given.get("run", run) or Run(), given.get("coupling", coupling)
    if not isinstance(rounds, Integral) or rounds < 1:
        raise ValueError(f"Expected a whole number of rounds >= 1; found {rounds!r}.")
    if not callable(coupling) or isinstance(coupling, type) or hasattr(coupling, "keeps_mass"):
        raise TypeError(f"Expected a coupling made by the model, such as `cf.training.Reflow()`; found {coupling!r}.")
    if not callable(getattr(objective, "velocity", None)):
        raise TypeError(
            "Expected an objective that knows the velocity of its field, as `cf.objectives.VelocityMatching()` does; "
            f"found {objective!r:.60}."
        )
    if at_once is not None and not at_once >= 1:
        raise ValueError(f"Expected at_once >= 1, or None; found {at_once}.")
    if condition is not None and not len(x0) == len(x1) == len(condition):
        raise ValueError(
            "Expected as many source points as target points, and a condition for each; found "
            f"{len(x0)}, {len(x1)} and {len(condition)}."
        )
    with run.locked():
        if run.folder is not None and not run.resume:
            refuse_existing(_folder(run, 0) / STATE)
        histories: list[History] = []
        for turn in range(rounds):
            here = _round(run, turn, sum(histories, History()))
            dtype = next(field.parameters()).dtype  # that of the last round, which may have made the field double
            x0, x1, condition = x0.to(dtype), x1.to(dtype), None if condition is None else condition.to(dtype)
            batches: Iterable[Batch] = ()
            if not _finished(here, steps, generator):
                y0, y1 = model_pairs(
                    field, objective, x0, x1, coupling=coupling, turn=turn, generator=generator, condition=condition,
                    at_once=at_once,
                )  # fmt: skip
                known = None if condition is None else torch.cat([condition] * (len(y0) // len(condition)))
                batches = paired_batches(
                    y0, y1, coupling=Given(), batch_size=batch_size, generator=generator, condition=known
                )
                if here.folder is not None and here.leads:
                    save_tensors(Path(here.folder) / GENERATOR, {"state": generator.get_state()}, {"kind": "generator"})
            told = {**(about or {}), "round": turn, "coupling": _said(coupling)}
            found = fit(
                field, objective, batches, steps=steps, generator=generator, recipe=recipe, run=here, about=told
            )
            histories.append(found)
    return histories


def model_pairs(
    field: nn.Module,
    objective: Objective,
    x0: Tensor,
    x1: Tensor,
    *,
    coupling: ModelCoupling,
    turn: int,
    generator: torch.Generator,
    condition: Tensor | None = None,
    at_once: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Make the pairs of one round, in chunks, in the order of `ModelCoupling`."""
    longer = max(len(x0), len(x1))
    n = min(len(x0), len(x1), -(-longer // (at_once or longer)))
    # A callable without conditions need not take one.
    known = [{}] * n if condition is None else [{"condition": part} for part in torch.tensor_split(condition, n)]
    parts = list(zip(torch.tensor_split(x0, n), torch.tensor_split(x1, n), strict=True))
    found = [
        coupling(field, objective, a, b, turn=turn, generator=generator, **given)
        for (a, b), given in zip(parts, known, strict=True)
    ]
    for pairs in found:
        if not isinstance(pairs, tuple) or len(pairs) != 2 or not all(isinstance(side, Tensor) for side in pairs):
            shown = type(pairs).__name__
            raise TypeError(f"Expected `coupling` to return both ends of pairs, two tensors; found {shown}.")
    # Where there is a pair for each point of both sides, those of x0 go first, of all parts, then those of x1.
    cuts = [len(a) if len(y0) == len(a) + len(b) else len(y0) for (a, b), (y0, _) in zip(parts, found, strict=True)]
    first, second = (
        zip(*(part.tensor_split([cut]) for part, cut in zip(side, cuts, strict=True)), strict=True)
        for side in zip(*found, strict=True)
    )
    return _joined(first), _joined(second)


def _said(coupling: ModelCoupling) -> str:
    """Return what must be equal where a round is resumed: the settings, or the name of a function."""
    return repr(coupling) if is_dataclass(coupling) else getattr(coupling, "__qualname__", type(coupling).__qualname__)


def _joined(halves: Iterable[tuple[Tensor, ...]]) -> Tensor:
    return torch.cat([part for half in halves for part in half])


def _folder(run: Run, turn: int) -> Path:
    return Path(run.folder or "") / f"round-{turn}"


def _round(run: Run, turn: int, past: History) -> Run:
    """Return the run of one round: in a folder of its own, watched with the history of earlier rounds."""
    watch = run.watch
    told = None if watch is None else lambda history: watch(past + history)
    if run.folder is None:
        return replace(run, watch=told)
    folder = _folder(run, turn)
    return replace(run, folder=folder, resume=run.resume and (turn == 0 or (folder / STATE).exists()), watch=told)


def _finished(run: Run, steps: int, generator: torch.Generator) -> bool:
    """Return whether a round was finished before; restore the generator to the start of its training."""
    if not run.resume or read_stated(Path(run.folder or "") / STATE)["step"] != steps:
        return False
    _restore(generator, Path(run.folder or "") / GENERATOR)
    return True


def _restore(generator: torch.Generator, path: Path) -> None:
    """Set a generator to a saved state.

    Raises
    ------
    CheckpointError
        When the file holds none.
    """
    header, damaged = read_header(path), f"{path} does not hold the state of a generator"
    cure = "Use another copy, or start the training again in another folder."
    check_record(header.about, {"kind": one_of("generator")}, what=damaged, cure=cure)
    if header.tensors != {"state": Entry("U8", tuple(generator.get_state().shape))}:
        raise CheckpointError(f"{damaged} on this device: expected one tensor `state` of its size. {cure}")
    try:
        generator.set_state(load_tensors(path)[0]["state"])
    except RuntimeError as error:  # torch looks whether its numbers can be a state
        raise CheckpointError(f"{damaged}: {error}. {cure}") from error
