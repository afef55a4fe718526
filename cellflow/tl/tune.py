"""Settings chosen by an inner leave-one-out over snapshots, and how certain the choice is."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.snapshots import Snapshots
from cellflow.errors import unknown
from cellflow.estimators.conditional import refuse
from cellflow.integrate import Fixed
from cellflow.seeds import generator_at
from cellflow.signature import checked
from cellflow.tl import held_out, new_cells
from cellflow.tl.cells import about, check_key, note_no_members, target
from cellflow.tl.files import on_files
from cellflow.tl.held_out import inside, known_times
from cellflow.tl.validate import MAX_CELLS

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]
"""The values of each setting, of which all combinations are tried; or several such mappings."""
SCORES = {"times": "W1 at left-out times", "new cells": "energy distance of new cells"}
FIXED = ("rep", "n_pcs", "time_key", "weight_key", "seed", "ensemble", "replicate_key")
"""Settings that make scores incomparable, or do not affect them."""
CONFIDENCE = 0.95


@on_files
@checked
def tune(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    grid: Grid,
    by: str = "auto",
    n_seeds: int = 2,
    max_cells: int = MAX_CELLS,
    key_added: str = "tune",
    copy: bool = False,
) -> "AnnData | None":
    """Score settings on held-out snapshots or cells, and say how certain the best one is.

    Every setting is fitted for every fold and seed. A fold leaves out one snapshot between two others, which is then
    predicted; snapshots that a fitted flow has not seen are not used, and remain a test. Or one fit leaves out part of
    the cells of all snapshots, and each interval is a fold. Settings are compared pairwise over folds and seeds, by the
    ratio of their scores: what makes a fold hard for all cancels, and a long interval counts no more than a short one.

    Parameters
    ----------
    adata
        Cells with the time and the representation.
    flow
        A flow, fitted or not, with all other settings; it is not changed.
    grid
        For each setting the values to try, such as ``{"steps": [500, 3000]}``; all combinations are tried. A list of
        such mappings for your own combinations.
    by
        ``"times"``: the W1 at left-out times. ``"new cells"``: the energy distance of new cells in the next snapshot,
        see `validate`. ``"auto"``: the former where there are snapshots to leave out, and the latter where there are
        two.
    n_seeds
        Fits for each setting and fold, with seeds from that of the flow on.
    max_cells
        As for `validate`.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``uns[key_added]``
        ``"settings"``, a table, best first: the number of each ``setting`` in the order of the grid, its values as
        text, ``mean`` (geometric) and ``spread`` (standard deviation) of its scores; how far they exceed those of the
        best, as a fraction with an interval, ``difference``, ``low`` and ``high``; ``won``, the share of folds and
        seeds in which it beats the best; and ``verdict``. ``"folds"``, a table of ``setting``, ``time``, ``seed`` and
        ``score``. ``"score"``, what was measured; lower is better. ``"verdict"``, in words. ``"rep"``, ``"time_key"``
        and ``"unit"`` of time. `tuned` returns the best settings as a flow.

    Raises
    ------
    ValueError
        When a setting is unknown, or makes scores incomparable; when there are not two settings, or there is nothing to
        leave out.

    Notes
    -----
    The interval of a difference is Student's, of log ratios, at 95 % for all settings together (Bonferroni). Folds
    share cells, and seeds share folds, so it is somewhat too short; and the score of the best is flattered by the
    choice.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", batch_size=32)
    >>> cf.tl.tune(adata, flow, grid={"steps": [1, 30]}, n_seeds=1, max_cells=100)
    >>> cf.tl.tuned(adata, flow, grid={"steps": [1, 30]}).steps
    30
    """
    check_key(key_added)
    refuse(flow, "tl.tune", "Compare flows by their `score` on cells that were left out.")
    settings = _settings(flow, grid)
    if by not in ("auto", *SCORES):
        raise ValueError(unknown("score", by, ("auto", *SCORES)))
    if len(settings) < 2 or n_seeds < 1:
        raise ValueError(f"Expected two settings or more, and n_seeds >= 1; found {len(settings)} and {n_seeds}.")
    snapshots = flow._snapshots(adata)
    times = [time for time in inside(flow, snapshots) if time in known_times(flow, snapshots)]
    by = ("times" if times else "new cells") if by == "auto" else by
    if by == "times" and not times:
        raise ValueError('There is no snapshot between two others to leave out. Tune with `by="new cells"`.')
    note_no_members(flow, "tl.tune")
    rows = []
    for number, one in enumerate(settings):
        log.info("setting %d of %d: %s", number + 1, len(settings), _text(one))
        for seed in range(n_seeds):
            scores = _scores(adata, flow, one, snapshots, times if by == "times" else [], seed, max_cells)
            rows += [{"setting": number, "time": time, "seed": seed, "score": score} for time, score in scores.items()]
    folds = pd.DataFrame(rows)
    table = _compared(settings, folds)
    verdict = _verdict(settings, table, SCORES[by])
    log.info("%s\n%s", verdict, table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    written = target(adata, copy=copy)
    written.uns[key_added] = {
        "settings": table,
        "folds": folds,
        "score": SCORES[by],
        "verdict": verdict,
        **about(adata, flow),
    }
    return written if copy else None


@on_files
@checked
def tuned(adata: "AnnData", flow: "SnapshotFlow", *, grid: Grid, key: str = "tune") -> "SnapshotFlow":
    """Return an unfitted flow with the best settings that `tune` found.

    Parameters
    ----------
    adata
        Holds what `tune` wrote.
    flow
        The flow that was tuned; it is not changed.
    grid
        The grid that was tried: settings may be objects, which an AnnData cannot hold.
    key
        Name under which `tune` wrote.

    Raises
    ------
    KeyError
        When `tune` has not run.
    ValueError
        When it ran with another grid.

    Examples
    --------
    >>> import anndata, pandas as pd, cellflow as cf
    >>> table = pd.DataFrame({"setting": [1, 0], "steps": ["3000", "500"]})
    >>> adata = anndata.AnnData(uns={"tune": {"settings": table}})
    >>> cf.tl.tuned(adata, cf.SnapshotFlow(steps=9), grid={"steps": [500, 3000]}).steps
    3000
    """
    from sklearn.base import clone

    if key not in adata.uns:
        raise KeyError(
            f"No `adata.uns[{key!r}]`. Available: {list(adata.uns)}. Run `cf.tl.tune(adata, flow, ...)` first."
        )
    settings, table = _settings(flow, grid), pd.DataFrame(adata.uns[key]["settings"])
    best = table.iloc[0]
    number = int(best["setting"])
    if len(settings) != len(table) or any(str(best.get(name)) != repr(v) for name, v in settings[number].items()):
        raise ValueError(f"`adata.uns[{key!r}]` was written for another grid. Pass the grid that was tried.")
    found: SnapshotFlow = clone(flow).set_params(**settings[number])
    return found


def _settings(flow: "SnapshotFlow", grid: Grid) -> list[dict[str, Any]]:
    """Return all combinations, after a check that they are settings of the flow."""
    from sklearn.base import clone
    from sklearn.model_selection import ParameterGrid

    grids = [grid] if isinstance(grid, Mapping) else list(grid)
    if not all(isinstance(one, Mapping) for one in grids):
        raise TypeError(f"Expected `grid` as a dict of lists, or a list of such; found {type(grid).__name__}.")
    settings = list(ParameterGrid(grids))
    for one in settings:
        wrong = sorted(set(one) & set(FIXED))
        if wrong:
            raise ValueError(
                f"Scores cannot be compared between values of {', '.join(wrong)}. Leave it out of the grid."
            )
        clone(flow).set_params(**one)
    return settings


def _scores(
    adata: "AnnData",
    flow: "SnapshotFlow",
    setting: dict[str, Any],
    snapshots: Snapshots,
    times: list[float],
    seed: int,
    max_cells: int,
) -> dict[float, float]:
    """Return the score of a setting for each fold of one seed: left-out times, or intervals where there are none."""
    from sklearn.base import clone

    known = known_times(flow, snapshots)
    unfitted = clone(flow).set_params(**setting)
    if not times:
        split = new_cells.split(adata, unfitted, snapshots, number=seed, times=known)
        if split is None:
            raise ValueError("A snapshot has too few cells to hold some of them out.")
        return new_cells.score(split, snapshots, max_cells=max_cells)
    found = {}
    for time in times:
        rng = generator_at(int(flow.seed), snapshots.clock.times.index(time))  # the same cells for all settings
        true = held_out.drawn(snapshots, snapshots.at(time), max_cells, rng)
        seen = np.isin(snapshots.time, [other for other in known if other != time])
        fitted = held_out.refitted(adata, unfitted, seen, seed=int(flow.seed) + seed)
        parts = held_out.carried(adata, fitted, time, Fixed())
        found[time] = held_out.distance(parts, true, most=max_cells, generator=rng)
    return found


def _compared(settings: list[dict[str, Any]], folds: pd.DataFrame) -> pd.DataFrame:
    """Return the settings, best first, each with its paired differences from the best."""
    from scipy.stats import t

    scores = folds.pivot(index="setting", columns=["time", "seed"], values="score").to_numpy()
    logs = np.log(np.maximum(scores, np.finfo(float).tiny))
    n, order = scores.shape[1], np.argsort(logs.mean(axis=1), kind="stable")
    rows = []
    for number in order:
        apart = logs[number] - logs[order[0]]
        error = apart.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        half = error * t.ppf(1 - (1 - CONFIDENCE) / 2 / (len(settings) - 1), max(n - 1, 1))
        low = apart.mean() - half
        verdict = "best" if number == order[0] else "worse" if low > 0 else "not distinguishable"
        rows.append({
            "setting": int(number),
            **{name: repr(value) for name, value in settings[number].items()},
            "mean": np.exp(logs[number].mean()),
            "spread": scores[number].std(ddof=1) if n > 1 else np.nan,
            "difference": np.expm1(apart.mean()),
            "low": np.expm1(low),
            "high": np.expm1(apart.mean() + half),
            "won": float((apart < 0).mean()),
            "verdict": verdict,
        })  # fmt: skip
    texts = {name for setting in settings for name in setting}
    return pd.DataFrame(rows).fillna(dict.fromkeys(texts, ""))


def _verdict(settings: list[dict[str, Any]], table: pd.DataFrame, score: str) -> str:
    """Say which setting is the best, and how certain that is."""
    best, others = table.iloc[0], table.iloc[1:]
    found = (
        f"Of {len(settings)} settings {_text(settings[int(best['setting'])])} has the best {score}: {best['mean']:.4g}."
    )
    alike = others[others["verdict"] != "worse"]
    if not len(alike):
        return f"{found} All others are worse, beyond the interval of the paired differences."
    named = "; ".join(
        f"{_text(settings[int(row['setting'])])} ({row['difference']:.1%} more, better in {row['won']:.0%} of folds "
        "and seeds)".replace("%", " %")
        for _, row in alike.iterrows()
    )
    sure = (
        "The choice is uncertain" if len(alike) == len(others) else "Some others are worse, but the choice is uncertain"
    )
    return f"{found} {sure}. Not distinguishable from it: {named}."


def _text(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in setting.items())
