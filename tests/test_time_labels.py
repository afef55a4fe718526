"""Every result of `tl` carries its time column and unit, and every plot labels its times with them."""

import tempfile

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib.figure import Figure
from matplotlib.quiver import QuiverKey

import cellflow as cf
from cellflow.cells.time_labels import read_time_labels
from cellflow.pl.labels import rate_label, time_label, unit_of
from cellflow.tl.fate_table import read_fate

CLOCKS = {
    "hours": {"time_key": "hours", "unit": "", "at": 72, "middle": 36.0, "label": "72 hours", "bar": "hours"},
    "Timedelta": {"time_key": "age", "unit": "days", "at": pd.Timedelta(hours=72), "middle": 1.5, "label": "3 days",
                  "bar": "days"},
}  # fmt: skip


@pytest.fixture(scope="module", params=CLOCKS)
def told(request):
    """The README's myoblasts, with everything that `tl` writes, and what is expected of it."""
    clock = CLOCKS[request.param]
    adata = cf.datasets.hsmm()
    sc.pp.pca(adata, n_comps=10)
    adata.obs["age"] = pd.to_timedelta(adata.obs["hours"], unit="h")
    settings = {"time_key": clock["time_key"], "steps": 5, "device": "cpu"}
    flow = cf.SnapshotFlow(path=cf.paths.BrownianBridge(0.5), stochastic=True, **settings).fit(adata)
    growing = cf.SnapshotFlow(
        coupling=cf.couplings.UnbalancedSinkhorn(epsilon=20.0, relaxation=50.0), growth=True, **settings
    ).fit(adata)
    first = adata.obs["hours"] == 0
    cf.tl.velocity(adata, flow)
    cf.tl.growth(adata, growing, sensitivity=False)
    cf.tl.trajectories(adata, flow, n=4, n_times=5)
    cf.tl.push(adata, flow, cells=first, at=clock["at"], groupby="state_monocle")
    cf.tl.pull(adata, flow, cells=adata.obs["hours"] == 72, at=pd.Timedelta(0), groupby="state_monocle")
    cf.tl.fate(adata, flow, groupby="state_monocle", cells=first, n_samples=2)
    group = str(read_fate(adata, "fate").groups[0])
    cf.tl.drivers(adata, flow, fate=group)
    cf.tl.perturb_genes(adata, flow, genes={"MYOG": "up"}, n_random=1, n_samples=2, max_cells=9)
    cf.tl.trends(adata, flow, genes=["MYOG", "CDK1"], n_times=3, n_samples=1, n_bootstrap=2, max_cells=20)
    cf.tl.validate(adata, flow, max_cells=20)
    cf.tl.tune(adata, flow, grid={"steps": [1, 2]}, by="new cells", n_seeds=1)
    adata.uns["interpolation"] = cf.tl.interpolate(adata, flow, at=[0.0, clock["middle"]]).uns["interpolation"]
    return adata, flow, clock


NOTES = {"validate": "validation_about", "interpolate": "interpolation"}
NOTES |= {tool: f"{tool}_about" for tool in ("drivers", "perturb_genes")}
"""Where a tool writes what its result is about, if not under its own name: beside a table."""


def noted(adata, tool):
    return adata.uns[NOTES.get(tool, tool)]


NO_TIME = {"testable_times", "tuned", "growth_prior", "perturb", "response"}
TOOLS = sorted(set(cf.tl.__all__) - NO_TIME)  # which write nothing about a time


@pytest.mark.parametrize("tool", TOOLS)
def test_every_result_carries_its_time_column_and_unit(told, tool):
    adata, flow, clock = told
    about = noted(adata, tool)
    assert (about["time_key"], about["unit"], about["rep"]) == (flow.time_key, clock["unit"], "X_pca")


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_time_column_and_unit_survive_files(told, kind, tmp_path):
    adata = told[0].copy()
    del adata.obs["age"]  # files hold no Timedelta
    getattr(adata, f"write_{kind}")(tmp_path / f"cells.{kind}")
    back = getattr(anndata, f"read_{kind}")(tmp_path / f"cells.{kind}")
    for tool in TOOLS:
        kept = {key: noted(back, tool)[key] for key in ("time_key", "unit", "rep")}
        assert kept == {key: noted(adata, tool)[key] for key in kept}


def drawn(name, told, **given):
    """Draw one plot as in the README, and return its axes."""
    adata, flow, clock = told
    figure = Figure(layout="constrained")
    if name in ("interpolation", "genes"):
        predicted = cf.tl.interpolate(adata, flow, at=[0.0, clock["middle"]])
        kind = {"genes": ["MYOG"]} if name == "genes" else {}
        return getattr(cf.pl, name)(adata, predicted, **kind, **given, figure=figure).axes
    if name in ("drivers", "fate", "growth", "trends", "trends_heatmap"):
        return getattr(cf.pl, name)(adata, **given, figure=figure).axes
    if name == "movie":
        with tempfile.TemporaryDirectory() as folder:
            cf.pl.movie(adata, path=f"{folder}/cells.gif", n=3, n_frames=2, dpi=20, figure=figure)
        return figure.axes
    settings = {"velocity": {"kind": "grid"}, "pull": {"key": "pull"}}.get(name, {})
    first = flow if name == "loss" else adata
    getattr(cf.pl, "descendants" if name == "pull" else name)(first, **settings, **given, ax=figure.subplots())
    return figure.axes


def texts(axes):
    """Return everything written on axes."""
    found = [text.get_text() for ax in axes for text in ax.findobj(lambda artist: hasattr(artist, "get_text"))]
    found += [text.get_text() for figure in {ax.figure for ax in axes} for text in figure.texts]
    found += [key.text.get_text() for ax in axes for key in ax.findobj(QuiverKey)]
    found += [tick.get_text() for ax in axes for tick in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    return "\n".join(found)


SHOWN = {
    "descendants": {"hours": "at 72 hours", "Timedelta": "at 3 days"},
    "pull": {"hours": "at 0 hours", "Timedelta": "at 0 days"},
    "drivers": {"hours": "at 72 hours", "Timedelta": "at 3 days"},
    "fate": {"hours": "at 72 hours", "Timedelta": "at 3 days"},
    "genes": {"hours": "hours", "Timedelta": "days"},
    "growth": {"hours": "per hour", "Timedelta": "per day"},
    "interpolation": {"hours": "36 hours", "Timedelta": "1.5 days"},
    "movie": {"hours": "72 hours", "Timedelta": "3 days"},
    "trajectories": {"hours": "hours", "Timedelta": "days"},
    "trends": {"hours": "hours", "Timedelta": "days"},
    "trends_heatmap": {"hours": "hours", "Timedelta": "days"},
    "validation": {"hours": "24 hours", "Timedelta": "1 day"},
    "velocity": {"hours": "per hour", "Timedelta": "per day"},
}


UNTOLD = {"loss", "response", "conditions", "cells"}
"""Plots that know no time, are told the column, or are tested elsewhere."""


def test_every_plot_is_tested():
    assert set(SHOWN) - {"pull"} == set(cf.pl.__all__) - UNTOLD


@pytest.mark.parametrize("name", SHOWN)
def test_every_plot_labels_times_without_being_told_the_column(told, name):
    clock = "Timedelta" if told[2]["unit"] else "hours"
    shown = texts(drawn(name, told))
    assert SHOWN[name][clock] in shown
    assert "time" not in shown.replace("all cells at that time", "")


@pytest.mark.parametrize("name", ["descendants", "genes", "interpolation", "validation"])
def test_a_given_time_column_takes_precedence(told, name):
    adata, flow, clock = told
    adata = adata.copy()
    adata.obs["week"] = adata.obs["hours"] if clock["unit"] == "" else adata.obs["hours"] / 24
    if name in ("descendants", "validation"):
        shown = texts(drawn(name, (adata, flow, clock), time_key="week"))
    else:
        predicted = cf.tl.interpolate(adata, flow, at=[0.0, clock["middle"]])
        predicted.obs["week"] = predicted.obs[flow.time_key]
        kind = {"genes": ["MYOG"]} if name == "genes" else {}
        figure = getattr(cf.pl, name)(adata, predicted, **kind, time_key="week", figure=Figure(layout="constrained"))
        shown = texts(figure.axes)
    assert "week" in shown
    assert clock["bar"] not in shown


def test_results_of_other_programs_are_drawn_all_the_same():
    """Velocities of another tool come without a note of their time."""
    adata = cf.datasets.hsmm()
    sc.pp.pca(adata, n_comps=10)
    adata.obsm["velocity"] = np.ones((adata.n_obs, 10), dtype=np.float32)
    cf.pl.velocity(adata, kind="grid", ax=Figure().subplots())
    table = pd.DataFrame({"time": [24.0], "method": ["flow"], "W1": [1.0], "n_cells": [9]})
    ax = cf.pl.validation(anndata.AnnData(uns={"validation": table}), ax=Figure().subplots())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["time 24"]


@pytest.mark.parametrize(
    ("unit", "label", "rate"),
    [
        ("hours", "3.5 hours", "per hour"),
        ("Days", "3.5 Days", "per day"),
        ("hpf", "3.5 hpf", "per hpf"),
        ("day", "day 3.5", "per day"),
        ("t", "t 3.5", "per unit of t"),
    ],
)
def test_labels_of_times_follow_the_name_of_the_column(unit, label, rate):
    assert time_label(3.5, unit) == label
    assert rate_label(unit) == rate


@pytest.mark.parametrize("category", [False, True])
def test_timedelta_is_labelled_in_days(category):
    age = pd.Series(pd.to_timedelta([24, 72], unit="h"), index=["a", "b"])
    adata = anndata.AnnData(obs=pd.DataFrame({"age": age.astype("category") if category else age}))
    assert unit_of(adata, "age") == "days"
    assert time_label(1.0, "days") == "1 day"


def test_words_that_need_not_be_times_are_warned_of():
    for labels in (["donor3", "donor1"], ["SRR100", "SRR101"], ["3rep", "4rep"]):
        with pytest.warns(UserWarning, match="samples or donors"):
            read_time_labels(labels, what="`adata.obs['sample']`")
    for labels in (["day 3", "day 4"], ["E8.5", "E9"], ["24h", "36h"], ["P7", "P14"], ["12 hpf", "24 hpf"]):
        read_time_labels(labels, what="`adata.obs['day']`")
