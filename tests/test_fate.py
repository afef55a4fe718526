"""Fates: right where they are certain, open where they are open, with intervals that cover."""

from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import cellflow as cf
from cellflow import pl, tl
from cellflow.tl.fate import wilson

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


@pytest.fixture(scope="module")
def fork():
    """Cells at two places that stay apart, and cells between them that may go either way."""
    draw = np.random.default_rng(0)
    height = np.concatenate([np.repeat([2.0, 0.0, -2.0], 60), np.repeat([2.0, -2.0], 90)])
    x = 0.15 * draw.normal(size=(360, 2)) + np.column_stack([np.repeat([0.0, 2.0], 180), height])
    adata = anndata.AnnData(np.zeros((360, 0), np.float32), obsm={"X_pca": x.astype(np.float32)})
    adata.obs_names = [f"cell{k}" for k in range(360)]
    adata.obs["day"] = np.repeat([0.0, 10.0], 180)
    adata.obs["start"] = pd.Categorical(
        np.concatenate([np.repeat(["up", "middle", "down"], 60), np.repeat("end", 180)])
    )
    adata.obs["end"] = pd.Categorical(np.where(height > 0, "A", "B"))
    path, network = cf.paths.BrownianBridge(0.6), partial(cf.networks.MLP, width=64)
    flow = cf.SnapshotFlow(
        time_key="day", path=path, stochastic=True, network=network, steps=600, batch_size=180, device="cpu"
    )
    return adata, flow.fit(adata)


def some(adata):
    """A third of the cells of the first day: twenty of each start, for what every cell shows alike."""
    return ((adata.obs["day"] < 10) & (np.arange(adata.n_obs) % 3 == 0)).to_numpy()


def test_certain_fates_are_certain_and_open_ones_open(fork):
    adata, flow = fork[0].copy(), fork[1]
    asked = some(adata)
    tl.fate(adata, flow, groupby="end", n_samples=12, cells=asked)
    share = adata.obsm["fate"]
    assert list(share.columns) == ["A", "B"]
    mean = share.groupby(adata.obs["start"], observed=True)["A"].mean()
    assert mean["up"] > 0.95
    assert mean["down"] < 0.05
    assert 0.3 < mean["middle"] < 0.7
    assert share[~asked].isna().all(axis=None)
    assert np.allclose(share[asked].sum(axis=1), 1)


def test_intervals_hold_the_share_and_shrink_with_samples(fork):
    adata, flow = fork[0].copy(), fork[1]
    middle = (adata.obs["start"] == "middle") & some(adata)
    widths = []
    for n in (8, 32):
        tl.fate(adata, flow, groupby="end", cells=middle, n_samples=n)
        low, share, high = (adata.obsm[name][middle.to_numpy()] for name in ("fate_low", "fate", "fate_high"))
        assert ((low <= share) & (share <= high)).all(axis=None)
        widths.append((high - low).mean(axis=None))
    assert widths[1] < 0.65 * widths[0]


def test_wilson_agrees_with_scipy():
    for k in (0, 3, 10, 20):
        expected = binomtest(k, 20).proportion_ci(confidence_level=0.9, method="wilson")
        low, high = wilson(np.array([k / 20]), 20, 0.9)
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_spread_is_that_of_the_noise(fork):
    """Over a short time the end points scatter like free diffusion: sigma times the root of model time."""
    adata, flow = fork[0].copy(), fork[1]
    adata.obs["day"] = adata.obs["day"].replace(0.0, 9.0)
    tl.fate(adata, flow, groupby="end", n_samples=20, cells=some(adata))
    spread = adata.obs["fate_spread"].dropna()
    assert spread.mean() == pytest.approx(0.6 * np.sqrt(0.1 * 2), rel=0.25)


def test_origins_are_fates_asked_backward(fork):
    adata, flow = fork[0].copy(), fork[1]
    ends = (adata.obs["day"] == 10) & (adata.obs["end"] == "A")
    tl.fate(adata, flow, groupby="start", at=0.0, cells=ends, n_samples=20, key_added="origin")
    mean = adata.obsm["origin"][ends.to_numpy()].mean()
    assert mean["down"] < 0.05
    assert mean["up"] > mean["middle"] > 0.1


def test_fates_are_seeded_and_survive_h5ad(fork, tmp_path):
    adata, flow = fork[0].copy(), fork[1]
    first, again = (tl.fate(adata, flow, groupby="end", n_samples=3, copy=True) for _ in range(2))
    other = tl.fate(adata, flow, groupby="end", n_samples=3, seed=1, copy=True)
    assert first.obsm["fate"].equals(again.obsm["fate"])
    assert not first.obsm["fate"].equals(other.obsm["fate"])
    assert "fate" not in adata.obsm
    first.write_h5ad(tmp_path / "fates.h5ad")
    assert anndata.read_h5ad(tmp_path / "fates.h5ad").obsm["fate"].equals(first.obsm["fate"])


def test_a_noisy_course_differs_from_the_smooth_one(fork):
    adata, flow = fork[0].copy(), fork[1]
    tl.trajectories(adata, flow, n=5, n_times=8)
    tl.trajectories(adata, flow, n=5, n_times=8, solver=cf.integrate.Noisy(), key_added="noisy")
    smooth, noisy = adata.uns["trajectories"]["x"], adata.uns["noisy"]["x"]
    assert (smooth[0] == noisy[0]).all()
    roughness = [np.abs(np.diff(x, n=2, axis=0)).mean() for x in (smooth, noisy)]
    assert roughness[1] > 3 * roughness[0]


def test_the_picture_has_a_panel_for_each_group(fork):
    adata, flow = fork[0].copy(), fork[1]
    with pytest.raises(KeyError, match="Run `cf.tl.fate"):
        pl.fate(adata)
    tl.fate(adata, flow, groupby="end", n_samples=3)
    figure = pl.fate(adata)
    panels = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert set(panels) == {"A", "B"}
    unasked, asked = panels["A"].collections
    assert len(unasked.get_offsets()) == len(asked.get_offsets()) == 180
    assert np.allclose(asked.get_array(), adata.obsm["fate"]["A"].dropna())
    assert figure.axes[-1].get_ylabel() == "probability of this group at day 10"


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"groupby": "kind"}, KeyError, "Available"),
        ({"at": 5.0}, ValueError, "No cells at time 5 to carry cells to. Choose one of: 0, 10"),
        ({"n_samples": 1}, ValueError, "n_samples >= 2"),
        ({"confidence": 1.0}, ValueError, "confidence < 1"),
    ],
)
def test_impossible_questions_are_named(fork, settings, kind, words):
    adata, flow = fork
    with pytest.raises(kind, match=words):
        tl.fate(adata, flow, **{"groupby": "end"} | settings)


def test_a_flow_without_score_has_no_fates(cells):
    flow = cf.SnapshotFlow(time_key="day", steps=5, device="cpu").fit(cells)
    cells.obs["kind"] = "a"
    with pytest.raises(TypeError, match="fitted without a score"):
        tl.fate(cells, flow, groupby="kind")
