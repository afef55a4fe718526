"""Fates: right where they are certain, open where they are open, with intervals that cover."""

from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import nn

import cellflow as cf
from cellflow import pl, tl
from cellflow.fields import Outputs
from cellflow.tl.fate_ends import wilson

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
    values = adata.obsm["fate"]["A"].dropna().to_numpy()
    on_top = values.argsort(kind="stable")  # high values last
    assert np.allclose(asked.get_array(), values[on_top])
    assert np.allclose(asked.get_offsets(), adata.obsm["X_pca"][:180][on_top])
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


def test_a_flow_without_score_cannot_be_simulated(cells):
    flow = cf.SnapshotFlow(time_key="day", steps=5, device="cpu").fit(cells)
    cells.obs["kind"] = "a"
    with pytest.raises(TypeError, match="fitted without a score"):
        tl.fate(cells, flow, groupby="kind", solver=cf.integrate.Noisy())


SIGMA, SPLIT, WIDTH, ODDS = 0.8, 2.0, 0.3, 3.0
"""Noise of the process, distance of the two ends from the middle, their standard deviation, and weight of the upper."""


class Known(nn.Module):
    """A field that is known, with what a flow needs to know of its numbers."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.unused = outputs, nn.Parameter(torch.zeros(1))

    def forward(self, t, x, condition=None):
        return self.outputs(t, x)


def split(t, x):
    """Brownian motion that is conditioned to end in one of two Gaussians: its drift is sigma^2 grad log h.

    ``h`` is the expectation of the sum of both densities at the end: two Gaussians, wider by the noise that is left.
    """
    variance = (WIDTH**2 + SIGMA**2 * (1 - t))[:, None]
    logits = [-((x - m) ** 2) / (2 * variance) + np.log(w) for m, w in ((-SPLIT, 1.0), (SPLIT, ODDS))]
    upper = torch.sigmoid(logits[1] - logits[0])
    drift = SIGMA**2 * ((2 * upper - 1) * SPLIT - x) / variance
    return Outputs(drift, torch.zeros_like(x))


def line(outputs, *, growth=False, stochastic=True):
    """Cells on a line at day 0, their possible ends at day 10, above and below, and a flow with a known field."""
    x = np.concatenate([np.linspace(-1, 1, 41), np.linspace(-8, 8, 1600)]).astype(np.float32)
    adata = anndata.AnnData(np.zeros((len(x), 0), np.float32), obsm={"X_pca": x[:, None]})
    adata.obs["day"] = np.repeat([0.0, 10.0], [41, 1600])
    adata.obs["end"] = np.where(x > 0, "upper", "lower")
    coupling = cf.couplings.UnbalancedSinkhorn(1.0, 10.0) if growth else "exact"
    settings = {"growth": growth, "coupling": coupling, "stochastic": stochastic}
    path = cf.paths.BrownianBridge(SIGMA) if stochastic else "linear"
    flow = cf.SnapshotFlow(time_key="day", path=path, steps=1, batch_size=8, **settings)
    flow.fit(adata[::9])
    flow.field_ = Known(outputs)
    return adata, flow, x[:41].astype(float)


def test_shares_of_two_gaussians_are_those_of_bayes():
    adata, flow, x = line(split)
    tl.fate(adata, flow, groupby="end", n_samples=400)
    found, low, high = (adata.obsm[name]["upper"].dropna() for name in ("fate", "fate_low", "fate_high"))
    variance = WIDTH**2 + SIGMA**2
    expected = ODDS * norm.pdf(x, SPLIT, np.sqrt(variance))
    expected /= expected + norm.pdf(x, -SPLIT, np.sqrt(variance))
    assert ((low <= expected) & (expected <= high)).mean() > 0.85
    assert found.to_numpy() == pytest.approx(expected, abs=0.09)
    assert (found - expected).mean() == pytest.approx(0, abs=0.012)
    assert adata.uns["fate"]["kind"] == "simulation"


def test_fates_of_a_growing_population_are_those_of_its_descendants():
    """Free cells that grow at the rate c x: weighted by ``exp(c int x)``, the end is shifted by its covariance."""
    c = 1.5
    free = lambda t, x: Outputs(torch.zeros_like(x), torch.zeros_like(x), c * x[:, 0])  # noqa: E731
    adata, flow, x = line(free, growth=True)
    tl.fate(adata, flow, groupby="end", n_samples=500)
    found = adata.obsm["fate"]["upper"].dropna()
    expected = norm.cdf((x + c * SIGMA**2 / 2) / SIGMA)
    assert found.to_numpy() == pytest.approx(expected, abs=0.1)
    assert (found - expected).mean() == pytest.approx(0, abs=0.015)
    descendants = adata.obs["fate_descendants"].dropna().to_numpy()
    assert np.log(descendants) == pytest.approx(c * x + c**2 * SIGMA**2 / 6, abs=0.2)
    tl.fate(adata, flow, groupby="end", at=0, n_samples=2, key_added="origin", cells=adata.obs["day"] == 10)
    assert adata.obs["origin_descendants"].isna().all()


@pytest.mark.parametrize("growth", [False, True])
def test_a_flow_without_noise_has_fates_without_intervals(growth, tmp_path):
    grown = torch.log(torch.tensor(3.0))

    def parts(t, x):  # cells double their distance from the middle
        return Outputs(np.log(2) * x, growth=grown.expand(len(x)) if growth else None)

    adata, flow, x = line(parts, growth=growth, stochastic=False)
    tl.fate(adata, flow, groupby="end", n_neighbors=20)
    share = adata.obsm["fate"]["upper"].dropna().to_numpy()
    # The twenty cells around 2 x, which are 0.01 apart: 10 on each side.
    assert share == pytest.approx(np.clip(0.5 + 2 * x / 0.2, 0, 1), abs=0.051)
    assert (adata.obs["fate_spread"].dropna() == 0).all()
    assert adata.obsm["fate_low"].isna().all(axis=None)
    assert (adata.uns["fate"]["kind"], adata.uns["fate"]["n_samples"]) == ("neighbors", 1)
    assert ("fate_descendants" in adata.obs) == growth
    if growth:
        assert adata.obs["fate_descendants"].dropna().to_numpy() == pytest.approx(3, rel=1e-5)
    figure = pl.fate(adata)
    assert figure.axes[-1].get_ylabel().replace("\n", " ") == "share of this group around the end point at day 10"
    adata.write_h5ad(tmp_path / "fates.h5ad")


def test_many_cells_at_once_end_where_few_do(fork):
    """A field is evaluated on as many states as fit the cache: that moves nobody, and no random number."""
    flow, x = fork[1], np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    found = flow.simulate(x, start=0, stop=10, solver=3, seed=1).x[-1]
    ends = {"sigma": 0.6, "stop": 1.0, "solver": 3, "generator": cf.generator(1)}
    whole = cf.integrate.sde(flow.field_, torch.from_numpy(x), **ends).x[-1]
    assert torch.allclose(found, whole, atol=1e-4)


def test_a_bar_says_how_long_it_takes(fork, capsys):
    adata, flow = fork[0].copy(), fork[1]
    tl.fate(adata, flow, groupby="end", cells=some(adata), n_samples=3, solver=2, progress=True)
    said = capsys.readouterr().err
    assert "fates" in said
    assert "3/3" in said
    assert "loss" not in said


@pytest.mark.parametrize("stochastic", [False, True])
def test_members_of_an_ensemble_widen_the_interval(stochastic):
    """Members that shift cells up and down beside the flow: half a width is Student's t times their spread."""
    shifted = [lambda t, x, by=by: Outputs(torch.full_like(x, by), torch.zeros_like(x)) for by in (0.0, -0.4, 0.0, 0.4)]
    if not stochastic:
        shifted = [lambda t, x, by=by: torch.full_like(x, by) for by in (0.0, -0.4, 0.0, 0.4)]
    adata, flow, x = line(shifted[0], stochastic=stochastic)
    given = {"groupby": "end", "n_samples": 60, "n_neighbors": 100, "confidence": 0.9}
    tl.fate(adata, flow, **given)
    before = {name: adata.obsm[name]["upper"].dropna().to_numpy() for name in ("fate", "fate_low", "fate_high")}
    flow.members_ = tuple(line(one, stochastic=stochastic)[1] for one in shifted[1:])
    tl.fate(adata, flow, **given)
    share, low, high = (adata.obsm[name]["upper"].dropna().to_numpy() for name in ("fate", "fate_low", "fate_high"))
    assert np.array_equal(share, before["fate"])
    assert adata.uns["fate"]["members"] == 3
    assert (low <= share).all()
    assert (share <= high).all()
    if stochastic:
        assert (high - low).mean() > 1.2 * (before["fate_high"] - before["fate_low"]).mean()
        return
    assert len(before["fate_low"]) == 0
    shares = [np.clip(0.5 + (x + by) / 1.0, 0, 1) for by in (-0.4, 0.0, 0.4)]  # a hundred cells, 0.01 apart
    assert high == pytest.approx(np.clip(shares[1] + 2.92 * np.std(shares, axis=0, ddof=1), 0, 1), abs=0.05)
