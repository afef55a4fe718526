"""Predicted cells, what treatments change, and how both are drawn and reported."""

import logging
import sys
import tracemalloc
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib.figure import Figure
from scipy import sparse, stats

import cellflow as cf
from cellflow.integrate import Fixed
from cellflow.metrics import energy_distance
from cellflow.pl.names import write_names
from cellflow.report.conditions import section, untold, verdict
from cellflow.tl.changes import apart, changed, moments
from conftest import make_treated

QUICK = {"conditions": "drug", "steps": 3, "batch_size": 16, "device": "cpu"}
STRANGE = "A/b+c $x$ <b>\u00e9"


def with_genes(sizes=(60, 50, 40), n_genes=24, seed=0):
    """Drug A raises the genes 2 and 3 by 3 and lowers 4 by 2; drug C does nothing. Odd genes are no part of the PCA."""
    draw = np.random.default_rng(seed)
    drug = np.repeat(["control", "A", "C"], sizes)
    x = draw.normal(size=(len(drug), n_genes)).astype(np.float32) + 5
    x[np.ix_(drug == "A", [2, 6])] += 3
    x[drug == "A", 4] -= 2
    obs = pd.DataFrame(
        {"drug": drug, "donor": draw.choice(["x", "y"], len(drug))}, index=[f"c{k}" for k in range(len(x))]
    )
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene{k}" for k in range(n_genes)]))
    adata.var["seen"] = np.arange(n_genes) % 2 == 0
    sc.pp.pca(adata, n_comps=8, mask_var="seen")
    return adata


@pytest.fixture(scope="module")
def known():
    adata = with_genes()
    return adata, cf.PerturbationFlow(conditions="drug", steps=400, batch_size=64, device="cpu").fit(adata)


# --- cells under conditions


def test_predicted_cells_are_those_that_are_carried(known):
    adata, flow = known
    found = cf.tl.perturb(adata, flow, condition=[{"drug": "C"}, {"drug": "A+C"}])
    control = adata[adata.obs["drug"] == "control"]
    assert found.obs["condition"].tolist() == ["C"] * 60 + ["A+C"] * 60
    assert found.obs["drug"].tolist() == ["C"] * 60 + ["A+C"] * 60
    assert found.obs["origin"].tolist() == [*control.obs_names] * 2
    assert found.obs.groupby("condition", observed=True)["weight"].sum().round(6).tolist() == [1, 1]
    expected = flow.transport(control.obsm["X_pca"], condition={"drug": "A+C"}).x[-1].numpy()
    np.testing.assert_allclose(found.obsm["X_pca"][60:], expected, atol=1e-4)


def test_genes_are_decoded_through_the_loadings(known):
    adata, flow = known
    found = cf.tl.perturb(adata, flow, condition={"drug": "A"})
    assert [*found.var_names] == [f"gene{k}" for k in range(0, 24, 2)]
    offset = adata.X.mean(axis=0) - adata.obsm["X_pca"].mean(axis=0) @ adata.varm["PCs"].T
    expected = found.obsm["X_pca"] @ adata.varm["PCs"].T + offset
    np.testing.assert_allclose(found.X, expected[:, ::2], atol=1e-4)
    some = cf.tl.perturb(adata, flow, condition={"drug": "A"}, genes=["gene8", "gene2"])
    assert [*some.var_names] == ["gene2", "gene8"]
    np.testing.assert_allclose(some.X, found[:, ["gene2", "gene8"]].X)
    assert cf.tl.perturb(adata, flow, condition={"drug": "A"}, genes=False).X is None
    with pytest.raises(KeyError, match="'gene3'"):
        cf.tl.perturb(adata, flow, genes=["gene2", "gene3"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_moments_of_sparse_counts_do_not_overflow(dtype):
    counts = np.array([[0, 100, 250], [200, 0, 30], [17, 4, 250]])
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(dtype)))
    found = moments(adata, np.arange(3))
    np.testing.assert_allclose(found.mean, counts.mean(axis=0))
    np.testing.assert_allclose(found.variance, counts.var(axis=0, ddof=1))


def test_a_sparse_representation_is_as_a_dense_one(known):
    adata, flow = known
    thin = adata.copy()
    thin.obsm["X_pca"] = sparse.csr_matrix(thin.obsm["X_pca"])
    again = cf.PerturbationFlow(conditions="drug", steps=400, batch_size=64, device="cpu").fit(thin)
    found, expected = (cf.tl.perturb(*pair, condition={"drug": "A"}) for pair in ((thin, again), (adata, flow)))
    np.testing.assert_array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
    np.testing.assert_array_equal(found.X, expected.X)


def test_columns_of_the_user_are_kept():
    adata = with_genes()
    adata.obs = adata.obs.rename(columns={"drug": "condition", "donor": "origin"})
    adata.obs["dose"] = np.where(adata.obs["condition"] == "control", 0, 100)
    flow = cf.PerturbationFlow(conditions=cf.Conditions("condition", dose="dose", categories=("origin",)), steps=3)
    found = cf.tl.perturb(adata, flow.fit(adata), condition={"condition": "A", "dose": 10.0})
    assert set(found.obs["condition"]) == {"A"}
    assert set(found.obs["origin"]) == {"x", "y"}
    assert found.obs["predicted_condition"].cat.categories.tolist() == ["A, dose 10"]
    control = adata.obs["condition"] == "control"
    assert found.obs["predicted_origin"].tolist() == adata.obs_names[control].tolist()
    assert found.obs["origin"].tolist() == adata.obs["origin"][control].tolist()
    asked = flow.conditions_.encode({"condition": "A", "dose": 10.0}, control.sum(), obs=adata.obs[control])
    np.testing.assert_array_equal(flow.read(found).condition, asked)


def test_a_response_has_a_name_that_files_hold(known):
    adata, flow = known
    with pytest.raises(ValueError, match="without '/'"):
        cf.tl.response(adata, flow, key_added="r/1")


def test_vectors_that_a_file_has_divided_are_refused_with_the_cause(tmp_path):
    adata = with_genes()
    adata.obs["drug"] = adata.obs["drug"].replace({"A": "A/b"})
    table = {"A/b": np.array([1.0, 0.0]), "C": np.array([0.0, 1.0])}
    flow = cf.PerturbationFlow(conditions=cf.Conditions("drug", embeddings={"drug": "table"}), steps=3)
    adata.uns["table"] = {"A": {"b": table["A/b"]}, "C": table["C"]}  # as h5ad gives it back
    with pytest.raises(ValueError, match="Files split names at '/', such as 'A/b'.*data frame"):
        flow.fit(adata)
    adata.uns["table"] = pd.DataFrame(table, index=["one", "two"]).T
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert flow.fit(anndata.read_h5ad(tmp_path / "cells.h5ad")).conditions_.names == ("A/b", "C")


def test_too_many_genes_are_left_out_unless_they_are_asked_for(known, monkeypatch, caplog):
    adata, flow = known
    monkeypatch.setattr(sys.modules["cellflow.tl.perturb"], "MOST_DECODED", 100)
    assert cf.tl.perturb(adata, flow).X is None
    assert "genes are not decoded" in caplog.text
    assert cf.tl.perturb(adata, flow, genes=True).n_vars == 12


def test_all_treatments_of_the_fit_are_the_default(known):
    adata, flow = known
    assert [*cf.tl.perturb(adata, flow).obs["condition"].unique()] == ["A", "C"]


def test_the_cells_are_those_that_are_named(known):
    adata, flow = known
    some = cf.tl.perturb(adata, flow, condition={"drug": "A"}, cells=["c3", "c0"])
    assert some.obs["origin"].tolist() == ["c3", "c0"]
    bare = adata.copy()
    del bare.obs["drug"]
    same = cf.tl.perturb(bare, flow, condition={"drug": "A"}, cells=["c3", "c0"])
    assert (same.obsm["X_pca"] == some.obsm["X_pca"]).all()
    with pytest.raises(KeyError, match="marks the controls"):
        cf.tl.perturb(bare, flow, condition={"drug": "A"})


def test_cells_that_are_treated_already_are_warned_of(known):
    adata, flow = known
    drugs = adata.obs["drug"].astype(str)
    with pytest.warns(
        UserWarning, match=f"{(drugs == 'A').sum()} of {len(drugs[drugs.isin(['A', 'control'])])} `cells`"
    ):
        cf.tl.perturb(adata, flow, condition={"drug": "C"}, cells=drugs.isin(["A", "control"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cf.tl.perturb(adata, flow, condition={"drug": "C"}, cells=drugs == "control")


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        ("A", TypeError, "as a mapping such as {'drug'"),
        ([], ValueError, "found none"),
        ({"drug": ["A", "C"]}, TypeError, r"Combinations are written 'A\+B'"),
        ({"drug": "B"}, ValueError, "No 'B'"),
        ({"dose": 3}, KeyError, "not one of the columns"),
        ({}, KeyError, "lacks 'drug'"),
        ([{"drug": "A+C"}, {"drug": "C+A"}], ValueError, "twice"),
        (3, TypeError, "mapping"),
    ],
)
def test_what_is_no_condition_is_refused(known, condition, error, words):
    with pytest.raises(error, match=words):
        cf.tl.perturb(*known, condition=condition)


def test_what_is_no_treatment_is_that_of_each_cell():
    adata = make_treated()
    conditions = cf.Conditions(treatment="drug", categories=("donor",))
    flow = cf.PerturbationFlow(**QUICK | {"conditions": conditions}).fit(adata)
    found = cf.tl.perturb(adata, flow, condition={"drug": "A"})
    assert (found.obs["donor"].to_numpy() == adata.obs["donor"][found.obs["origin"]].to_numpy()).all()
    as_x = cf.tl.perturb(adata, flow, condition={"drug": "A", "donor": "x"})
    assert set(as_x.obs["donor"]) == {"x"}
    there = (found.obs["donor"] == "x").to_numpy()
    np.testing.assert_allclose(as_x.obsm["X_pca"][there], found.obsm["X_pca"][there], atol=1e-5)
    assert as_x.obs["condition"].unique().tolist() == ["A, donor x"]


def test_cells_of_no_group_are_carried_too():
    adata = make_treated()
    flow = cf.PerturbationFlow(**QUICK, within="donor").fit(adata)
    assert "donor" in cf.tl.perturb(adata, flow, condition={"drug": "A"}).obs
    del adata.obs["donor"]
    assert "donor" not in cf.tl.perturb(adata, flow, condition={"drug": "A"}).obs


def test_many_cells_are_carried_some_at_a_time(known, monkeypatch):
    adata, flow = known
    whole = cf.tl.perturb(adata, flow)
    monkeypatch.setattr("cellflow.estimators.portions.MOST_ROWS", 7)
    parts = cf.tl.perturb(adata, flow)
    np.testing.assert_allclose(parts.obsm["X_pca"], whole.obsm["X_pca"], atol=1e-4)
    np.testing.assert_allclose(parts.X, whole.X, atol=1e-4)


def test_a_bar_is_shown_where_it_is_asked_for(known, capsys):
    cf.tl.perturb(*known, progress=True)
    assert "perturbing" in capsys.readouterr().err
    cf.tl.perturb(*known)
    assert capsys.readouterr().err == ""


def test_memory_is_that_of_the_result():
    adata = make_treated(sizes=(4000, 40, 40), dim=20)
    flow = cf.PerturbationFlow(**QUICK | {"regularize": False}).fit(adata)
    asked = [{"drug": "A"}, {"drug": "B"}, {"drug": "A+B"}]
    tracemalloc.start()
    found = cf.tl.perturb(adata, flow, condition=asked, solver=Fixed(steps=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * found.obsm["X_pca"].nbytes + 8e6  # what NumPy and pandas take; names of cells among it


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_everything_written_survives_files_and_strange_names(form, tmp_path):
    adata = with_genes(sizes=(20, 15, 15))
    adata.obs["drug"] = adata.obs["drug"].replace("A", STRANGE)
    flow = cf.PerturbationFlow(**QUICK | {"conditions": cf.Conditions("drug", separator=None)}, within="donor").fit(
        adata
    )
    cf.tl.response(adata, flow, max_cells=20)
    found = cf.tl.perturb(adata, flow)
    for number, written in enumerate((adata, found)):
        path = tmp_path / f"{number}.{form}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats to come, and of names with strokes, which stay values
            getattr(written, f"write_{form}")(path)
        back = getattr(anndata, f"read_{form}")(path)
        assert (back.obs == written.obs).all().all()
        if number == 0:
            pd.testing.assert_frame_equal(back.uns["response"], written.uns["response"], check_dtype=False)
            np.testing.assert_array_equal(back.varm["response_predicted"], written.varm["response_predicted"])
            assert STRANGE not in [*back.uns, *back.varm]
            cf.pl.response(back, treatment=STRANGE)
            cf.pl.conditions(back)
        else:
            assert "fingerprint" in back.uns["perturbation"]


# --- what treatments change


@pytest.fixture(scope="module")
def measured(known):
    adata = known[0].copy()
    cf.tl.response(adata, known[1])
    return adata


def test_what_does_something_is_told_from_what_does_not(measured):
    table = measured.uns["response"].set_index("treatment")
    assert table["told"].to_dict() == {"A": True, "C": False}
    assert table.loc["A", "p"] < 1e-6 < 0.05 < table.loc["C", "p"]
    assert table.loc["A", "changed_genes"] == 3
    assert table.loc["C", "changed_genes"] == 0
    assert (table["changed_genes_floor"] == 0).all()
    assert table.loc["A", "ceiling"] > 0.9
    assert (table[["cells", "controls"]].to_numpy() == [[50, 60], [40, 60]]).all()


def test_what_cannot_be_told_from_nothing_is_left_alone(measured, known):
    adata, flow = known
    table = measured.uns["response"].set_index("treatment")
    assert table.loc["C", "share"] == 0 < table.loc["A", "share"] <= 1
    assert (
        ((table[["share", "share_of_differences"]] >= 0) & (table[["share", "share_of_differences"]] <= 1)).all().all()
    )
    found = cf.tl.perturb(adata, flow, condition={"drug": "C"})
    np.testing.assert_allclose(found.obsm["X_pca"], adata.obsm["X_pca"][(adata.obs["drug"] == "control").to_numpy()])


def test_changes_are_those_of_the_means(measured, known):
    adata, flow = known
    drug, x = adata.obs["drug"].to_numpy(), adata.X
    expected = x[drug == "A"].mean(axis=0) - x[drug == "control"].mean(axis=0)
    np.testing.assert_allclose(measured.varm["response"][:, 0], expected, atol=1e-5)
    states = adata.obsm["X_pca"][drug == "control"]
    predicted = flow.transport(states, condition={"drug": "A"}).x[-1].numpy().mean(axis=0) - states.mean(axis=0)
    seen = adata.var["seen"].to_numpy()
    np.testing.assert_allclose(
        measured.varm["response_predicted"][seen, 0], adata.varm["PCs"][seen] @ predicted, atol=1e-4
    )
    assert np.isnan(measured.varm["response_predicted"][~seen]).all()
    row = measured.uns["response"].iloc[0]
    expected = np.corrcoef(measured.varm["response_predicted"][seen, 0], expected[seen])[0, 1]
    assert row["correlation_flow"] == pytest.approx(expected, abs=1e-4)


def test_predictions_do_not_change_what_was_measured(measured, known):
    """The change is from the real controls, whatever a flow makes of them."""
    adata = known[0].copy()
    cf.tl.response(adata, conditions="drug")
    table, other = adata.uns["response"], measured.uns["response"]
    pd.testing.assert_frame_equal(table, other[table.columns])
    assert (adata.varm["response"] == measured.varm["response"]).all()
    assert "response_predicted" not in adata.varm
    assert not [name for name in table if "flow" in name or "shift" in name]


def test_distances_are_energy_distances(known):
    adata = known[0].copy()
    cf.tl.response(adata, conditions="drug", genes=False, max_cells=1000)
    x, drug = adata.obsm["X_pca"], adata.obs["drug"].to_numpy()
    expected = energy_distance(x[drug == "control"], x[drug == "A"])
    assert adata.uns["response"]["energy_distance"][0] == pytest.approx(expected)
    assert "response" not in adata.varm


def test_a_condition_that_a_fit_has_not_seen_is_said_to_be_new():
    adata = make_treated(sizes=(60, 50, 50))
    left = adata[~((adata.obs["drug"] == "A") & (adata.obs["donor"] == "y"))].copy()
    flow = cf.PerturbationFlow(**QUICK, within="donor").fit(left)
    cf.tl.response(adata, flow)
    table = adata.uns["response"].set_index(["treatment", "group"])
    assert table["fitted"].to_dict() == {("A", "x"): True, ("A", "y"): False, ("B", "x"): True, ("B", "y"): True}
    assert table.loc[("A", "y"), "energy_distance_shift"] < table.loc[("A", "y"), "energy_distance"] / 5


def test_groups_without_controls_are_left_out(caplog):
    adata = make_treated()
    kept = ~((adata.obs["drug"] == "control") & (adata.obs["donor"] == "y"))
    adata = adata[kept].copy()
    cf.tl.response(adata, conditions="drug", within="donor")
    assert set(adata.uns["response"]["group"]) == {"x"}
    assert "no controls in 'y'" in caplog.text


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"conditions": "drug", "max_cells": 1}, ValueError, "max_cells"),
        ({"conditions": "drug", "genes": "some"}, ValueError, "genes"),
        ({"conditions": "drug", "genes": True}, ValueError, "Expected genes"),
        ({"conditions": "nothing"}, KeyError, "nothing"),
    ],
)
def test_what_cannot_be_measured_is_refused(given, error, words):
    adata = make_treated()
    with pytest.raises(error, match=words):
        cf.tl.response(adata, **given)
    assert not adata.uns


def test_settings_of_a_flow_are_not_given_twice(known):
    with pytest.raises(ValueError, match="`within` is a setting of the flow"):
        cf.tl.response(*known, within="donor")


def test_too_large_tables_are_refused(known, monkeypatch):
    monkeypatch.setattr(sys.modules["cellflow.tl.response"], "MOST", 10)
    with pytest.raises(ValueError, match="Use fewer genes"):
        cf.tl.response(known[0].copy(), conditions="drug")
    cf.tl.response(known[0].copy(), conditions="drug", genes=False)


def test_the_test_of_genes_is_welchs(known):
    adata = known[0]
    rows = [np.flatnonzero(adata.obs["drug"] == name) for name in ("control", "A")]
    p = stats.ttest_ind(*(adata.X[some] for some in rows), equal_var=False).pvalue
    expected = stats.false_discovery_control(p) <= 0.05
    assert (changed(*(moments(adata, some) for some in rows)) == expected).all()


def test_moments_do_not_depend_on_how_cells_are_read(known, monkeypatch):
    adata = known[0].copy()
    whole = moments(adata, np.arange(50))
    np.testing.assert_allclose(whole.variance, adata.X[:50].var(axis=0, ddof=1), rtol=1e-5)
    monkeypatch.setattr("cellflow.tl.changes.CHUNK", 7)
    from scipy import sparse

    for form in (adata.X, sparse.csr_matrix(adata.X)):
        adata.X = form
        found = moments(adata, np.arange(50))
        np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-5)
        np.testing.assert_allclose(found.variance, whole.variance, rtol=1e-4)


def test_nothing_is_called_something_about_as_often_as_it_should():
    draw, rng = np.random.default_rng(0), cf.generator(seed=0)
    p = [apart(*draw.normal(size=(2, 30, 4)), generator=rng).p for _ in range(60)]
    assert np.mean(np.array(p) < 0.05) < 0.15
    assert 0.3 < np.mean(p) < 0.7


# --- figures and reports


def test_the_figure_of_a_response_names_genes_and_says_how_good_it_is(measured):
    ax = cf.pl.response(measured, treatment="A", genes=3)
    assert {text.get_text() for text in ax.texts} == {"gene2", "gene4", "gene6"}
    assert "seen in the fit" in ax.get_title()
    assert "cannot be distinguished" not in ax.get_title()
    assert "cannot be distinguished from no effect" in cf.pl.response(measured, treatment="C").get_title()
    assert "nothing is predicted" not in ax.get_title()
    chosen = cf.pl.response(measured, genes=["gene8"])
    assert [text.get_text() for text in chosen.texts] == ["gene8"]
    for given, error in (
        ({"treatment": "B"}, ValueError),
        ({"group": "z"}, ValueError),
        ({"genes": ["gene3"]}, KeyError),
    ):
        with pytest.raises(error):
            cf.pl.response(measured, **given)


def test_what_is_coloured_is_named():
    """Of genes that are not asked for by name: those for whose names there is no room look like all others."""
    n, scores = 60, {"correlation_flow": 0.9, "correlation_shift": 0.8, "ceiling": 0.95}
    table = table_of([("A", True, True, 9.0, 1.0, 1.0)]).assign(**scores)
    along = np.linspace(0.01, 1, n)[:, None]
    var = pd.DataFrame(index=[f"a gene that is called {k}" for k in range(n)])
    varm = {"response": along, "response_predicted": along**9}
    adata = anndata.AnnData(var=var, varm=varm, uns={"response": table})
    for genes in (n, list(adata.var_names)):
        ax = cf.pl.response(adata, genes=genes)
        coloured = {tuple(place) for place in ax.collections[-1].get_offsets().tolist()}
        named = {tuple(float(each) for each in text.xy) for text in ax.texts}
        assert 0 < len(named) < n
        assert coloured == named if genes == n else len(coloured) == n


def test_a_figure_says_where_nothing_is_predicted(measured):
    adata = measured.copy()
    adata.varm["response_predicted"][:] = 0
    adata.uns["response"][["correlation_flow", "correlation_shift"]] = np.nan
    title = cf.pl.response(adata, treatment="A").get_title()
    assert "nothing is predicted" in title
    assert "nan" not in title


@pytest.mark.parametrize(
    ("separator", "written", "asked"),
    [("+", "A+C", "C+A"), ("+", "A+C, dose 3", "C + A, dose 3"), (" & ", "A & C", "C & A"), ("", "A+C", None)],
)
def test_a_combination_has_no_order(separator, written, asked, measured):
    adata = measured.copy()
    adata.uns["response"]["treatment"] = [written, "D"]
    adata.uns["response_about"]["separator"] = separator
    assert written in cf.pl.response(adata, treatment=asked or written).get_title()
    with pytest.raises(ValueError, match="treatment"):
        cf.pl.response(adata, treatment="C+A" if asked is None else "C")


def test_the_separator_of_combinations_is_written(known):
    adata = known[0].copy()
    for separator, written in (("/", "/"), (None, "")):
        cf.tl.response(adata, conditions=cf.Conditions("drug", separator=separator), genes=False)
        assert adata.uns["response_about"] == {"rep": "X_pca", "within": "", "separator": written}


def test_figures_say_what_to_run_first(known):
    adata = known[0].copy()
    for draw in (cf.pl.response, cf.pl.conditions):
        with pytest.raises(KeyError, match="cf.tl.response"):
            draw(adata)
    cf.tl.response(adata, conditions="drug")
    with pytest.raises(KeyError, match="with a flow"):
        cf.pl.response(adata)


def crossed(box, start, end):
    """Whether a segment goes through a box, by many places along it."""
    along = start + np.linspace(0, 1, 500)[:, None] * (end - start)
    return ((along > box[:2] + 1) & (along < box[2:] - 1)).all(axis=1).any()


def test_names_and_leaders_keep_clear_of_points_lines_and_each_other():
    from matplotlib.text import Text

    ax = Figure(figsize=(6, 5)).subplots()
    points = np.random.default_rng(1).normal(size=(60, 2)) * [0.1, 0.02]
    ax.scatter(*points.T)
    ax.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5))
    lines = np.array([[[-0.5, 0.0], [0.5, 0.0]], [[-0.5, -0.5], [0.5, 0.5]]])
    names = write_names(ax, *points[:40].T, [f"name {k}" for k in range(40)], clear=points[40:], lines=lines)
    assert len(names) > 5
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text).extents for text in ax.texts]
    places = ax.transData.transform(points)
    ends = ax.transData.transform(lines.reshape(-1, 2)).reshape(-1, 2, 2)
    leaders = 0
    for number, (text, box) in enumerate(zip(ax.texts, boxes, strict=True)):
        assert not ((places > box[:2]) & (places < box[2:])).all(axis=1).any()
        assert not any(crossed(box, *line) for line in ends)
        if not text.arrow_patch.get_visible():
            continue
        leaders += 1
        start, end = ax.transData.transform(text.xy), (box[:2] + box[2:]) / 2
        assert not any(crossed(other, start, end) for k, other in enumerate(boxes) if k != number), text.get_text()
    assert leaders


def test_no_name_covers_another():
    draw = np.random.default_rng(0)
    ax = Figure(figsize=(6, 5)).subplots()
    x, y = draw.normal(size=(2, 40)) * 0.1
    ax.scatter(x, y)
    names = write_names(ax, x, y, [f"treatment {k}" for k in range(40)], clear=np.zeros((0, 2)))
    ax.figure.draw_without_rendering()
    from matplotlib.text import Text

    boxes = np.array([Text.get_window_extent(text).extents for text in ax.texts])
    assert 10 < len(names) == len(boxes)
    for k, one in enumerate(boxes):
        others = np.delete(boxes, k, axis=0)
        apart_ = (others[:, 2:] <= one[:2] + 1).any(axis=1) | (others[:, :2] >= one[2:] - 1).any(axis=1)
        assert apart_.all(), names[k]


def test_the_map_puts_no_change_at_the_cross(measured):
    ax = cf.pl.conditions(measured)
    assert ax.texts[0].get_text() == "no change"
    told, untold_ = (np.asarray(points.get_offsets()) for points in ax.collections[1:3])
    assert np.linalg.norm(told[0]) > 3 * np.linalg.norm(untold_[0])


def test_one_condition_far_out_does_not_squeeze_the_map_of_many():
    places = np.random.default_rng(0).normal(size=(30, 2)) * [3, 0.2]
    table = table_of([(f"drug{k}", True, True, 9.0, 1.0, 1.0) for k in range(30)])
    adata = anndata.AnnData(uns={"response": table, "response_states": places})
    assert cf.pl.conditions(adata).get_yscale() == "linear"
    places[4] = 0, 8
    ax = cf.pl.conditions(adata)
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "asinh")
    assert "logarithmic" in ax.get_ylabel()
    assert "logarithmic" not in ax.get_xlabel()
    names = [text.get_text() for text in ax.texts]
    assert names[0] == "no change"
    assert {"drug4", f"drug{np.abs(places[:, 0]).argmax()}"} < set(names)


def table_of(rows):
    columns = ["treatment", "told", "fitted", "energy_distance", "energy_distance_flow", "energy_distance_shift"]
    return pd.DataFrame(rows, columns=columns).assign(group="all")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("A", True, False, 9.0, 1.0, 2.0)], "is worth more than the mean shift"),
        (
            [("A", True, False, 9.0, 1.0, 2.0), ("B", True, False, 9.0, 1.0, 1.0)],
            "is worth more than the mean shift in 1 of 2 conditions that it did not see",
        ),
        ([("A", True, False, 9.0, 2.0, 1.0)], "is worse than the mean shift in 1 of 1 condition that"),
        ([("A", True, False, 9.0, 1.0, 1.01)], "only ties with the mean shift"),
        ([("A", True, False, 9.0, 1.0, 2.0), ("B", True, False, 9.0, 2.0, 1.0)], "only ties with the mean shift"),
        ([("A", True, True, 9.0, 1.0, 2.0)], "that it was fitted on"),
        (
            [("A", True, True, 9.0, 1.0, 9.0), ("B", True, False, 9.0, 1.0, 1.0)],
            "farther in 0 of 1 condition that",
        ),
        ([("A", False, False, 0.2, 1.0, 0.2)], "cells under conditions without a distinguishable effect: A"),
    ],
)
def test_the_verdict_is_honest(rows, said):
    assert said in " ".join(verdict(table_of(rows)))


def test_nothing_is_said_against_what_does_no_harm():
    assert verdict(table_of([("A", False, False, 0.2, 0.21, 0.2)])) == []
    told = table_of([("A", True, False, 9.0, 1.0, 2.0)])
    assert untold(told) == "Every condition can be distinguished from no effect."


def test_of_many_conditions_not_all_are_named():
    rows = [(f"drug{k}", False, False, 0.2, 1.0, 0.2) for k in range(22)]
    assert untold(table_of(rows)) == "None of 22 conditions can be distinguished from no effect."
    assert untold(table_of(rows[:1])) == "1 of 1 condition cannot be distinguished from no effect: drug0."
    rows.append(("other", True, True, 9.0, 1.0, 1.0))
    assert untold(table_of(rows)).startswith("22 of 23 conditions cannot be distinguished from no effect: drug0, ")
    assert untold(table_of(rows)).endswith("drug7 and 14 more.")
    assert "drug7 and 14 more" in verdict(table_of(rows))[-1]


def test_the_report_says_what_was_found(measured, known, tmp_path):
    page = cf.report.write_perturbation(tmp_path, measured, known[1], title="<Two> drugs", details={"wall time": "3 s"})
    text = page.read_text()
    assert "1 of 2 conditions cannot be distinguished from no effect: C." in text
    assert "the mean shift" in text
    assert "&lt;Two&gt; drugs" in text
    assert f"cellflow perturb model={tmp_path} condition.drug=A\n" in text
    names = ("loss", "conditions", "response_1", "response_2")
    figures = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == figures
    bare = known[0].copy()
    text = cf.report.write_perturbation(tmp_path, bare, known[1], title="None", details={}).read_text()
    assert "Not compared with measured changes yet" in text
    assert section(bare) == ""


def test_a_report_of_snapshots_shows_what_treatments_change(tmp_path):
    adata = cf.datasets.branching(seed=0)
    flow = cf.SnapshotFlow(rep="X_latent", steps=5, device="cpu").fit(adata)
    adata.obs["drug"] = np.where(np.arange(adata.n_obs) % 2, "A", "control")
    cf.tl.response(adata, conditions="drug", rep="X_latent", max_cells=50)
    text = cf.report.write(tmp_path, adata, flow, title="None", details={}).read_text()
    assert "What treatments change" in text
    assert (tmp_path / "figures" / "conditions.png").is_file()


def test_many_conditions_give_a_page_of_reasonable_length():
    rows = [(f"drug{k}", k % 2 == 0, True, 1.0 + k, 1.0, 1.0) for k in range(1000)]
    found = section(anndata.AnnData(uns={"response": table_of(rows).assign(cells=5, controls=9)}))
    assert found.count("<tr>") == 201
    assert "200 largest of 1,000" in found
    assert len(untold(table_of(rows))) < 400


def test_what_is_not_told_is_logged(known, caplog):
    with caplog.at_level(logging.WARNING):
        cf.tl.response(known[0].copy(), known[1])
    assert "1 of 2 conditions cannot be distinguished from no effect: 'C'" in caplog.text
