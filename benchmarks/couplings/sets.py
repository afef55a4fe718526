"""The data sets: what is known of where their cells go, and how a method is scored by it."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

import cellflow as cf
from benchmarks.couplings.course import Course, Method, Motion
from benchmarks.rows import Row
from cellflow.datasets.download import folders

Truth = Callable[[Method, int], Row]
"""From a method and a seed to its scores."""
LARRY = 6000
"""Cells of each day: all that have a known fate, and others drawn once for all methods."""
VOTES = 7
"""Cells of known type that name a cell of larry_fates; they reproduce the types of each other at 100 %."""
DOSES = (0.0, 1.0, 100.0)
STAYERS = 300
CASES = tuple(product((14, 4), (2, 6, 10), (1, 3)))
"""How far apart two groups are, how far one of them moves, and how often the other is there at the later time."""


def hematopoiesis(method: Method, seed: int) -> Row:
    """Score cells of day 4 on day 6: their own state, their own clone, and the fates of their clones."""
    adata = cf.datasets.hematopoiesis()
    course = Course.of(adata, "hematopoiesis", time_key="day", rep="X_pca", label="state")
    motion = method.fit(course, seed=seed).motion(1, 2)
    before, after = (adata.obs[adata.obs["day"] == day] for day in (4, 6))
    x1, rng = course.tensor(2), cf.generator(seed=seed)
    landing = torch.from_numpy(motion.landing)
    share, _ = cf.metrics.label_shares(landing, before["state"], x1, after["state"])
    own = cf.metrics.bootstrap(torch.mean, share, generator=rng)
    clones = cf.metrics.clone_agreement(landing, before["clone"], x1, after["clone"])
    near = cf.metrics.bootstrap(torch.mean, clones, generator=rng)
    kept = {"own_state_by_mass": float(share.numpy() @ motion.mass / motion.mass.sum())}
    names = sorted(set(after["state"]))
    shares = pd.DataFrame(motion.mean(_one_hot(after["state"], names)), columns=names)
    overlap = cf.metrics.fate_overlap(shares, before["state"], before["clone"], after["state"], after["clone"])
    kept |= _interval("fates", cf.metrics.bootstrap(torch.mean, overlap[~overlap.isnan()], generator=rng))
    return _interval("own_state", own) | kept | _interval("clones", near) | _moved(course, 1, 2, motion)


def larry(method: Method, seed: int) -> Row:
    """Score cells of day 2 whose clones are known later: the share of neutrophils among what they become."""
    course, truth, kinds = larry_cells(LARRY)
    motion = method.fit(course, seed=seed).motion(0, 2)
    known = ~np.isnan(truth)
    masses = motion.descendants(_one_hot(kinds, ["Neutrophil", "Monocyte"]))[known]
    total = masses.sum(axis=1)
    share = np.divide(masses[:, 0], total, out=np.full(len(total), 0.5), where=total > 0)
    samples = (torch.from_numpy(np.stack([share, truth[known]], axis=1)),)
    r = cf.metrics.bootstrap(_pearson, *samples, generator=cf.generator(seed=seed))
    return _interval("r", r) | {"auc": _auc(share, truth[known] > 0.5)} | _moved(course, 0, 2, motion)


def nfkb(method: Method, seed: int) -> Row:
    """Score tracked cells, 21 minutes after a dose: whether they keep their rank, and which they take."""
    adata = anndata.read_h5ad(_file("perturbation", "nfkb_tnf_dose_time_tracks.h5ad"))
    table = adata.obs.assign(x=np.asarray(adata.X).ravel())[adata.obs["complete_track"].to_numpy()]
    row: Row = {}
    for dose in DOSES:
        some = table[table["dose_ng_ml"] == dose].pivot_table(
            index="track", columns="minutes", values="x", observed=True
        )
        times = (0.0, 3.0, 21.0)
        course = Course(f"nfkb, {dose:g} ng/ml", tuple(some[[time]].to_numpy(np.float64) for time in times), times)
        motion = method.fit(course, seed=seed).motion(0, 2)
        one, end = (pd.Series(x[:, 0], index=some.index) for x in (motion.example, motion.landing))
        row |= {
            f"kept_{dose:g}": float(one.corr(some[0.0], method="spearman")),
            f"own_{dose:g}": float(end.corr(some[21.0], method="spearman")),
            f"truth_{dose:g}": float(some[0.0].corr(some[21.0], method="spearman")),
        }
    return row


def branching(method: Method, seed: int) -> Row:
    """Score simulated cells that branch and grow: fates from time 0 and 2 to time 4, and growth."""
    adata, law = cf.datasets.branching(seed=seed), cf.datasets.Branching()
    course = Course.of(adata, "branching", time_key="time", rep="X_latent", label="fate")
    fitted = method.fit(course, seed=seed)
    whole, last = fitted.motion(0, 3), fitted.motion(2, 3)
    fates = course.labels or ()
    upper = _one_hot(fates[3], ["lower", "upper"])
    own = (last.mean(upper) * _one_hot(fates[2], ["lower", "upper"])).sum(axis=1)
    found = {"auc": _auc(whole.mean(upper)[:, 1], fates[0] == "upper"), "own_fate": float(own.mean())}
    return found | _growth(last, law.log_weight(course.clouds[2], 2.0)) | _moved(course, 2, 3, last)


def gaussians(method: Method, seed: int, *, apart: float, moved: float, grown: int) -> Row:
    """Score two groups, of which one stays and has grown, and one moves: who crosses over, and who grew."""
    rng, spread = np.random.default_rng(seed), 1.0 if apart > 10 else 0.3
    stay, move, gone = spread * rng.standard_normal((3, STAYERS, 5))
    later = spread * rng.standard_normal((grown * STAYERS, 5))
    first, second, *_ = np.eye(5)
    move, gone = move + apart * first, gone + apart * first + moved * spread * second
    labels = (np.repeat(["stay", "move"], STAYERS), np.repeat(["stay", "move"], [len(later), STAYERS]))
    course = Course("gaussians", (np.concatenate([stay, move]), np.concatenate([later, gone])), (0.0, 1.0), labels)
    motion = method.fit(course, seed=seed).motion(0, 1)
    movers = labels[0] == "move"
    crossed = motion.descendants(_one_hot(labels[1], ["stay", "move"]))[movers].sum(axis=0)
    row: Row = {"apart": apart, "moved": moved, "grown": grown}
    if crossed.sum() > 0:
        rate = float(np.log(motion.mass[~movers].mean() / motion.mass[movers].mean()))
        row |= {
            "crossed": float(crossed[0] / crossed.sum()),
            "log_rate": rate,
            "log_rate_error": rate - math.log(grown),
        }
    return row | _moved(course, 0, 1, motion)


def dyngen(method: Method, seed: int) -> Row:
    """Score a simulated bifurcation: whether cells of times 2 and 3 stay on their branch until time 4."""
    from sklearn.cluster import KMeans

    adata = anndata.read_h5ad(_file("single_cell", "dyngen.h5ad"))
    course = Course.of(adata, "dyngen", time_key="time", rep="X_rep")
    late = np.concatenate(course.clouds[2:])
    sizes = np.cumsum([len(cloud) for cloud in course.clouds[2:]])[:-1]
    branches = np.split(KMeans(2, n_init=10, random_state=0).fit_predict(late).astype(str), sizes)
    labels = tuple(np.full(len(cloud), "trunk") for cloud in course.clouds[:2]) + tuple(branches)
    fitted = method.fit(Course("dyngen", course.clouds, course.times, labels), seed=seed)
    row: Row = {}
    for k in (2, 3):
        motion = fitted.motion(k, 4)
        row[f"auc_{k}"] = _auc(motion.mean(_one_hot(labels[4], ["0", "1"]))[:, 1], labels[k] == "1")
    return row | _moved(course, 3, 4, fitted.motion(3, 4))


def gene_circuit(method: Method, seed: int) -> Row:
    """Score simulated cells that divide the more often the higher their second gene."""
    adata = anndata.read_h5ad(_file("single_cell", "gene_circuit.h5ad"))
    course = Course.of(adata, "gene circuit", time_key="time", rep="X_rep")
    fitted = method.fit(course, seed=seed)
    motions = [fitted.motion(k, k + 1) for k in range(len(course.times) - 1)]
    squares = [np.square(cloud[:, 1]) for cloud in course.clouds[:-1]]
    found = [_growth(motion, s / (1 + s)).get("growth_r") for motion, s in zip(motions, squares, strict=True)]
    known = [r for r in found if r is not None]
    row: Row = {"growth_r": float(np.mean(known)) if known else None}
    return row | _moved(course, len(motions) - 1, len(motions), motions[-1])


SETS: dict[str, Truth] = {
    "hematopoiesis": hematopoiesis,
    "branching": branching,
    **{
        f"gaussians {a}-{m}-{g}": partial(gaussians, apart=a, moved=m, grown=g)  # as named in `CASES`
        for a, m, g in CASES
    },
    "dyngen": dyngen,
    "gene circuit": gene_circuit,
    "nfkb": nfkb,
    "larry": larry,
}


@lru_cache(maxsize=1)
def larry_cells(cells: int) -> tuple[Course, np.ndarray, np.ndarray]:
    """Return snapshots of so many cells a day, with all whose fate is known; their fates; and the types on day 6.

    A fate is the share of neutrophils in the clone of a cell of day 2, NaN where it is unknown.
    """
    from sklearn.neighbors import KNeighborsClassifier

    adata = anndata.read_h5ad(_file("lineage", "larry_fates.h5ad"))
    truth, day = adata.obs["p_neutrophil_true"].to_numpy(), adata.obs["day"].to_numpy()
    rng, chosen = np.random.default_rng(0), []
    for time in np.unique(day):
        here, known = np.flatnonzero(day == time), np.flatnonzero((day == time) & ~np.isnan(truth))
        others = rng.permutation(np.setdiff1d(here, known))[: max(0, cells - len(known))]
        chosen.append(np.sort(np.concatenate([known, others])))
    x, named = np.asarray(adata.obsm["X_spring"], np.float64), cf.datasets.hematopoiesis()
    kinds = named.obs["state"].isin(["Neutrophil", "Monocyte", "undiff"]).to_numpy()
    states, at = named.obs["state"].astype(str).to_numpy()[kinds], named.obsm["X_emb"][kinds]
    every = KNeighborsClassifier(VOTES).fit(at, states)
    course = Course(
        "larry", tuple(x[rows] for rows in chosen), (2.0, 4.0, 6.0), tuple(every.predict(x[rows]) for rows in chosen)
    )
    ripe = states != "undiff"
    ends = KNeighborsClassifier(VOTES).fit(at[ripe], states[ripe]).predict(course.clouds[2])
    return course, truth[chosen[0]], ends


def _file(room: str, name: str) -> Path:
    looked = [folder / name for folder in folders(room)]
    if found := next(filter(Path.is_file, looked), None):
        return found
    raise FileNotFoundError(f"No {name}. Looked for {', '.join(map(str, looked))}; set CELLFLOW_DATA to its folder.")


def _moved(course: Course, first: int, last: int, motion: Motion) -> Row:
    """Return how far the descendants are from the cells that were measured, and how far they went on average."""
    there = cf.generator(seed=0)
    w1 = cf.metrics.population_distance(motion.landing, course.clouds[last], weights_x=motion.mass, generator=there)
    far = np.linalg.norm(motion.landing - course.clouds[first], axis=1)
    return {"W1": w1, "travel": float(far @ motion.mass / motion.mass.sum())}


def _growth(motion: Motion, truth: np.ndarray) -> Row:
    """Return how the growth of cells goes with the true log of their numbers; nothing where all are equal."""
    rate = np.log(np.maximum(motion.mass / motion.mass.mean(), 1e-3))
    return {} if rate.std() < 1e-3 else {"growth_r": float(np.corrcoef(rate, truth)[0, 1])}


def _one_hot(labels: pd.Series | np.ndarray, names: list[str]) -> np.ndarray:
    return np.asarray(np.asarray(labels, dtype=str)[:, None] == np.asarray(names)[None, :], dtype=np.float64)


def _pearson(pairs: torch.Tensor) -> float:
    return float(torch.corrcoef(pairs.T)[0, 1].nan_to_num())  # a constant says nothing of the other


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score))


def _interval(name: str, found: cf.metrics.Interval) -> Row:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
