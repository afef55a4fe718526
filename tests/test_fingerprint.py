"""A flow knows the representation that it was fitted on: every tool refuses another, or warns; none is stopped in vain.

What must be noticed is crossed with all tools, and with representations that have loadings and that have none; so is
what must pass without a word.
"""

import json
import warnings
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import cellflow as cf
from cellflow.cells import fingerprint as prints
from cellflow.cells.raw_counts import warn_of_counts

GENES, TIMES, SIZES = 40, (0.0, 1.0, 3.0), (60, 80, 70)


def expression(seed=0, types=("a", "b")):
    """Cells of two types that move, with genes; named by cells of this seed."""
    draw, directions = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(4, GENES))
    time = np.repeat(TIMES, SIZES)
    kind = np.where(draw.random(len(time)) < 0.3, "b", "a")
    hidden = draw.normal(size=(len(time), 4)) * [1.0, 0.8, 0.5, 0.3]
    hidden[:, 0] += 1.5 * time
    hidden[:, 1] += np.where(kind == "b", 3.0, 0.0)
    x = np.logaddexp(0, hidden @ directions + 0.1 * draw.normal(size=(len(time), GENES))).astype(np.float32)
    obs = pd.DataFrame({"day": time, "type": pd.Categorical(kind)}, index=[f"s{seed}c{k}" for k in range(len(time))])
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{k}" for k in range(GENES)]))


def with_pca(adata):
    sc.pp.pca(adata, n_comps=4)
    return adata


def projected(adata, onto):
    """Other cells in the representation of the first ones, without loadings of their own."""
    centre = onto.X.mean(axis=0)
    adata.obsm["X_pca"] = (adata.X - centre) @ onto.varm["PCs"]
    return adata


def fit(adata, **settings):
    return cf.SnapshotFlow(
        time_key="day", steps=3, batch_size=16, device="cpu", coupling="exact", growth=False, **settings
    ).fit(adata)


@pytest.fixture(scope="module")
def pca():
    adata = with_pca(expression())
    return adata, fit(adata)


@pytest.fixture(scope="module")
def latent():
    """The same states, without loadings."""
    adata = with_pca(expression())
    adata.obsm["X_latent"] = adata.obsm.pop("X_pca")
    del adata.varm["PCs"]
    return adata, fit(adata, rep="X_latent")


def replaced(adata, rep, x, sign=None):
    """Another representation under the same key; its loadings follow, where there are any."""
    other = adata.copy()
    other.obsm[rep] = np.ascontiguousarray(x(other.obsm[rep]))
    if "PCs" in other.varm:
        other.varm["PCs"] = np.ascontiguousarray(x(other.varm["PCs"]))
    return other


def new_pca(adata, rep):
    other = adata.copy()
    other.X = np.log1p(other.X * np.random.default_rng(1).uniform(0.2, 5, size=GENES)).astype(np.float32)
    sc.pp.pca(other, n_comps=4)
    if rep != "X_pca":
        other.obsm[rep] = other.obsm.pop("X_pca")
        del other.varm["PCs"]
    return other


def another_key(adata, rep):
    other = adata.copy()
    other.obsm[rep] = np.tanh(other.X @ np.random.default_rng(3).normal(size=(GENES, 4)) / 10)
    return other


FLIP = np.array([1, 1, -1, 1])
ALL_CHANGES = {
    "new PCA": new_pca,
    "one sign flipped": lambda adata, rep: replaced(adata, rep, lambda x: x * FLIP),
    "all signs flipped": lambda adata, rep: replaced(adata, rep, lambda x: -x),
    "one column rescaled": lambda adata, rep: replaced(adata, rep, lambda x: x * [1, 1, 1, 1.1]),
    "all columns rescaled": lambda adata, rep: replaced(adata, rep, lambda x: x / 10),
    "columns exchanged": lambda adata, rep: replaced(adata, rep, lambda x: x[:, [0, 1, 3, 2]]),
    "rotated": lambda adata, rep: replaced(adata, rep, lambda x: x @ np.linalg.qr(np.ones((4, 4)) + np.eye(4))[0]),
    "another key": another_key,
}

ALL_THAT_ARE_THE_SAME = {
    "copy": lambda adata, rep, folder: adata.copy(),
    "view": lambda adata, rep, folder: adata[:],
    "one type": lambda adata, rep, folder: adata[adata.obs["type"] == "b"],
    "one time": lambda adata, rep, folder: adata[adata.obs["day"] == 3],
    "three cells": lambda adata, rep, folder: adata[[5, 90, 180]],
    "other order": lambda adata, rep, folder: adata[::-1],
    "h5ad": lambda adata, rep, folder: written(adata, folder),
    "zarr": lambda adata, rep, folder: written(adata, folder, "zarr"),
    "float64": lambda adata, rep, folder: as_type(adata, rep, np.float64),
    "float32": lambda adata, rep, folder: as_type(adata, rep, np.float32),
    "few genes": lambda adata, rep, folder: adata[:, ["g3", "g5"]],
    "without loadings": lambda adata, rep, folder: without_loadings(adata),
    "same PCA again": lambda adata, rep, folder: with_pca(adata.copy()) if rep == "X_pca" else adata,
    "renamed cells": lambda adata, rep, folder: renamed_cells(adata),
    "renamed cells of one type": lambda adata, rep, folder: renamed_cells(adata[adata.obs["type"] == "b"].copy()),
    "new cells": lambda adata, rep, folder: new_cells(adata, rep),
    "new cells under the names of others": lambda adata, rep, folder: new_cells(adata, rep, names=adata.obs_names),
    "new cells of one type": lambda adata, rep, folder: of_one_type(new_cells(adata, rep)),
    "a third of old and new cells under their names": lambda adata, rep, folder: some_replaced(adata, rep),
    "old and new cells": lambda adata, rep, folder: anndata.concat([adata, new_cells(adata, rep)]),
    "cells at a time between": lambda adata, rep, folder: at_another_time(adata),
}


def written(adata, folder, kind="h5ad"):
    path = folder / f"cells.{kind}"
    with warnings.catch_warnings(action="ignore"):  # anndata says that its format will change
        getattr(adata, f"write_{kind}")(path)
    return getattr(anndata, f"read_{kind}")(path)


def as_type(adata, rep, dtype):
    other = adata.copy()
    other.obsm[rep] = other.obsm[rep].astype(dtype)
    if "PCs" in other.varm:
        other.varm["PCs"] = other.varm["PCs"].astype(dtype)
    return other


def without_loadings(adata):
    other = adata.copy()
    other.varm.clear()
    return other


def renamed_cells(adata):
    other = adata.copy()
    other.obs_names = [f"x{k}" for k in range(other.n_obs)]
    return other


def new_cells(adata, rep, names=None):
    first = with_pca(expression())
    other = projected(expression(seed=7), first)
    if rep != "X_pca":
        other.obsm[rep] = other.obsm.pop("X_pca")
    if names is not None:
        other.obs_names = names
    return other


def some_replaced(adata, rep):
    other, new = adata.copy(), new_cells(adata, rep)
    rows = np.arange(adata.n_obs) % 3 > 0
    other.obsm[rep][rows] = new.obsm[rep][rows]
    return other


def of_one_type(adata):
    return adata[adata.obs["type"] == "b"].copy()


def at_another_time(adata):
    other = adata.copy()
    other.obs["day"] = np.where(other.obs["day"] == 1, 2.0, other.obs["day"])
    return other


def noticed(flow, adata):
    """What is said of the cells: nothing, a warning, or a refusal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            flow.read(adata)
        except ValueError as error:
            return "refused", str(error)
    return ("warned", str(caught[0].message)) if caught else ("", "")


@pytest.mark.parametrize("change", ALL_CHANGES)
def test_another_pca_is_refused_by_its_loadings(pca, change):
    adata, flow = pca
    kind, said = noticed(flow, ALL_CHANGES[change](adata, "X_pca"))
    # Loadings that stayed what they were tell nothing of states that somebody changed: cells do.
    assert kind == ("warned" if change == "another key" else "refused"), said
    assert "another" in said
    assert "fit again" in said


@pytest.mark.parametrize("change", ALL_CHANGES)
def test_another_representation_without_loadings_is_warned_of(latent, change):
    adata, flow = latent
    kind, said = noticed(flow, ALL_CHANGES[change](adata, "X_latent"))
    assert kind == "warned", said
    assert "of the fitted cells among these have other values in `adata.obsm['X_latent']`" in said


@pytest.mark.parametrize("change", ALL_CHANGES)
def test_a_part_of_the_cells_is_enough(latent, change):
    adata, flow = latent
    other = ALL_CHANGES[change](adata, "X_latent")
    assert noticed(flow, other[other.obs["type"] == "a"].copy())[0] == "warned"


@pytest.mark.parametrize("same", ALL_THAT_ARE_THE_SAME)
@pytest.mark.parametrize("kind", ["pca", "latent"])
def test_the_same_representation_passes_without_a_word(kind, same, request, tmp_path):
    adata, flow = request.getfixturevalue(kind)
    assert noticed(flow, ALL_THAT_ARE_THE_SAME[same](adata, flow.rep, tmp_path)) == ("", "")


@pytest.mark.parametrize("dataset", [cf.datasets.branching, partial(cf.datasets.branching, (60, 80, 70, 90))])
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_fresh_draw_under_the_same_names_passes(dataset, seed):
    """Simulations, and cells without names ("0", "1", ...): branches in the same order keep near cells near."""
    adata, other = dataset(seed=0), dataset(seed=seed)
    for cells in (adata, other):
        order = np.lexsort((cells.obs["fate"].to_numpy(), cells.obs["time"].to_numpy()))
        cells.obs_names = pd.Index(pd.Series(order).argsort().astype(str))
    flow = cf.SnapshotFlow(rep="X_latent", steps=2, device="cpu", coupling="exact", growth=False).fit(adata)
    assert noticed(flow, other) == ("", "")
    cf.tl.velocity(other, flow)
    flow.score(other)
    assert noticed(flow, replaced(adata, "X_latent", lambda x: -x))[0] == "warned"
    assert noticed(flow, replaced(adata, "X_latent", lambda x: x * [1, 3]))[0] == "warned"


def test_new_cells_far_from_all_fitted_ones_are_warned_of(latent):
    adata, flow = latent
    other = new_cells(adata, "X_latent")
    other.obsm["X_latent"] = 8 * other.obsm["X_latent"]
    kind, said = noticed(flow, other)
    assert kind == "warned"
    assert "far from those of `fit`" in said


def test_a_share_of_a_snapshot_is_never_far():
    """By Chebyshev's inequality, whatever the distribution: here the farthest twenty-fifth of a heavy tail."""
    x = np.sort(np.random.default_rng(0).pareto(2.5, size=(2500, 1)), axis=0).astype(np.float32)
    cells = anndata.AnnData(obs=pd.DataFrame(index=[f"c{k}" for k in range(2500)]), obsm={"X_latent": x})
    known = prints.fingerprint(cells, "X_latent", x, np.zeros(2500))
    tail = cells[-100:].copy()
    tail.obs_names = [f"new{k}" for k in range(100)]
    assert known.difference(tail, "X_latent", x[-100:], np.zeros(100)) == ""
    farther = known.difference(tail, "X_latent", 10 * x[-100:], np.zeros(100))
    assert "far from those of `fit`" in farther


def test_genes_in_another_order_are_refused():
    adata = expression()
    flow = fit(adata, rep="X")
    assert noticed(flow, adata[:50]) == ("", "")
    kind, said = noticed(flow, adata[:, ::-1])
    assert kind == "refused"
    assert "in another order than in `fit`" in said


def test_columns_of_a_frame_in_another_order_are_refused():
    adata = expression()
    adata.obsm["X_score"] = pd.DataFrame(adata.X[:, :3], index=adata.obs_names, columns=["up", "down", "stress"])
    flow = fit(adata, rep="X_score")
    adata.obsm["X_score"] = adata.obsm["X_score"][["stress", "up", "down"]]
    assert noticed(flow, adata)[0] == "refused"


def test_a_loaded_flow_knows_it_too(pca, tmp_path):
    adata, flow = pca
    flow.save(tmp_path / "run")
    loaded = cf.SnapshotFlow.load(tmp_path / "run")
    assert noticed(loaded, adata) == ("", "")
    for change, make in ALL_CHANGES.items():
        assert noticed(loaded, make(adata, "X_pca")) == noticed(flow, make(adata, "X_pca")), change


def test_a_model_of_before_says_nothing(pca, tmp_path):
    adata, flow = pca
    flow.save(tmp_path / "run")
    about = json.loads((tmp_path / "run" / "model.json").read_text())
    del about["learned"]["fingerprint"]
    (tmp_path / "run" / "model.json").write_text(json.dumps(about))
    loaded = cf.SnapshotFlow.load(tmp_path / "run")
    assert noticed(loaded, ALL_CHANGES["new PCA"](adata, "X_pca")) == ("", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", [[1.0]]), ("spread", "wide"), ("sums", [1.0]), ("counts", [0, 1, 2]), ("counts", [-1, 1, 2]),
        ("snapshot", [9] * 96), ("loadings", [[1.0] * 5] * 4), ("times", [0.0, 1.0, float("inf")]), ("columns", [1]),
        ("names", None),
    ],
)  # fmt: skip
def test_a_damaged_fingerprint_is_refused(pca, name, value, tmp_path):
    pca[1].save(tmp_path / "run")
    about = json.loads((tmp_path / "run" / "model.json").read_text())
    about["learned"]["fingerprint"][name] = value
    (tmp_path / "run" / "model.json").write_text(json.dumps(about))
    with pytest.raises(cf.errors.CheckpointError):
        cf.SnapshotFlow.load(tmp_path / "run")


ALL_TOOLS = {
    "read": lambda adata, flow, folder: flow.read(adata),
    "score": lambda adata, flow, folder: flow.score(adata),
    "distill": lambda adata, flow, folder: flow.distill(adata, steps=2),
    "tl.drivers": lambda adata, flow, folder: cf.tl.drivers(adata, flow, fate="a"),
    "tl.fate": lambda adata, flow, folder: cf.tl.fate(adata, flow, groupby="type"),
    "tl.growth": lambda adata, flow, folder: cf.tl.growth(adata, flow),
    "tl.interpolate": lambda adata, flow, folder: cf.tl.interpolate(adata, flow, at=2),
    "tl.perturb_genes": lambda adata, flow, folder: cf.tl.perturb_genes(
        adata, flow, genes={"g0": "up"}, groupby="type"
    ),
    "tl.pull": lambda adata, flow, folder: cf.tl.pull(adata, flow, cells=adata.obs["day"] == 3, at=0),
    "tl.push": lambda adata, flow, folder: cf.tl.push(adata, flow, cells=adata.obs["day"] == 0, at=3),
    "tl.trajectories": lambda adata, flow, folder: cf.tl.trajectories(adata, flow, n=3),
    "tl.trends": lambda adata, flow, folder: cf.tl.trends(adata, flow, genes=True, by=None, n_times=3, n_bootstrap=2),
    "tl.validate": lambda adata, flow, folder: cf.tl.validate(adata, flow, groupby="type", keep_aside=False),
    "tl.velocity": lambda adata, flow, folder: cf.tl.velocity(adata, flow),
    "pl.descendants": lambda adata, flow, folder: cf.pl.descendants(adata, flow, groupby="type"),
    "pl.movie": lambda adata, flow, folder: cf.pl.movie(adata, flow, path=folder / "a.gif", n=3, n_frames=2, dpi=20),
    "pl.trajectories": lambda adata, flow, folder: cf.pl.trajectories(adata, flow, n=3),
    "pl.velocity": lambda adata, flow, folder: cf.pl.velocity(adata, flow),
    "report.write": lambda adata, flow, folder: cf.report.write(folder, adata, flow, title="t", details={}),
}
OF_TREATMENTS = {
    "read": lambda adata, flow: flow.read(adata),
    "score": lambda adata, flow: flow.score(adata),
    "tl.perturb": cf.tl.perturb,
    "tl.response": cf.tl.response,
}
WITHOUT_WEIGHTS = {"tl.growth_prior", "tl.testable_times", "tl.tune", "tl.tuned"}
"""Tools that ask nothing of what a flow has learned: of its settings at most."""
STORED = {"pl.fate", "pl.genes", "pl.interpolation", "pl.loss", "pl.validation"}
STORED |= {"pl.cells", "pl.drivers", "pl.growth", "pl.response", "pl.conditions", "pl.trends", "pl.trends_heatmap"}
"""Plots of what tools have written: those of states and velocities carry with them what they belong to."""
CARRIED = {
    "velocity": lambda adata, stored: cf.pl.velocity(stored),
    "trajectories": lambda adata, stored: cf.pl.trajectories(stored),
    "interpolation": lambda adata, stored: cf.pl.interpolation(stored, stored.uns["carried"]),
}


@pytest.fixture(scope="module")
def growing():
    adata = with_pca(expression())
    flow = cf.SnapshotFlow(time_key="day", steps=3, batch_size=16, device="cpu")
    return adata, flow.fit(adata)


@pytest.mark.parametrize("tool", ALL_TOOLS)
def test_every_tool_refuses_another_pca(growing, tool, tmp_path):
    adata, flow = growing
    with pytest.raises(ValueError, match="another PCA than that of `fit`"):
        ALL_TOOLS[tool](ALL_CHANGES["new PCA"](adata, "X_pca"), flow, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tool", ALL_TOOLS)
def test_every_tool_warns_of_other_states(growing, tool, tmp_path):
    adata, flow = growing
    other = adata.copy()
    other.obsm["X_pca"] = other.obsm["X_pca"] * FLIP
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*of the fitted cells among these.*")
        with pytest.raises(UserWarning, match="have other values"):
            ALL_TOOLS[tool](other, flow, tmp_path)


@pytest.fixture(scope="module")
def treating():
    adata = with_pca(expression())
    adata.obs["drug"] = np.where(adata.obs["day"] == 0, "control", "A")
    flow = cf.PerturbationFlow(conditions="drug", steps=3, batch_size=16, device="cpu")
    return adata, flow.fit(adata)


@pytest.mark.parametrize("tool", OF_TREATMENTS)
def test_every_tool_of_treatments_refuses_another_pca_and_warns_of_other_states(treating, tool):
    adata, flow = treating
    with pytest.raises(ValueError, match="another PCA than that of `fit`"):
        OF_TREATMENTS[tool](ALL_CHANGES["new PCA"](adata, "X_pca"), flow)
    other = adata.copy()
    other.obsm["X_pca"] = other.obsm["X_pca"] * FLIP
    with pytest.raises(UserWarning, match="have other values"):
        OF_TREATMENTS[tool](other, flow)


@pytest.fixture(scope="module")
def stored(growing):
    adata, flow = growing
    adata = adata.copy()
    cf.tl.velocity(adata, flow)
    cf.tl.trajectories(adata, flow, n=5)
    return adata, cf.tl.interpolate(adata, flow, at=2)


@pytest.mark.parametrize("plot", CARRIED)
@pytest.mark.parametrize("file", [False, True])
def test_results_are_not_drawn_over_another_pca(stored, plot, file, tmp_path):
    adata, carried = stored
    if file:
        adata, carried = written(adata, tmp_path), written(carried, tmp_path)
    for cells, words in ((adata, None), (adata[:70].copy(), None), (new_pca(adata, "X_pca"), "another PCA than that")):
        if plot == "interpolation":
            cells.uns["carried"] = carried
        if words is None:
            CARRIED[plot](adata, cells)
        else:
            with pytest.raises(ValueError, match=words):
                CARRIED[plot](adata, cells)
    other = adata.copy()
    other.obsm["X_pca"] = other.obsm["X_pca"] * FLIP
    other.uns["carried"] = carried
    with pytest.raises(UserWarning, match="have other values"):
        CARRIED[plot](adata, other)


def test_results_of_before_are_drawn(stored):
    adata = new_pca(stored[0], "X_pca")
    del adata.uns["velocity"]["fingerprint"]
    cf.pl.velocity(adata)


def test_all_tools_are_crossed():
    named = {f"{room}.{name}" for room in ("tl", "pl") for name in getattr(cf, room).__all__}
    crossed = set(ALL_TOOLS) | set(OF_TREATMENTS) | WITHOUT_WEIGHTS | STORED
    assert named <= crossed
    assert crossed <= named | {"read", "score", "distill", "report.write"}


@pytest.fixture(scope="module")
def translated():
    """Cells of two conditions in one representation, and a translator between them."""
    adata = with_pca(expression())
    sides = [adata[adata.obs["day"] == day].copy() for day in (0, 3)]
    model = cf.DomainTranslator(steps=3, batch_size=16, device="cpu").fit(*sides)
    return adata, sides, model


ALL_VERBS = {
    "translate": lambda model, cells: model.translate(cells),
    "translate back": lambda model, cells: model.translate(cells, reverse=True),
    "trajectory": lambda model, cells: [*model.trajectory(cells, save=2)],
}


def noticed_by(verb, model, cells):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ALL_VERBS[verb](model, cells)
        except ValueError as error:
            return "refused", str(error)
    return ("warned", str(caught[0].message)) if caught else ("", "")


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_a_translator_knows_its_representation_too(translated, verb, tmp_path):
    adata, sides, model = translated
    model.save(tmp_path / "run")
    for one in (model, cf.DomainTranslator.load(tmp_path / "run")):
        for cells in (*sides, adata, adata[:3].copy(), without_loadings(adata), new_cells(adata, "X_pca")):
            assert noticed_by(verb, one, cells) == ("", "")
        for change in set(ALL_CHANGES) - {"another key"}:  # cells without a time are known by their distances alone
            assert noticed_by(verb, one, ALL_CHANGES[change](adata, "X_pca"))[0] == "refused", change
        flipped = adata.copy()
        flipped.obsm["X_pca"] = flipped.obsm["X_pca"] * FLIP
        assert noticed_by(verb, one, flipped)[0] == "warned"
        assert noticed_by(verb, one, without_loadings(adata).obsm["X_pca"]) == ("", "")


def test_two_domains_in_two_pcas_are_refused(translated):
    _, sides, model = translated
    with pytest.raises(ValueError, match="Source and target are in different representations"):
        cf.DomainTranslator(steps=3, device="cpu").fit(sides[0], with_pca(sides[1].copy()))
    for train in (model.distill, lambda *both, **_: model.refine(*both, rounds=1, steps=2)):
        with pytest.raises(ValueError, match="another PCA than that of `fit`"):
            train(*(new_pca(side, "X_pca") for side in sides), steps=2)


def test_domains_without_cells_have_no_fingerprint():
    x = np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32)
    assert cf.DomainTranslator(steps=2, batch_size=4, device="cpu").fit(*x).fingerprint_ is None


FITS_CELLS = {
    "SnapshotFlow": lambda adata: cf.SnapshotFlow(time_key="day", rep="X", steps=1).fit(adata),
    "PerturbationFlow": lambda adata: cf.PerturbationFlow(conditions="drug", rep="X", steps=1).fit(adata),
    "DomainTranslator": lambda adata: cf.DomainTranslator(rep="X", steps=1).fit(adata[:20], adata[20:]),
}


@pytest.mark.parametrize("fit", FITS_CELLS.values(), ids=FITS_CELLS)
def test_raw_counts_in_place_of_a_representation_are_warned_of(fit):
    counts = np.random.default_rng(0).poisson(3.0, (40, 30)).astype("float32")
    obs = pd.DataFrame({"day": [0.0, 1.0] * 20, "drug": ["control", "A"] * 20}, index=[f"c{k}" for k in range(40)])
    with pytest.warns(UserWarning, match="whole numbers only, as raw counts are"):
        fit(anndata.AnnData(X=counts, obs=obs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(anndata.AnnData(X=np.log1p(counts), obs=obs))


def test_no_cells_are_no_counts():
    warn_of_counts(np.empty((0, 30), np.float32), "X")
