"""Settings suggested from the cells, each with the number behind it, and how long a fit takes on this machine."""

import logging
import math
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from cellflow import couplings, paths, training
from cellflow.cells.components import Components, components_above_noise
from cellflow.cells.snapshots import Snapshots, read_snapshots
from cellflow.cells.stores import Stored, as_adata
from cellflow.cells.suggest import SHARE, median_costs, suggest_relaxation
from cellflow.cells.suggest import suggest_sigma as sigma_of
from cellflow.couplings.unbalanced import EPSILON, RELAXATION
from cellflow.estimators import snapshot_members, snapshot_pairs
from cellflow.pairing import aside
from cellflow.seeds import generator
from cellflow.signature import checked_but
from cellflow.training import stopping
from cellflow.training.search import LONGER

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.snapshots import SnapshotFlow

log = logging.getLogger(__name__)

STEPS, PASSES = 3000, 20
"""Steps that are suggested: these, or as many as draw every cell so often."""
TIMED, EVERY = 30, 10
"""Steps that are timed, and steps between two looks at the clock: before the first one cells are paired."""
MOST, WIDTH = 0.9, 110


class Choice(NamedTuple):
    """A setting, what is suggested for it, and why."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class Suggestion:
    """What `SnapshotFlow.suggest` would choose: ``print`` it for the reasons.

    Parameters
    ----------
    n_pcs
        Columns of the representation; ``None`` for all.
    sigma
        Of a `cellflow.paths.BrownianBridge`, in units of the representation.
    epsilon, relaxation
        What the coupling ``"auto"`` amounts to in each interval, in squared units of the representation.
    steps
        Training steps.
    seconds
        Approximate maximum duration of the fit on this machine; less if few cells stop it early.
    settings
        What to set: ``flow.set_params(**suggestion.settings)``.
    choices
        The settings, with the reasons.
    about
        The cells, in words.
    """

    n_pcs: int | None
    sigma: float
    epsilon: tuple[float, ...]
    relaxation: tuple[float, ...]
    steps: int
    seconds: float
    settings: dict[str, Any]
    choices: tuple[Choice, ...]
    about: str

    def __str__(self) -> str:
        left = [max(len(choice[k]) for choice in self.choices) + 2 for k in (0, 1)]
        lines = [self.about]
        for name, value, why in self.choices:
            head = f"  {name:<{left[0]}}{value:<{left[1]}}"
            lines.append(textwrap.fill(why, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)))
        room = {"path": "cf.paths."}
        given = ", ".join(f"{name}={room.get(name, '')}{value!r}" for name, value in self.settings.items())
        return "\n".join([*lines, f"To use them: flow.set_params({given})"])


@checked_but("adata")
def suggest(self: "SnapshotFlow", adata: "AnnData | Stored") -> Suggestion:
    """Print suggested settings for these cells, the reasons, and how long the fit takes on this machine.

    Components are those above the noise of the genes, see `cellflow.cells.components`; sigma, epsilon and the
    relaxation follow from distances between snapshots; the time from a fit of a few steps. Nothing is set, and a fitted
    flow stays as it is. `cellflow.tl.tune` measures whether one choice predicts better than another, except for
    ``n_pcs``, which changes the units of distances: compare fates with clones or known markers.

    Parameters
    ----------
    adata
        The cells to fit, or their files.

    Returns
    -------
    Suggestion
        The numbers, and ``settings`` for ``flow.set_params``.

    Raises
    ------
    KeyError, ValueError
        As for `fit`.

    Examples
    --------
    >>> import cellflow as cf, scanpy as sc
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata, n_comps=30)
    >>> flow = cf.SnapshotFlow(time_key="hours")
    >>> found = flow.suggest(adata)
    For 271 cells of 4 snapshots, times 0 to 72, in 'X_pca' (30 columns):
    ...
    >>> found.settings
    {'n_pcs': 8, 'steps': 3000}
    >>> flow = flow.set_params(**found.settings)
    """
    self._check_settings()
    adata = snapshot_pairs.cells(self, adata)
    components, chosen = components_above_noise(adata, self.rep), self.n_pcs
    n_pcs = components.n_pcs if chosen is None and components.n_pcs != components.columns else chosen
    snapshots = read_snapshots(adata, time_key=self.time_key, rep=self.rep, n_pcs=n_pcs)
    snapshot_members.donors(self, adata, snapshots)  # refuses an ensemble that could not be fitted
    clouds = [torch.from_numpy(cloud) for cloud in snapshots.clouds()]
    rng = generator(seed=int(self.seed))
    sigma = sigma_of(clouds, snapshots.clock.times, generator=rng)
    costs = median_costs(clouds, generator=rng)
    epsilon, relaxation = [EPSILON.of(cost) for cost in costs], suggest_relaxation(clouds)
    steps = max(STEPS, math.ceil(PASSES * max(map(len, clouds)) / self.batch_size / 500) * 500)
    settings: dict[str, Any] = {} if n_pcs is None else {"n_pcs": n_pcs}
    settings |= {"steps": steps} | ({"path": paths.BrownianBridge(round(sigma, 4))} if self.stochastic else {})
    regular = aside.is_few(self.regularize, len(snapshots.x)) and couplings.resolve(self.coupling).divisible
    regular = regular and min(map(len, clouds)) >= aside.FEWEST
    (least, seconds), said = _timed(self, adata, settings, regular=regular)
    choices = (
        Choice("n_pcs", "all" if n_pcs is None else str(n_pcs), _components(components, chosen)),
        Choice("sigma", f"{sigma:.3g}", _sigma(self)),
        Choice("epsilon", _span(epsilon), f"with coupling='auto', by interval: {EPSILON.factor:.0%} of the median "
               "squared distance between its snapshots; at least 2 sigma^2 x interval where the path is a bridge"),
        Choice("relaxation", _span(relaxation), f"with coupling='auto', by interval: {RELAXATION.factor:.0%} of the "
               "mean squared travel of the exact plan; see cf.tl.growth for what depends on it"),
        Choice("steps", f"{steps:,}", _steps(snapshots, steps, self.batch_size, regular=regular)),
        Choice("time", _range(least, seconds), said),
    )  # fmt: skip
    times = snapshots.clock.times
    about = (
        f"For {len(snapshots.x):,} cells of {len(times)} snapshots, times {times[0]:g} to {times[-1]:g}, in "
        f"{self.rep!r} ({components.columns} columns):"
    )
    found = Suggestion(n_pcs, sigma, tuple(epsilon), tuple(relaxation), steps, seconds, settings, choices, about)
    print(found)  # noqa: T201
    return found


@checked_but("adata")
def suggest_sigma(self: "SnapshotFlow", adata: "AnnData | Stored") -> float:
    """Suggest a sigma for `cellflow.paths.BrownianBridge` from the cells, in units of the representation.

    Only ``time_key``, ``rep``, ``n_pcs`` and ``seed`` are used; see `cellflow.cells.suggest_sigma` for the rule.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> sigma = cf.SnapshotFlow(rep="X_latent").suggest_sigma(adata)
    >>> flow = cf.SnapshotFlow(rep="X_latent", path=cf.paths.BrownianBridge(sigma), stochastic=True)
    """
    cells = as_adata(adata, rep=self.rep, columns=[self.time_key])
    snapshots = read_snapshots(cells, time_key=self.time_key, rep=self.rep, n_pcs=self.n_pcs)
    clouds = [torch.from_numpy(cloud) for cloud in snapshots.clouds()]
    return sigma_of(clouds, snapshots.clock.times, generator=generator(seed=int(self.seed)))


def note_width(flow: "SnapshotFlow", columns: int) -> None:
    """Log that all columns of a representation are used, if none were chosen."""
    if flow.n_pcs is None and flow.rep != "X":
        log.info(
            "all %d columns of %r are used; `flow.suggest(adata)` shows how many are above noise, `n_pcs=` uses fewer",
            columns,
            flow.rep,
        )


def _components(found: Components, chosen: int | None) -> str:
    if chosen is not None:
        own = "" if found.n_pcs is None else f"; by the rule: {found.n_pcs}"
        return f"as it is set, of {found.columns}{own}"
    if found.n_pcs is None or found.noise is None:
        shares, total = np.cumsum(found.variance), sum(found.variance)
        most = int(np.searchsorted(shares, MOST * total)) + 1
        return f"of {found.columns}: {found.why}. The first {most} hold {MOST:.0%} of their variance"
    share = sum(found.variance[: found.n_pcs]) / sum(found.variance)
    return (
        f"of {found.columns}: {found.why} (at most {found.noise:.3g}; the first has {found.variance[0]:.3g}, the last "
        f"of these {found.variance[found.n_pcs - 1]:.3g}). They hold {share:.0%} of the variance of all columns; "
        "weak but real ones may lie below, and fates of blood were nearer to clones with all"
    )


def _sigma(flow: "SnapshotFlow") -> str:
    used = "" if flow.stochastic else " Only with stochastic=True and path=cf.paths.BrownianBridge(sigma)."
    return (
        f"the noise that corresponds to an epsilon of {SHARE:.0%} of the median squared distance between neighbouring "
        f"snapshots; a starting point, as snapshots do not show how noisy cells are.{used}"
    )


def _steps(snapshots: Snapshots, steps: int, batch_size: int, *, regular: bool) -> str:
    if regular:
        return (
            f"at most: of {len(snapshots.x):,} cells some are held out, and training stops once these no longer "
            "improve (regularize)"
        )
    most = max(map(len, snapshots.clouds()))
    return f"a rule of thumb: each cell of the largest snapshot is drawn {steps * batch_size / most:,.0f} times"


def _timed(
    flow: "SnapshotFlow", adata: "AnnData", settings: dict[str, Any], *, regular: bool
) -> tuple[tuple[float, float], str]:
    """Return the least and the most seconds of a fit, by that of a few steps, and what they are made of, in words."""
    looks = [time.perf_counter()]
    run = training.Run(watch=lambda found: looks.append(time.perf_counter()), watch_every=EVERY)
    alone = {"regularize": False, "progress": False, "ensemble": None, "replicate_key": None}
    few = flow._unfitted().set_params(**{**settings, "steps": TIMED, **alone})
    few.fit(adata, run=run)
    step = (looks[-1] - looks[1]) / (TIMED - EVERY)
    before = max(looks[1] - looks[0] - EVERY * step, 0.0)
    # A search takes a third of the steps at most, and pairs most of the cells once more.
    few_steps, most_steps = settings["steps"], settings["steps"] * (4 / 3 if regular else 1.0)
    if regular:  # where held-out cells gain from the first steps alone
        few_steps = min(most_steps, stopping.EVERY * (1 + stopping.PATIENCE + LONGER))
    least, most = (before * (2 if regular else 1) + steps * step for steps in (few_steps, most_steps))
    said = f"{_duration(before)} to pair cells, and {1000 * step:.1f} ms a step, timed on this machine"
    said += "; the more, the later held-out cells stop improving" if regular else ""
    runs = 1 + (flow.ensemble or 0)
    return (least * runs, most * runs), said + (f"; with {flow.ensemble} members" if flow.ensemble else "")


def _range(least: float, most: float) -> str:
    low, high = _duration(least), _duration(most)
    return f"about {high}" if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    """Return a time in words of two digits.

    Examples
    --------
    >>> _duration(0.04), _duration(41.2), _duration(400), _duration(9000)
    ('0.04 s', '41 s', '6.7 min', '2.5 h')
    """
    for unit, size in (("h", 5400.0), ("min", 100.0)):
        if seconds >= size:
            return f"{seconds / {'h': 3600, 'min': 60}[unit]:.2g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
