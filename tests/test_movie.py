"""Animations, ribbons between groups, places between fates: what is drawn is what the tools say."""

import inspect
from itertools import pairwise

import anndata
import matplotlib.animation
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageSequence
from test_looks import blank, snapshots

import cellflow as cf
from cellflow.errors import MissingDependencyError
from cellflow.pl.canvas import PALETTE
from cellflow.pl.chain import chain_of_groups
from cellflow.pl.sankey import spread
from cellflow.pl.simplex import around, places


@pytest.fixture
def adata():
    return snapshots()


def frames(path):
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(image)]


def test_cells_move_and_the_time_is_written(adata, tmp_path):
    figure = Figure(figsize=(4, 3.5), layout="constrained")
    given = {"color": "kind", "n_frames": 8, "dpi": 50, "na_color": "#b8b8b8", "figure": figure}
    path = cf.pl.movie(adata, path=tmp_path / "cells.gif", **given)
    found = frames(path)
    assert len(found) == 8
    assert {frame.shape for frame in found} == {(175, 200, 3)}
    assert all((frame[0, 0] == 255).all() for frame in found)  # white stays white
    changed = [(np.abs(a - b).sum(axis=2) > 60).sum() for a, b in pairwise(found)]
    assert min(changed) > 20
    assert path.stat().st_size < 2e5
    for color in PALETTE[:2]:  # rare colours are not mixed
        assert any((np.abs(frame - 255 * np.array(to_rgb(color))).max(axis=2) < 2).any() for frame in found)
    assert figure.axes[0].get_title() == "3 days"
    moving = figure.axes[0].collections[-1].get_offsets()
    np.testing.assert_allclose(moving, adata.uns["trajectories"]["x"][-1][:, :2], rtol=1e-5)


def test_predicted_cells_are_frames_with_their_weights(adata, tmp_path):
    rows = pd.DataFrame(
        {"day": np.repeat([0.0, 0.5, 1.0], 4), "weight": 0.25, "origin": ["c0", "c1", "c2", "gone"] * 3}
    )
    rows.index = [f"p{k}" for k in range(12)]
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    about = {"interpolation": {"rep": "X_rep", "time_key": "day", "unit": "days"}}
    predicted = anndata.AnnData(obs=rows, obsm={"X_rep": x}, uns=about)
    figure = blank()
    cf.pl.movie(adata, predicted=predicted, path=tmp_path / "a.gif", color="day", dpi=20, figure=figure)
    assert len(frames(tmp_path / "a.gif")) == 3
    np.testing.assert_allclose(figure.axes[0].collections[-1].get_offsets(), x[8:, :2], rtol=1e-5)
    with pytest.raises(ValueError, match="holds one time"):
        cf.pl.movie(adata, predicted=predicted[:4].copy(), path=tmp_path / "b.gif")
    assert not (tmp_path / "b.gif").exists()


def test_movies_are_refused_before_anything_is_drawn(adata, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        cf.pl.movie(adata, path=tmp_path / "cells.webm")
    with pytest.raises(ValueError, match="n_frames"):
        cf.pl.movie(adata, path=tmp_path / "cells.gif", n_frames=1)
    monkeypatch.setattr(matplotlib.animation.FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    with pytest.raises(MissingDependencyError, match=r"ffmpeg.*or write a \.gif"):
        cf.pl.movie(adata, path=tmp_path / "cells.mp4")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def fitted():
    adata = snapshots()
    return adata, cf.SnapshotFlow(time_key="day", rep="X_rep", steps=3, coupling="exact", device="cpu").fit(adata)


@pytest.mark.parametrize("reverse", [False, True])
def test_ribbons_are_what_push_and_pull_say(fitted, reverse):
    adata, flow = fitted
    chain = chain_of_groups(adata, flow, groupby="kind", reverse=reverse)
    assert chain.times == (0.0, 1.0, 3.0)
    np.testing.assert_allclose(chain.links.sum(axis=(1, 2)), 1)
    np.testing.assert_allclose(chain.shares.sum(axis=1), 1)
    day, tool = (1.0, cf.tl.pull) if reverse else (0.0, cf.tl.push)
    for k, group in enumerate(chain.groups):
        chosen = ((adata.obs["day"] == day) & (adata.obs["kind"] == group)).to_numpy()
        found = tool(adata, flow, cells=chosen, at=1.0 - day, groupby="kind", copy=True).uns[tool.__name__]["groups"]
        link = chain.links[0][:, k] if reverse else chain.links[0][k]
        mass = found["mass"].reindex(chain.groups).fillna(0).to_numpy()
        np.testing.assert_allclose(link / link.sum(), mass, atol=1e-9)


def test_descendants_of_chosen_cells_begin_with_them(fitted):
    adata, flow = fitted
    chosen = ((adata.obs["day"] == 0) & (adata.obs["kind"] == "$a_1")).to_numpy()
    chain = chain_of_groups(adata, flow, groupby="kind", cells=chosen)
    assert chain.shares[0].tolist() == pytest.approx([1.0, 0.0])
    np.testing.assert_allclose(chain.links[1].sum(axis=1), chain.shares[1], atol=1e-9)  # what arrived goes on
    ax = cf.pl.descendants(adata, flow, groupby="kind", cells=chosen, ax=blank().subplots())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["day 0", "day 1", "day 3"]
    with pytest.raises(ValueError, match="of one snapshot"):
        cf.pl.descendants(adata, flow, groupby="kind", cells=np.ones(adata.n_obs, bool))
    with pytest.raises(ValueError, match="no fitted snapshot after"):
        cf.pl.descendants(adata, flow, groupby="kind", cells=(adata.obs["day"] == 3).to_numpy())
    with pytest.raises(ValueError, match="for a flow"):
        cf.pl.descendants(adata, groupby="kind")
    with pytest.raises(ValueError, match="no groups"):
        cf.pl.descendants(adata, flow, groupby="growth")


def test_names_beside_bars_are_apart():
    rng = np.random.default_rng(0)
    middles, heights = np.sort(rng.uniform(size=30))[::-1], rng.uniform(0.01, 0.08, size=30)
    found = spread(middles, heights)
    assert (found[:-1] - found[1:] >= (heights[:-1] + heights[1:]) / 2 - 1e-9).all()
    np.testing.assert_allclose(spread(np.array([2.0, 1.0]), np.array([0.1, 0.1])), [2.0, 1.0])


def test_cells_stand_between_their_fates(adata):
    figure = cf.pl.fate(adata, kind="simplex", color="kind", figure=blank())
    found = np.concatenate([c.get_offsets() for c in figure.axes[0].collections if len(c.get_offsets()) > 1])
    known = adata.obsm["fate"].dropna().to_numpy() @ places(3)
    np.testing.assert_allclose(found[np.lexsort(found.T)], known[np.lexsort(known.T)], atol=1e-9)
    assert {"A", "B", "C"} <= {text.get_text() for text in figure.axes[0].texts}
    shares = np.random.default_rng(0).dirichlet(np.ones(6), size=50)
    assert sorted(around(shares).tolist()) == list(range(6))
    adata.obsm["fate"] = adata.obsm["fate"][["A"]]
    with pytest.raises(ValueError, match="one fate"):
        cf.pl.fate(adata, kind="simplex")


def test_bars_are_means_over_descendants(adata):
    adata.obs["fate_descendants"] = np.linspace(1, 3, adata.n_obs)
    ax = cf.pl.fate(adata, kind="bars", figure=blank()).axes[0]
    shares, first = adata.obsm["fate"].to_numpy(), (adata.obs["day"] == 0).to_numpy()
    mean = np.average(shares[first], axis=0, weights=adata.obs["fate_descendants"][first])
    np.testing.assert_allclose([bars[0].get_width() for bars in ax.containers], mean)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0 days (30)", "1 day (30)"]
    with pytest.raises(ValueError, match="'cells', 'bars', 'simplex'"):
        cf.pl.fate(adata, kind="pie")


def test_growth_says_on_what_it_depends(adata):
    figure = cf.pl.growth(adata, groupby="kind", figure=blank())
    assert figure.get_supxlabel() == ""
    adata.uns["growth_sensitivity"] = {"conclusion": "Growth depends on the relaxation of the plans."}
    figure = cf.pl.growth(adata, groupby="kind", figure=blank())
    assert figure.get_supxlabel() == "Growth depends on the relaxation of the plans."
    left, right = figure.axes[:2]
    assert left.get_xlabel() == "rep 1"
    medians = adata.obs.groupby("kind", observed=True)["growth"].median().sort_values(ascending=False)
    drawn = [c.get_offsets()[0, 0] for c in right.collections if len(c.get_offsets()) == 1 and hasattr(c, "get_sizes")]
    np.testing.assert_allclose([x for x in drawn if x in set(medians)], medians)
    with pytest.raises(ValueError, match="no groups"):
        cf.pl.growth(adata, groupby="growth")
    with pytest.raises(KeyError, match=r"cf\.tl\.growth"):
        cf.pl.growth(adata, key="rate")


def test_old_arguments_still_work():
    old = {"velocity": "basis kind color components key rep ax", "fate": "basis components key figure"}
    for plot, names in old.items():
        assert set(names.split()) <= set(inspect.signature(getattr(cf.pl, plot)).parameters)
