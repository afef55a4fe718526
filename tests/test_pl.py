"""What the plots show: the data of the axes are the data given, and words say what they are."""

import inspect

import anndata
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver, QuiverKey

import cellflow as cf
from cellflow.errors import NotFittedError
from cellflow.pl.basis import read_basis
from cellflow.pl.canvas import GREY
from cellflow.pl.cells import by_column
from cellflow.pl.velocity import on_grid

TIMES = (0.0, 24.0, 72.0)
PER_TIME = 40


@pytest.fixture(scope="module")
def fitted():
    adata = walk()
    return adata, cf.SnapshotFlow(time_key="hours", rep="X_rep", steps=30, device="cpu").fit(adata)


@pytest.fixture
def adata(fitted):
    return fitted[0].copy()


@pytest.fixture
def flow(fitted):
    return fitted[1]


@pytest.fixture
def ax():
    """Axes apart from pyplot: nothing to close."""
    return Figure(layout="constrained").subplots()


def walk(dim=3):
    """Make three snapshots of cells that walk along the first axis, with an embedding that is a turned copy."""
    rng = np.random.default_rng(0)
    time = rng.permutation(np.repeat(TIMES, PER_TIME))
    x = rng.normal(size=(len(time), dim)) * 0.4
    x[:, 0] += time / 24
    obs = pd.DataFrame({"hours": time, "kind": np.where(x[:, 0] > 1, "late", "early")})
    obs.index = [f"c{i}" for i in range(len(obs))]
    names = pd.DataFrame(index=["MYOG", "CDK1", "ID1"])
    expression = np.stack([time, 72 - time, np.ones_like(time)], axis=1).astype(np.float32)
    rep = x.astype(np.float32)
    return anndata.AnnData(expression, obs=obs, var=names, obsm={"X_rep": rep, "X_umap": rep[:, 1::-1] * [[1, -1]]})


def offsets(collection):
    return np.asarray(collection.get_offsets())


def labelled(ax, label):
    return next(c for c in ax.collections if c.get_label() == label)


def same_points(found, expected):
    found, expected = (np.asarray(a, dtype=float) for a in (found, expected))
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], rtol=1e-5)


# --- all plots ---


@pytest.mark.parametrize("name", cf.pl.__all__)
def test_signature_puts_cells_first_and_settings_behind_keywords(name):
    first, *rest = inspect.signature(getattr(cf.pl, name)).parameters.values()
    assert first.name == ("flow" if name == "loss" else "adata")
    assert {p.name for p in rest if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)} <= {"flow", "predicted"}
    assert {"ax", "figure"} & {p.name for p in rest}


def draw_all(adata, flow):
    """Draw every plot on axes of our own."""
    blank = lambda: Figure(layout="constrained")  # noqa: E731
    middle = cf.tl.interpolate(adata, flow, at=[12.0])
    cf.pl.trajectories(adata, flow, basis="rep", ax=blank().subplots())
    cf.pl.velocity(adata, flow, basis="umap", ax=blank().subplots())
    cf.pl.interpolation(adata, middle, basis="rep", time_key="hours", figure=blank())
    cf.pl.loss(flow, ax=blank().subplots())


def test_no_global_state_is_touched(adata, flow):
    draw_all(adata, flow)
    before = dict(mpl.rcParams), plt.get_fignums(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    draw_all(adata, flow)
    assert dict(mpl.rcParams) == before[0]
    assert plt.get_fignums() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (np.random.get_state()[1] == before[3]).all()  # noqa: NPY002


def test_nothing_is_written_into_the_cells(adata, flow):
    keys = {name: list(getattr(adata, name)) for name in ("obs", "obsm", "uns", "layers")}
    draw_all(adata, flow)
    assert {name: list(getattr(adata, name)) for name in keys} == keys


def test_without_axes_a_figure_of_pyplot_is_made(adata, flow):
    ax = cf.pl.loss(flow)
    assert plt.fignum_exists(ax.figure.number)
    plt.close(ax.figure)


# --- trajectories ---


def test_stored_courses_are_drawn_as_they_are(adata, flow, ax):
    cf.tl.trajectories(adata, flow, n=7, n_times=11)
    cf.pl.trajectories(adata, basis="rep", components=(2, 0), ax=ax)
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    stored = adata.uns["trajectories"]["x"][:, :, [2, 0]]
    np.testing.assert_allclose(lines.get_segments(), stored.transpose(1, 0, 2))
    np.testing.assert_allclose(offsets(labelled(ax, "start")), stored[0])
    np.testing.assert_allclose(offsets(labelled(ax, "end")), stored[-1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rep 3", "rep 1")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["start", "end"]


def test_courses_followed_now_equal_those_stored(adata, flow, ax):
    cf.pl.trajectories(adata, flow, basis="rep", n=5, ax=ax)
    cf.tl.trajectories(adata, flow, n=5)
    np.testing.assert_allclose(offsets(labelled(ax, "end")), adata.uns["trajectories"]["x"][-1, :, :2], rtol=1e-5)


def test_no_more_courses_than_asked_for(adata, flow, ax):
    cf.tl.trajectories(adata, flow, n=20, n_times=5)
    cf.pl.trajectories(adata, basis="rep", n=6, ax=ax)
    assert len(offsets(labelled(ax, "end"))) == 6


def test_courses_in_an_embedding_stay_among_its_cells(adata, flow, ax):
    cf.pl.trajectories(adata, flow, basis="umap", n=5, ax=ax)
    cells = adata.obsm["X_umap"]
    for path in labelled(ax, "trajectories").get_segments():
        assert (path >= cells.min(axis=0)).all()
        assert (path <= cells.max(axis=0)).all()


def test_without_courses_the_tool_is_named(adata):
    with pytest.raises(KeyError, match=r"cf\.tl\.trajectories"):
        cf.pl.trajectories(adata, basis="rep")


def test_one_column_is_drawn_over_time(ax):
    adata = walk(dim=2)
    adata.obsm["X_one"] = adata.obsm["X_rep"][:, :1]
    flow = cf.SnapshotFlow(time_key="hours", rep="X_one", steps=5, device="cpu").fit(adata)
    cf.pl.trajectories(adata, flow, basis="one", n=3, ax=ax)
    np.testing.assert_allclose(offsets(labelled(ax, "start"))[:, 0], 0)
    np.testing.assert_allclose(offsets(labelled(ax, "end"))[:, 0], 72, rtol=1e-6)
    assert ax.get_xlabel() == "hours"
    with pytest.raises(ValueError, match="kind='cell'"):
        cf.pl.velocity(adata, flow, basis="one", kind="stream", ax=ax)


# --- colours ---


def test_cells_are_coloured_by_time_with_a_labelled_bar(adata, flow, ax):
    cf.pl.trajectories(adata, flow, basis="rep", n=2, ax=ax)
    cells, bar = ax.collections[0], ax.figure.axes[1]
    same_points(
        np.column_stack([offsets(cells), cells.get_array()]),
        np.column_stack([adata.obsm["X_rep"][:, :2], adata.obs["hours"]]),
    )
    assert bar.get_ylabel() == "hours"
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["0", "24", "72"]


def test_categories_get_a_legend_outside_and_their_noted_colours(adata, flow, ax):
    adata.uns["kind_colors"] = ["#112233", "#445566"]
    cf.pl.velocity(adata, flow, basis="rep", color="kind", ax=ax)
    ax.figure.draw_without_rendering()
    (legend,) = (a for a in ax.get_children() if a.__class__.__name__ == "Legend")
    assert [text.get_text() for text in legend.get_texts()] == ["early", "late"]
    assert [to_hex(c.get_facecolor()[0]) for c in ax.collections[:2]] == ["#112233", "#445566"]
    same_points(offsets(ax.collections[1]), adata.obsm["X_rep"][adata.obs["kind"] == "late", :2])
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1
    assert legend.get_window_extent().x1 <= ax.figure.bbox.x1


def test_cells_without_a_category_are_grey(adata, flow, ax):
    adata.obs["kind"] = adata.obs["kind"].where(adata.obs["kind"] == "late")
    cf.pl.velocity(adata, flow, basis="rep", color="kind", ax=ax)
    np.testing.assert_allclose(ax.collections[1].get_facecolor()[0][:3], to_rgba(GREY)[:3])


def test_colour_by_gene_is_its_expression(adata):
    np.testing.assert_array_equal(by_column(adata, "MYOG").values, adata.X[:, 0])


def test_unknown_colour_names_close_matches(adata):
    with pytest.raises(KeyError, match="MYOG"):
        by_column(adata, "MYOD")
    with pytest.raises(KeyError, match="hours"):
        by_column(adata, "zzzzz")


def test_too_many_categories_are_refused(adata):
    adata.obs["each"] = adata.obs_names
    with pytest.raises(ValueError, match="120 categories"):
        by_column(adata, "each")


def test_names_are_shown_as_they_are(adata, flow, ax):
    adata.obs["$a$"] = pd.Categorical(np.where(adata.obs["kind"] == "late", "_x", "$\\oops{$"))
    cf.pl.velocity(adata, flow, basis="rep", color="$a$", ax=ax)
    ax.figure.draw_without_rendering()  # mathematics that cannot be read would raise here
    (legend,) = (a for a in ax.get_children() if a.__class__.__name__ == "Legend")
    assert len(legend.get_texts()) == 2


# --- basis ---


def test_basis_is_named_as_scanpy_does(adata):
    short, full = (read_basis(adata, name, rep="X_rep") for name in ("umap", "X_umap"))
    np.testing.assert_array_equal(short.xy, full.xy)
    assert short.labels == ("UMAP 1", "UMAP 2")
    assert read_basis(adata, "X", rep="X").labels == ("MYOG", "CDK1")


def test_missing_basis_lists_what_is_there(adata):
    with pytest.raises(KeyError, match=r"No `adata.obsm\['X_tsne'\]`. Available: \['X_rep', 'X_umap'\]. .*sc.tl.umap"):
        read_basis(adata, "tsne", rep="X_rep")


@pytest.mark.parametrize("components", [(0, 3), (1, 1), (-1, 0)])
def test_components_must_be_columns(adata, components):
    with pytest.raises(ValueError, match="two different columns"):
        read_basis(adata, "rep", rep="X_rep", components=components)


def cloud(n=1500, dim=4):
    """Make cells with a linear embedding, and the map."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=(n, dim)) * np.array([1, 1, 0.2, 0.2])
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    adata = anndata.AnnData(obsm={"X_rep": x, "X_flat": x[:, :2] @ turn})
    return adata, x, turn


def test_states_in_a_linear_embedding_follow_the_map():
    adata, x, turn = cloud()
    inside = x[np.abs(x[:, :2]).max(axis=1) < 0.6][:50] * 0.9
    found = read_basis(adata, "flat", rep="X_rep").states(inside, np.zeros(50))
    assert np.linalg.norm(found - inside[:, :2] @ turn, axis=1).max() < 0.15


def test_velocities_in_a_linear_embedding_point_the_right_way():
    adata, x, turn = cloud()
    velocity = np.column_stack([-x[:, 1], x[:, 0], np.zeros((len(x), 2))])
    inside = np.abs(x[:, :2]).max(axis=1) < 0.7
    found, true = read_basis(adata, "flat", rep="X_rep").velocities(velocity)[inside], velocity[inside, :2] @ turn
    cosine = (found * true).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
    assert np.median(cosine) > 0.95
    assert (cosine > 0.5).mean() > 0.97


def test_a_cell_at_rest_rests_in_an_embedding():
    adata, x, _ = cloud(n=200)
    np.testing.assert_allclose(read_basis(adata, "flat", rep="X_rep").velocities(np.zeros_like(x)), 0, atol=1e-6)


# --- velocity ---


def test_arrows_on_cells_are_their_velocities(adata, flow, ax):
    cf.tl.velocity(adata, flow)
    cf.pl.velocity(adata, basis="rep", kind="cell", rep="X_rep", ax=ax)
    (arrows,) = (c for c in ax.collections if isinstance(c, Quiver))
    np.testing.assert_allclose(arrows.XY, adata.obsm["X_rep"][:, :2])
    np.testing.assert_allclose(np.column_stack([arrows.U, arrows.V]), adata.obsm["velocity"][:, :2])


def test_the_key_arrow_says_the_unit(adata, flow, ax):
    cf.pl.velocity(adata, flow, basis="rep", kind="grid", ax=ax)
    (key,) = (a for a in ax.get_children() if isinstance(a, QuiverKey))
    assert key.text.get_text().endswith(" per hour")


def test_directions_in_an_embedding_have_no_unit(adata, flow, ax):
    cf.pl.velocity(adata, flow, basis="umap", kind="grid", ax=ax)
    assert not [a for a in ax.get_children() if isinstance(a, QuiverKey)]


def test_streamlines_run_along_the_walk(adata, flow, ax):
    adata.obsm["velocity"] = np.tile([1.0, 0.0, 0.0], (adata.n_obs, 1))
    cf.pl.velocity(adata, basis="rep", rep="X_rep", ax=ax)
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    steps = np.concatenate([np.diff(path, axis=0) for path in lines.get_segments()])
    assert (steps[:, 0] > 0).mean() > 0.98  # a line may end where it stands
    assert steps[:, 0].min() > -1e-9
    np.testing.assert_allclose(steps[:, 1], 0, atol=1e-9)


def test_velocities_need_a_representation(adata, flow, ax):
    adata.obsm["arrows"] = np.ones((adata.n_obs, 3))
    cf.pl.velocity(adata, basis="rep", key="arrows", ax=ax)  # X_rep alone has three columns
    adata.obsm["X_other"] = adata.obsm["X_rep"]
    with pytest.raises(ValueError, match=r"\['X_rep', 'X_other'\]"):
        cf.pl.velocity(adata, basis="rep", key="arrows", ax=ax)
    adata.uns["arrows"] = {"rep": "X_other"}
    cf.pl.velocity(adata, basis="rep", key="arrows", ax=ax)


def test_velocities_of_another_width_are_not_drawn_in_an_embedding(adata):
    adata.obsm["arrows"] = np.ones((adata.n_obs, 2))
    with pytest.raises(ValueError, match="each of 3 columns of the representation; found 2"):
        cf.pl.velocity(adata, basis="umap", rep="X_rep", key="arrows")


def test_velocity_errors_name_the_cure(adata, flow):
    with pytest.raises(KeyError, match=r"cf\.tl\.velocity"):
        cf.pl.velocity(adata, basis="rep")
    with pytest.raises(ValueError, match="'stream', 'grid', 'cell'"):
        cf.pl.velocity(adata, flow, basis="rep", kind="lines")


def test_averages_on_a_grid_recover_a_linear_field_and_stop_where_cells_do():
    rng = np.random.default_rng(0)
    xy = rng.normal(size=(3000, 2))
    matrix = np.array([[0.0, -1.0], [1.0, 0.0]])
    gx, gy, mean = on_grid(np.vstack([xy, [[9.0, 9.0]]]), np.vstack([xy @ matrix.T, [[0.0, 0.0]]]))
    places = np.stack(np.meshgrid(gx, gy), axis=2)
    near = np.linalg.norm(places, axis=2) < 1
    np.testing.assert_allclose(mean[near], places[near] @ matrix.T, atol=0.2)
    assert np.isnan(mean[np.linalg.norm(places, axis=2) > 6]).all()


# --- interpolation ---


def test_predicted_cells_stand_beside_observed_ones(adata, flow):
    predicted = cf.tl.interpolate(adata, flow, at=[24.0, 36.0])
    figure = cf.pl.interpolation(adata, predicted, basis="rep", time_key="hours", figure=Figure(layout="constrained"))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [
        "24 hours, observed\n40 cells",
        "24 hours, predicted\n40 cells",
        "36 hours, observed\nnot measured",
        "36 hours, predicted\n80 cells",
    ]
    here = (predicted.obs["hours"] == 36).to_numpy()
    marks = labelled(figure.axes[3], "predicted")
    np.testing.assert_allclose(offsets(marks), predicted.obsm["X_rep"][here, :2])
    weight = predicted.obs["weight"].to_numpy()[here]
    np.testing.assert_allclose(marks.get_sizes() / marks.get_sizes().sum(), weight)
    assert weight.std() > 0
    seen = (adata.obs["hours"] == 24).to_numpy()
    np.testing.assert_allclose(offsets(labelled(figure.axes[0], "observed")), adata.obsm["X_rep"][seen, :2])
    around = offsets(labelled(figure.axes[0], "snapshots before and after"))
    np.testing.assert_allclose(around, adata.obsm["X_rep"][~seen, :2])


def test_panels_have_the_same_limits_and_equal_aspect(adata, flow):
    predicted = cf.tl.interpolate(adata, flow, at=[24.0, 36.0])
    figure = cf.pl.interpolation(
        adata, predicted, basis="rep", time_key="hours", figure=Figure(figsize=(8, 7), layout="constrained")
    )
    figure.draw_without_rendering()
    limits = np.array([[ax.get_xlim(), ax.get_ylim()] for ax in figure.axes])
    np.testing.assert_allclose(limits - limits[0], 0, atol=1e-6 * np.abs(limits).max())
    for ax in figure.axes:
        scale = ax.transData.transform([[0, 0], [1, 1]])
        assert np.ptp(scale[:, 0]) == pytest.approx(np.ptp(scale[:, 1]))


def test_one_column_is_drawn_as_histograms_of_shares():
    adata = walk()
    adata.obsm["X_one"] = adata.obsm["X_rep"][:, :1]
    flow = cf.SnapshotFlow(time_key="hours", rep="X_one", steps=5, device="cpu").fit(adata)
    predicted = cf.tl.interpolate(adata, flow, at=36.0)
    figure = cf.pl.interpolation(adata, predicted, basis="one", time_key="hours", figure=Figure(layout="constrained"))
    around, bars = figure.axes[1].containers
    assert sum(bar.get_height() for bar in around) == pytest.approx(1)
    inside = [bar for bar in bars if bar.get_height() > 0]
    middle = sum(bar.get_height() * (bar.get_x() + bar.get_width() / 2) for bar in inside)
    assert middle == pytest.approx(np.average(predicted.obsm["X_one"][:, 0], weights=predicted.obs["weight"]), abs=0.1)


# --- loss, validation, genes, descendants ---


def test_the_loss_is_the_history(ax):
    history = cf.training.History({"loss": [1.0, 100.0, 1.0, 1.0]})
    cf.pl.loss(history, ax=ax)
    steps, _ = ax.lines
    np.testing.assert_array_equal(steps.get_xydata(), [[1, 1], [2, 100], [3, 1], [4, 1]])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "loss", "log")
    cf.pl.loss(cf.training.History({"loss": [1.0, 2.0]}), ax=(linear := Figure().subplots()))
    assert linear.get_yscale() == "linear"


def test_the_running_median_is_calmer_than_the_steps(ax):
    noisy = 1 + 0.1 * np.random.default_rng(0).normal(size=1000)
    noisy[500] = 50
    cf.pl.loss(cf.training.History({"loss": noisy.tolist()}), ax=ax)
    assert ax.lines[1].get_ydata().max() < 1.2


def test_no_loss_before_fit():
    with pytest.raises(NotFittedError, match="fit"):
        cf.pl.loss(cf.SnapshotFlow())


def test_validation_shows_the_table(ax):
    methods = ["flow", "linear transport", "previous snapshot", "half against half"]
    rows = [
        {"time": t, "method": m, "W1": t / 10 + k, "n_cells": 9} for t in (48.0, 24.0) for k, m in enumerate(methods)
    ]
    table = pd.DataFrame(rows)
    cf.pl.validation(anndata.AnnData(uns={"validation": table}), time_key="hours", ax=ax)
    found = np.concatenate([offsets(c) for c in ax.collections])
    same_points(found, np.column_stack([table["W1"], table["time"] == 48]))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["24 hours", "48 hours"]
    assert "W1" in ax.get_xlabel()
    assert len(ax.get_legend().get_texts()) == len(methods)
    with pytest.raises(KeyError, match=r"cf\.tl\.validate"):
        cf.pl.validation(anndata.AnnData())
    with pytest.raises(ValueError, match="new cells"):
        cf.pl.validation(anndata.AnnData(), kind="cells")


def test_validation_shows_new_cells_beside_fitted_ones_with_intervals(ax):
    rows = [("flow", "new", 3.0), ("flow", "fitted", 1.0), ("not moving", "new", 4.0), ("floor", "fitted", 0.9)]
    table = pd.DataFrame(rows, columns=["method", "cells", "ED"]).assign(start=0.0, time=24.0)
    table["ED_low"], table["ED_high"] = table["ED"] - 0.5, table["ED"] + 2
    adata = anndata.AnnData(uns={"validation_new_cells": table})
    cf.pl.validation(adata, kind="new cells", time_key="hours", ax=ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0 hours to 24 hours"]
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown[:2] == ["flow, new cells", "flow, fitted cells"]
    assert len(shown) == 4
    assert ax.get_xlim()[1] > 5  # the interval is inside
    lines = [c.get_segments()[0][:, 0].tolist() for c in ax.collections if hasattr(c, "get_segments")]
    assert lines == [[2.5, 5.0], [0.5, 3.0]]
    with pytest.raises(KeyError, match="groupby"):
        cf.pl.validation(adata, kind="couplings")


def test_validation_shows_labels_before_clones_and_each_baseline_once(ax):
    rows = [
        (score, method, cells)
        for score in ("clone agreement", "label persistence")
        for method in ("flow", "not moving", "exact plan")
        for cells in ("fitted", "new")
    ]
    table = pd.DataFrame(rows, columns=["score", "method", "cells"]).assign(start=0.0, time=24.0)
    table = table.assign(value=0.5, low=0.4, high=0.6)
    adata = anndata.AnnData(uns={"validation_couplings": table})
    cf.pl.validation(adata, kind="couplings", time_key="hours", ax=ax)
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["labels, 0 hours to 24 hours", "clones, 0 hours to 24 hours"]
    marks = [c for c in ax.collections if not hasattr(c, "get_segments")]
    assert [len(offsets(c)) for c in marks] == [2, 2, 2, 2]
    assert len({round(y % 1, 6) for c in marks for y in offsets(c)[:, 1]}) == 4  # no interval hides another


def course(genes=("MYOG", "CDK1", "ID1")):
    obs = pd.DataFrame({"hours": [0.0, 0.0, 36.0, 36.0], "weight": [0.75, 0.25, 0.5, 0.5]}, index=list("abcd"))
    values = np.array([[4, 1, 0], [8, 1, 0], [1, 2, 0], [3, 4, 0]], dtype=np.float32)
    return anndata.AnnData(values[:, : len(genes)], obs=obs, var=pd.DataFrame(index=list(genes)))


def test_genes_are_weighted_means_beside_observed_means(adata):
    figure = cf.pl.genes(
        adata, course(), genes=["MYOG", "CDK1"], time_key="hours", left_out=[24.0], figure=Figure(layout="constrained")
    )
    line, *dots = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 5], [36, 2]])
    np.testing.assert_allclose(np.concatenate([dot.get_xydata() for dot in dots]), [[t, t] for t in TIMES])
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True, False]
    assert [ax.get_title() for ax in figure.axes] == ["MYOG", "CDK1"]
    assert figure.axes[0].get_xlabel() == "hours"


@pytest.mark.parametrize("names", [["MYOG"], ["MYOG", "CDK1"], ["MYOG", "CDK1", "ID1"]], ids=len)
def test_the_legend_of_genes_is_not_cut(names, adata):
    figure = cf.pl.genes(adata, course(genes=("MYOG", "CDK1", "ID1")), genes=names, time_key="hours", left_out=[24.0])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_missing_genes_name_close_matches(adata):
    with pytest.raises(KeyError, match="MYOG"):
        cf.pl.genes(adata, course(), genes=["myog"], time_key="hours")
    with pytest.raises(KeyError, match="the genes of the PCA"):
        cf.pl.genes(adata, course(genes=("MYOG", "CDK1")), genes="ID1", time_key="hours")
    with pytest.raises(ValueError, match="genes=True"):
        cf.pl.genes(adata, anndata.AnnData(obs=course().obs), genes="ID1", time_key="hours")
    with pytest.raises(ValueError, match="one or more genes"):
        cf.pl.genes(adata, course(), genes=[], time_key="hours")


def test_descendants_are_bars_of_mass(adata, flow, ax):
    cf.tl.push(adata, flow, cells=adata.obs["hours"] == 0, at=72, groupby="kind")
    cf.pl.descendants(adata, time_key="hours", ax=ax)
    groups = adata.uns["push"]["groups"]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], groups["mass"])
    np.testing.assert_allclose(offsets(ax.collections[0])[:, 0], groups["share"])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(groups.index)
    assert ax.get_title() == "at 72 hours"
    with pytest.raises(KeyError, match="groupby"):
        cf.pl.descendants(adata, key="pull")


def test_a_basis_that_is_not_there_is_refused_before_trajectories_are_computed(monkeypatch):
    adata = cf.datasets.branching(seed=0)
    flow = cf.SnapshotFlow(rep="X_latent", steps=1, regularize=False).fit(adata[::8].copy())
    monkeypatch.setattr(cf.tl, "trajectories", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(KeyError, match="X_nowhere"):
        cf.pl.trajectories(adata, flow, basis="nowhere")
