"""Scores of a distilled flow after few jumps, beside as many Euler steps of the original flow."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellflow.errors import CheckpointError
from cellflow.integrate import Fixed, Jumps, Trajectory
from cellflow.metrics import features_of, frechet_distance, high_frequency_ratio, wasserstein
from cellflow.report import html
from cellflow.report.html import Drawing
from cellflow.report.image_conditions import in_turn
from cellflow.report.image_scores import Split, features_for, uniform

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellflow.estimators import DomainTranslator, ImageGenerator, SnapshotFlow
    from cellflow.images import ImageSet

FILE = "few_steps.csv"
STEPS, TEACHER = (1, 2, 4, 8, 16), 100
JUMPS, EULER, MANY = "flow map, jumps", "flow, Euler steps", f"flow, {TEACHER} Euler steps"
TO_NEXT = "W1 to the next snapshot"
HIGH = "High frequencies"
MOST_CELLS = 1000
"""Maximum number of cells of a snapshot to carry and compare: exact transport is quick up to there."""
EXPLAINED = (
    "How many steps a distilled flow needs to be as good as the original flow. Jumps of the flow map are shown beside "
    "as many Euler steps of the flow, one evaluation of the network each, and beside {teacher} of them. For cells, "
    "the fitted cells are compared; for images, held-out ones."
)
EXPLAINED_HIGH = (
    " High frequencies: energy in structures of less than four pixels, relative to held-out images; more than 1 is "
    "grain, less is blur, which the distance may not see."
)


def compare(carry: Callable[[Any], Any], scores: Mapping[str, Callable[[Any], float]]) -> "pd.DataFrame":
    """Return scores and seconds by number of steps: columns ``sampler``, ``steps``, those of the scores, ``seconds``.

    Parameters
    ----------
    carry
        Computes what is scored, with a given solver.
    scores
        The scores by name; of the first, which is drawn, lower is better.

    Examples
    --------
    >>> found = compare(lambda solver: solver.steps, {"W1": float})
    >>> found.columns.tolist(), len(found), float(found["W1"].iloc[-1])
    (['sampler', 'steps', 'W1', 'seconds'], 11, 100.0)
    """
    import pandas as pd

    asked: list[tuple[str, Jumps | Fixed]] = [(JUMPS, Jumps(k)) for k in STEPS]
    asked += [(EULER, Fixed("euler", steps=k)) for k in STEPS]
    rows = []
    for sampler, solver in [*asked, (MANY, Fixed("euler", steps=TEACHER))]:
        start = time.perf_counter()
        found = carry(solver)
        seconds = time.perf_counter() - start
        values = {name: score(found) for name, score in scores.items()}
        rows.append({"sampler": sampler, "steps": solver.steps, **values, "seconds": seconds})
    return pd.DataFrame(rows)


def compare_cells(adata: "AnnData", flow: "SnapshotFlow") -> "pd.DataFrame":
    """Carry the cells of each fitted snapshot to the next, and return W1 to those that were measured there.

    The flow was fitted on all of these cells: this compares samplers, not predictions of held-out cells.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching((40, 40), times=(0, 1), seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=5).fit(adata).distill(adata, steps=5)
    >>> bool(compare_cells(adata, flow)[TO_NEXT].gt(0).all())
    True
    """
    cells, rng = flow.read(adata), np.random.default_rng(flow.seed)
    snapshots = [cells.at(moment) for moment in flow.clock_.times]
    clouds = [snapshot.x[rng.permutation(len(snapshot))[:MOST_CELLS]] for snapshot in snapshots]
    ends = list(zip(flow.clock_.times, flow.clock_.times[1:], strict=False))

    def carry(solver: Any) -> list[Trajectory]:
        return [
            flow.transport(cloud, start=start, stop=stop, solver=solver)
            for cloud, (start, stop) in zip(clouds, ends, strict=False)
        ]

    def score(carried: list[Trajectory]) -> float:
        return float(
            np.mean(
                [
                    wasserstein(found.x[-1], cloud, weights_x=None if found.log_weight is None else found.shares()[-1])
                    for found, cloud in zip(carried, clouds[1:], strict=True)
                ]
            )
        )

    return compare(carry, {TO_NEXT: score})


def compare_translated(
    model: "DomainTranslator",
    source: Split[Any],
    target: Split[Any],
    *,
    feature_network: str | None,
    guidance: float = 1.0,
) -> "pd.DataFrame":
    """Translate unseen source images, and return their distance to unseen target images.

    ``guidance`` is the guidance that is built into the map; the flow gets the same.
    """
    model._check_fitted()
    inputs, targets = source.in_memory().held_out, target.in_memory()
    given = in_turn(model, targets.held_out, len(inputs))

    def carry(solver: Any) -> torch.Tensor:
        pressed = 1.0 if isinstance(solver, Jumps) else guidance
        made: ImageSet = model.translate(inputs, guidance=pressed, solver=solver, **given)
        return made.scaled()

    return compare(carry, _scores(targets, feature_network))


def compare_generated(
    model: "ImageGenerator", images: Split[Any], *, feature_network: str | None, guidance: float = 1.0
) -> "pd.DataFrame":
    """Generate as many images as are held out, of the same classes, and return their distance to those.

    ``guidance`` is the guidance that is built into the map; the flow gets the same.
    """
    model._check_fitted()
    known = images.in_memory()
    label = known.held_out.labels if model.classes_ is not None else None
    given = in_turn(model, known.held_out, len(known.held_out))

    def carry(solver: Any) -> torch.Tensor:
        pressed = 1.0 if isinstance(solver, Jumps) else guidance
        return model.generate(len(known.held_out), label=label, guidance=pressed, solver=solver, **given).scaled()

    return compare(carry, _scores(known, feature_network))


def _scores(images: Split[Any], feature_network: str | None) -> dict[str, Callable[[torch.Tensor], float]]:
    """Return the distance to unseen images, and what it may not see: grain and blur."""
    used, real = features_for(feature_network, images.fitted.scaled()), images.held_out.scaled()
    known = features_of(real, used.features)
    scores = {used.name: lambda made: frechet_distance(features_of(made, used.features), known)}
    return scores if uniform(real) else scores | {HIGH: lambda made: high_frequency_ratio(made, real)}


def section(folder: Path, figures: Path) -> str:
    """Return text, table and figure of the comparison of a run, as HTML; empty if there was none.

    Raises
    ------
    CheckpointError
        When the table of the comparison is damaged.
    """
    if not (folder / FILE).is_file():
        return ""
    table = _read(folder / FILE)
    names, rows = list(table.columns[2:-1]), []
    for sampler, steps, score, *others, seconds in table.itertuples(index=False):
        shown = [f"{score:#.4g}".rstrip("."), *(f"{other:.3g}" for other in others), f"{seconds:.3g}"]
        rows.append((str(sampler), str(steps), *shown))
    about = EXPLAINED.format(teacher=TEACHER) + EXPLAINED_HIGH * (HIGH in names)
    return (
        html.paragraph(about)
        + html.figure(draw(table), figures)
        + html.table(("Sampler", "Steps", *names, "Seconds"), rows, numbers=tuple(range(1, len(names) + 3)))
    )


def _read(file: Path) -> "pd.DataFrame":
    """Return the table of a comparison: samplers, steps, scores and seconds."""
    import pandas as pd

    damaged = f"{file} is damaged: expected samplers, steps, scores and seconds. Run `cellflow distill` again."
    try:
        table = pd.read_csv(file)
    except ValueError as error:  # of pandas, on what is no CSV
        raise CheckpointError(damaged) from error
    numbers = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    known = HIGH in table.columns[3:4]  # runs of cells, and of before, are without
    if numbers != [False, *[True] * (3 + known)] or table.empty or not (table.iloc[:, [1, -1]].to_numpy() > 0).all():
        raise CheckpointError(damaged)
    return table


def draw(table: "pd.DataFrame") -> Drawing:
    """Draw the score against the number of steps, and the seconds beside it, both on logarithmic axes.

    Examples
    --------
    >>> found = compare(lambda solver: solver.steps, {"W1": float})
    >>> draw(found).name
    'few_steps'
    """
    from matplotlib.ticker import LogLocator

    measure = table.columns[2]
    figure = html.blank(8.4, 3.4)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, column, label in zip(axes, ("steps", "seconds"), ("steps", "seconds for all samples"), strict=True):
        for sampler, marker, colour in ((JUMPS, "o-", "#4269d0"), (EULER, "s--", "#ff725c")):
            some = table[table["sampler"] == sampler]
            axis.plot(some[column], some[measure], marker, color=colour, ms=4, lw=1.5, label=sampler)
        many = table[table["sampler"] == MANY]
        axis.axhline(many[measure].iloc[0], color="#888888", lw=1, ls=":", label=MANY)
        axis.set(xscale="log", xlabel=label)
    axes[0].set_xticks(STEPS, [str(k) for k in STEPS])
    axes[1].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[1].xaxis.set_major_formatter("{x:g}")
    for axis in axes:
        axis.minorticks_off()
    axes[0].set_ylabel(measure)
    axes[0].legend(fontsize=8, frameon=False)
    return Drawing(
        "steps", "few_steps", figure,
        f"{measure} against the number of steps, and against seconds; lower is better.",
    )  # fmt: skip
