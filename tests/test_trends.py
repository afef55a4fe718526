"""Trends: means over courses by another route, their bands, fates that noise tells apart, files, figures, refusals."""

import copy

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch

import cellflow as cf
from cellflow import tl
from cellflow.tl.courses import Courses
from cellflow.tl.fate_table import write_fate
from cellflow.tl.trend_table import read_trends
from conftest import Known

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
FEW = {"n_times": 7, "n_bootstrap": 20}


@pytest.fixture(scope="module")
def branches():
    """Two groups that move apart over uneven times, A up and B down, in genes that are linear in where they are."""
    draw = np.random.default_rng(0)
    time = np.repeat([0.0, 1.0, 4.0], [50, 80, 70])
    side = np.where(np.arange(200) % 2, 1.0, -1.0)
    x = draw.normal(size=(200, 2)) * 0.2
    x[:, 0] += time
    x[:, 1] += side * (0.5 + 0.5 * time)
    genes = x @ draw.normal(size=(2, 6)) + 5 + 0.1 * draw.normal(size=(200, 6))
    adata = anndata.AnnData(genes.astype(np.float32), var=pd.DataFrame(index=[f"gene{k}" for k in range(6)]))
    adata.obs["day"], adata.obs["kind"] = time, pd.Categorical(np.where(side > 0, "A/up $x_1^{", "B"))
    sc.pp.pca(adata, n_comps=3)
    flow = cf.SnapshotFlow(time_key="day", steps=150, batch_size=64, device="cpu").fit(adata)
    own = (adata.obs["kind"].to_numpy()[:, None] == ["A/up $x_1^{", "B"]).astype(float)
    noted = {"at": 4.0, "groupby": "kind", "time_key": "day", "rep": "X_pca", "unit": ""}
    rows = np.flatnonzero(time < 4)
    empty = np.full((len(rows), 2), np.nan)
    write_fate(adata, "fate", rows, {"": own[rows], "_low": empty, "_high": empty}, ["A/up $x_1^{", "B"], noted)
    return adata, flow


@pytest.fixture
def both(branches):
    return branches[0].copy(), branches[1]


def interpolated(adata, flow, time, gene, group=None):
    """The mean of a gene over the cells that `interpolate` gives, of one group."""
    found = tl.interpolate(adata, flow, at=time)
    here = np.ones(found.n_obs, bool)
    if group is not None:
        here = (adata.obs.loc[found.obs["origin"], "kind"] == group).to_numpy()
    weight = found.obs["weight"].to_numpy() * here
    return np.average(np.asarray(found[:, gene].X).ravel(), weights=weight)


@pytest.mark.parametrize("time", [0.0, 0.4, 1.0, 3.1, 4.0])
def test_a_trend_is_the_mean_of_interpolated_cells(both, time):
    adata, flow = both
    tl.trends(adata, flow, genes=["gene4", "gene1"], by=None, at=[time], n_bootstrap=5)
    found = adata.uns["trends"]
    assert list(found["genes"]) == ["gene4", "gene1"]
    expected = [interpolated(adata, flow, time, gene) for gene in ("gene4", "gene1")]
    np.testing.assert_allclose(found["mean"][0, :, 0], expected, atol=2e-3)  # courses are straight between saved states
    tl.trends(adata, flow, genes=["gene4"], at=[time], n_bootstrap=5)
    for fate, group in enumerate(["A/up $x_1^{", "B"]):
        expected = interpolated(adata, flow, time, "gene4", group)
        np.testing.assert_allclose(adata.uns["trends"]["mean"][fate, 0, 0], expected, atol=5e-3)


def test_growth_weighs_courses(branches, monkeypatch):
    """Cells grow the faster the further up they are, forward and backward, as for `interpolate`."""
    adata, flow = branches[0].copy(), copy.copy(branches[1])  # another field takes the place of what was learned
    monkeypatch.setattr(flow, "field_", Known([0.5, 0.0, 0.0], growth=lambda x: x[:, 0]))
    monkeypatch.setattr(flow, "growth_", True)
    tl.trends(adata, flow, genes=["gene0"], by=None, at=[0.5, 2.0], n_bootstrap=5)
    expected = [interpolated(adata, flow, time, "gene0") for time in (0.5, 2.0)]
    np.testing.assert_allclose(adata.uns["trends"]["mean"][0, 0], expected, atol=2e-3)
    monkeypatch.setattr(flow, "growth_", False)
    tl.trends(adata, flow, genes=["gene0"], by=None, at=[0.5, 2.0], n_bootstrap=5)
    assert np.abs(adata.uns["trends"]["mean"][0, 0] - expected).min() > 0.01


def test_bands_are_as_wide_as_the_error_of_a_mean(both):
    adata, flow = both
    tl.trends(adata, flow, genes=["gene0", "gene1"], by=None, at=[1.0], n_bootstrap=2000)
    found = adata.uns["trends"]
    decoded = tl.interpolate(adata, flow, at=1.0)[:, ["gene0", "gene1"]].X
    expected = 2 * 1.645 * decoded.std(axis=0) / np.sqrt(80)
    np.testing.assert_allclose((found["high"] - found["low"])[0, :, 0], expected, rtol=0.08)
    assert found["cells"][0, 0] == pytest.approx(80)


def test_any_decoder_gives_trends_and_nonlinear_ones_average_genes(both):
    adata, flow = both
    square = cf.cells.Decoder(lambda x: x[:, :1] ** 2, ["square"])
    tl.trends(adata, flow, genes=["square"], by=None, at=[1.0], n_bootstrap=5, decode=square)
    here = (adata.obs["day"] == 1).to_numpy()
    found = adata.uns["trends"]
    expected = np.square(adata.obsm["X_pca"][here, 0]).mean()
    assert found["mean"][0, 0, 0] == pytest.approx(expected, rel=1e-5)
    assert found["measured"][0, 0, 1] == pytest.approx(expected, rel=1e-5)
    assert found["measured_as"] == "decoded"
    linear = cf.cells.fit_decoder(adata)
    tl.trends(adata, flow, genes=["gene3"], decode=linear, key_added="linear", **FEW)
    one = cf.cells.Decoder(linear.function, linear.genes)
    tl.trends(adata, flow, genes=["gene3"], decode=one, key_added="any", **FEW)
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(adata.uns["any"][name], adata.uns["linear"][name], atol=1e-4)


def test_measured_means_are_those_of_groups(both):
    adata, flow = both
    tl.trends(adata, flow, genes=True, fates="B", **FEW)
    found = adata.uns["trends"]
    cells = (adata.obs["kind"] == "B") & (adata.obs["day"] == 1)
    np.testing.assert_allclose(found["measured"][0, :, 1], adata[cells.to_numpy()].X.mean(axis=0), rtol=1e-5)
    assert found["measured_cells"][0].tolist() == [25, 40, 35]
    assert list(found["fates"]) == ["B"]
    assert found["variance_carried"].shape == (6,)
    assert (found["variance_carried"] > 0.9).all()


def test_found_states_are_their_cells_and_not_the_labels_that_name_them(both):
    adata, flow = both
    up = (adata.obs["kind"] != "B").to_numpy()
    mixed = np.where(np.arange(200) % 5 < 2, np.where(up, "B", "A"), np.where(up, "A", "B"))  # two fifths elsewhere
    adata.obs["kind"] = pd.Categorical(mixed)
    tl.fate(adata, flow, terminal="auto", groupby="kind", key_added="found")
    tl.trends(adata, flow, genes=["gene0"], by="found", at=[4.0], n_bootstrap=2)
    trends, there = read_trends(adata), (adata.obs["day"] == 4).to_numpy()
    for place, state in enumerate(trends.fates):
        cells = there & (adata.obs["found_terminal"] == state).to_numpy()
        assert trends.measured[place, 0, -1] == pytest.approx(adata.X[cells, 0].mean(), rel=1e-5)
        assert trends.mean[place, 0, -1] == pytest.approx(adata.X[cells, 0].mean(), abs=0.1)


def test_noise_tells_courses_of_undecided_cells_apart():
    """One cell between two fates: with noise, courses toward each land where cells of that fate are."""
    start = cf.cells.States(np.zeros((400, 1), np.float32), np.zeros(400), np.arange(400))
    ends = np.repeat([[-1.0], [1.0]], 50, axis=0).astype(np.float32)
    there = cf.cells.States(ends, np.ones(100), np.arange(100))
    own = np.stack([ends[:, 0] < 0, ends[:, 0] > 0], axis=1).astype(float)
    courses = Courses([start, there], [np.full((400, 2), 0.5), own], [0.0, 1.0], np.array([0.5]), settled=1.0)

    class Splitting:
        """Cells go to either side, by noise."""

        def simulate(self, x, *, start, stop, save, solver, seed, condition):
            side = np.sign(np.random.default_rng(seed).normal(size=(len(x), 1)))
            found = x[None] + np.linspace(0, 1, save)[:, None, None] * (side if stop == 1 else -x)[None]
            return cf.integrate.Trajectory(None, torch.from_numpy(found), 1, None)

    forward = next(courses.carried(Splitting(), cf.integrate.Noisy(2), 0))
    mean = (forward.weight * forward.x[:, 0]) @ forward.fates / (forward.weight @ forward.fates)
    np.testing.assert_allclose(mean, [-0.5, 0.5])


def test_a_stochastic_flow_has_bands_of_noise_too(branches):
    adata = branches[0].copy()
    path = cf.paths.BrownianBridge(0.5)
    flow = cf.SnapshotFlow(time_key="day", path=path, stochastic=True, steps=20, device="cpu").fit(adata)
    tl.trends(adata, flow, genes=["gene0"], n_samples=3, solver=4, **FEW)
    found = adata.uns["trends"]
    assert found["kind"] == "simulation"
    assert (found["low"] < found["mean"]).all()
    assert (found["mean"] < found["high"]).all()
    again = tl.trends(adata, flow, genes=["gene0"], n_samples=3, solver=4, copy=True, **FEW).uns["trends"]
    assert (again["mean"] == found["mean"]).all()
    tl.trends(adata, flow, genes=["gene0"], n_samples=3, solver=4, seed=1, **FEW)
    assert (adata.uns["trends"]["mean"] != found["mean"]).any()


def test_members_of_an_ensemble_widen_bands(branches):
    adata = branches[0].copy()
    flow = cf.SnapshotFlow(time_key="day", steps=10, ensemble=2, device="cpu").fit(adata)
    tl.trends(adata, flow, genes=["gene0"], by=None, at=[0.5, 2.0], n_bootstrap=20)
    wide = adata.uns["trends"]
    flow.members_ = ()
    tl.trends(adata, flow, genes=["gene0"], by=None, at=[0.5, 2.0], n_bootstrap=20)
    plain = adata.uns["trends"]
    assert (wide["mean"] == plain["mean"]).all()
    assert (wide["high"] - wide["low"] > plain["high"] - plain["low"]).all()


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_trends_survive_files_and_are_drawn_from_them(both, tmp_path, form):
    adata, flow = both
    adata.uns["kind_colors"] = np.array(["#ff0000", "#0000ff"])
    tl.trends(adata, flow, genes=["gene0", "gene2", "gene5"], **FEW)
    getattr(adata, f"write_{form}")(tmp_path / "cells")
    again = getattr(anndata, f"read_{form}")(tmp_path / "cells")
    one, other = read_trends(adata), read_trends(again)
    assert (one.fates, one.genes) == (other.fates, other.genes) == (("A/up $x_1^{", "B"), ("gene0", "gene2", "gene5"))
    np.testing.assert_array_equal(one.mean, other.mean)
    figure = cf.pl.trends(again, genes=["gene5", "gene0"])
    figure.draw_without_rendering()
    assert [ax.get_title() for ax in figure.axes] == ["gene5", "gene0"]
    lines = figure.axes[0].get_lines()
    np.testing.assert_array_equal(lines[0].get_ydata(), one.mean[0, 2])
    assert [line.get_color() for line in lines[::2]] == ["#ff0000", "#0000ff"]
    assert figure.axes[0].get_xlabel() == "day"
    figure = cf.pl.trends_heatmap(again, order_by="B")
    figure.draw_without_rendering()
    assert len(figure.axes) == 3


def test_words_of_figures_do_not_overlap(both):
    adata, flow = both
    tl.trends(adata, flow, genes=True, **FEW)
    for draw in (cf.pl.trends, cf.pl.trends_heatmap):
        figure = draw(adata)
        figure.draw_without_rendering()
        boxes = [ax.xaxis.label.get_window_extent() for ax in figure.axes if ax.get_xlabel()]
        boxes += [ax.title.get_window_extent() for ax in figure.axes if ax.get_title()]
        boxes += [legend.get_window_extent() for legend in figure.legends]
        assert all(not one.overlaps(two) for k, one in enumerate(boxes) for two in boxes[:k])
        assert all(ax.get_xlabel() for ax in figure.axes if ax.get_title())
        plt.close(figure)


def test_genes_in_a_heat_map_are_ordered_by_their_peak(both):
    adata, flow = both
    tl.trends(adata, flow, genes=True, **FEW)
    found = read_trends(adata)
    names = [tick.get_text() for tick in cf.pl.trends_heatmap(adata, order_by="B").axes[0].get_yticklabels()]
    peaks = [found.mean[1, found.genes.index(name)].argmax() for name in names]
    assert peaks == sorted(peaks)
    assert sorted(names) == sorted(found.genes)


def test_states_that_are_genes_have_trends(both):
    adata = both[0]
    flow = cf.SnapshotFlow(time_key="day", rep="X", steps=5, device="cpu").fit(adata)
    tl.trends(adata, flow, genes="gene2", by=None, at=[0.0, 1.0], n_bootstrap=5)
    expected = [adata[(adata.obs["day"] == day).to_numpy(), "gene2"].X.mean() for day in (0, 1)]
    np.testing.assert_allclose(adata.uns["trends"]["mean"][0, 0], expected, rtol=1e-5)


def test_cells_without_a_fate_play_no_part(both):
    adata, flow = both
    adata.obsm["fate"].iloc[np.flatnonzero(adata.obs["day"] == 1)[:30]] = np.nan
    tl.trends(adata, flow, genes=["gene0"], at=[1.0], n_bootstrap=5)
    assert adata.uns["trends"]["cells"].sum() == pytest.approx(50)
    adata.obsm["fate"].iloc[:] = np.nan
    del adata.obs["kind"]
    with pytest.raises(ValueError, match="No cell at a fitted time has a fate"):
        tl.trends(adata, flow, genes=["gene0"])


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"genes": ["gene11"]}, KeyError, r"No gene 'gene11'.*Is it 'gene1'"),
        ({"genes": "auto"}, ValueError, "names of genes"),
        ({"fates": "C"}, KeyError, "No fate 'C'"),
        ({"by": "fates"}, KeyError, r"No fates in `adata.obsm\['fates'\]`"),
        ({"by": None, "fates": "B"}, ValueError, "Leave one of them out"),
        ({"layer": "counts"}, KeyError, r"No `adata.layers\['counts'\]`"),
        ({"at": [0.0, 5.0]}, ValueError, "extrapolate|outside"),
        ({"at": [1.0, 1.0]}, ValueError, "occurs twice"),
        ({"n_times": 1}, ValueError, "n_times >= 2"),
        ({"confidence": 1.0}, ValueError, "confidence"),
        ({"solver": cf.integrate.Noisy()}, TypeError, "without a score"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"decode": lambda x: x}, ValueError, "Expected the decoder to return"),
    ],
)
def test_what_cannot_be_followed_is_named(both, given, kind, words):
    adata, flow = both
    with pytest.raises(kind, match=words):
        tl.trends(adata, flow, **({"genes": ["gene0"], **FEW} | given))


def test_unfitted_flows_and_missing_states_are_refused(both):
    adata, flow = both
    with pytest.raises(cf.errors.NotFittedError):
        tl.trends(adata, cf.SnapshotFlow(time_key="day"), genes=["gene0"])
    adata.obsm["X_pca"][3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        tl.trends(adata, flow, genes=["gene0"])
    for draw in (cf.pl.trends, cf.pl.trends_heatmap):
        with pytest.raises(KeyError, match="Run `cf.tl.trends"):
            draw(adata)
