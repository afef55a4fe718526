"""Terminal states: found where there are some, named, told with their stability, and one where nothing divides them."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cellflow as cf
from cellflow.tl.fate_table import read_fate
from cellflow.tl.settling import settle
from cellflow.tl.terminal import TerminalStates, _say


class Forking(nn.Module):
    """Cells go up or down by the sign of their height, four units in the whole of model time."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, t, x, condition=None):
        return torch.stack([torch.zeros_like(x[:, 0]), 4 * x[:, 1].sign()], dim=1)


@pytest.fixture(scope="module")
def fork():
    """Cells of three days, of which those of the last are at two places, 30 at the lower one; and the known flow."""
    draw, sign = np.random.default_rng(0), np.repeat([1.0, -1.0], [90, 30])
    clouds = [
        np.column_stack([draw.normal(size=120), sign * (0.2 + far + 0.3 * np.abs(draw.normal(size=120)))])
        for far in (0.0, 2.0, 4.0)
    ]
    adata = anndata.AnnData(obsm={"X_pca": np.concatenate(clouds).astype(np.float32)})
    adata.obs["day"], up = np.repeat([0.0, 1.0, 2.0], 120), np.tile(sign > 0, 3)
    adata.obs["type"] = np.where(adata.obs["day"] < 2, "stem", np.where(up, "Ery/Mega", "Mono"))
    flow = cf.SnapshotFlow(time_key="day", steps=1, growth=False, device="cpu").fit(adata)
    flow.field_ = Forking()
    return adata, flow, up


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_the_ends_of_a_fork_are_found(fork, tmp_path):
    adata, flow, up = fork[0].copy(), *fork[1:]
    cf.tl.fate(adata, flow, terminal="auto")
    found, early = read_fate(adata), (adata.obs["day"] < 2).to_numpy()
    assert (found.groups, found.groupby) == (("terminal 1", "terminal 2"), "fate_terminal")
    assert ((found.share("terminal 1") > 0.99) == up)[early].all()
    states = adata.uns["fate"]["states"]
    assert states["mass"].to_numpy() == pytest.approx([0.75, 0.25], abs=0.01)
    assert (states["stability"] > 0.9).all()
    assert states["speed"].to_numpy() == pytest.approx(1, abs=1e-6)
    last = adata.obs["fate_terminal"][~early]
    assert ((last == "terminal 1") == up[~early]).all()
    assert adata.obs["fate_terminal"][early].isna().all()
    assert (adata.obs["fate_membership"][~early] > 0.9).all()
    for form in ("h5ad", "zarr"):
        getattr(adata, f"write_{form}")(tmp_path / f"states.{form}")
        back = getattr(anndata, f"read_{form}")(tmp_path / f"states.{form}")
        pd.testing.assert_frame_equal(back.uns["fate"]["states"], states, check_dtype=False)
        assert read_fate(back).groups == found.groups


def test_states_are_named_by_labels_and_backward_are_initial(fork):
    adata, flow, up = fork[0].copy(), *fork[1:]
    cf.tl.fate(adata, flow, terminal="auto", groupby="type")
    assert read_fate(adata).groups == ("Ery/Mega", "Mono")
    assert {"fate_Ery_Mega", "fate_Mono"} <= set(adata.obs)
    late = adata.obs["day"] == 2
    cf.tl.fate(adata, flow, terminal="auto", at=1, cells=late, key_added="origin")
    origin = read_fate(adata, "origin")
    assert (origin.groups, origin.backward) == (("initial 1", "initial 2"), True)
    assert ((origin.share("initial 1") > 0.99) == up)[late].all()
    cf.tl.fate(adata, flow, terminal="auto", at=1, cells=~late, groupby="type")
    assert read_fate(adata).groups == ("stem 1", "stem 2")
    cf.tl.fate(adata, flow, terminal="auto", cells=late)  # these are there already
    assert read_fate(adata).groups == ("terminal 1", "terminal 2")


def test_what_cannot_be_told_is_said(fork, caplog):
    adata, flow, _ = fork
    adata = adata[fork[2]].copy()  # one of the two branches
    cf.tl.fate(adata, flow, terminal="auto")
    assert read_fate(adata).groups == ("terminal 1",)
    assert "All cells settle in one terminal state at time 2" in caplog.text
    assert adata.obs["fate_terminal 1"].dropna().eq(1).all()


@pytest.mark.parametrize("d", [2, 20])
def test_noise_and_a_continuum_have_one_state_and_distant_groups_their_own(d):
    draw = np.random.default_rng(d)
    noise = draw.normal(size=(600, d))
    line = noise * 0.3 + np.eye(d)[0] * draw.uniform(0, 10, size=(600, 1))
    assert settle(noise, draw).n_states == settle(line, draw).n_states == settle(noise[:20], draw).n_states == 1
    three = settle(noise + 8 * np.eye(d)[[0, 1]].sum(0) * np.repeat([0, 1, 2], [300, 200, 100])[:, None], draw)
    assert three.mass == pytest.approx([0.5, 1 / 3, 1 / 6], abs=0.01)
    assert (three.stability > 0.9).all()
    member = three.membership(three.landmarks)
    assert member.sum(axis=1) == pytest.approx(1)
    assert (member.argmax(axis=1) == three.state).mean() > 0.99


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "terminal='auto'"),
        ({"terminal": "Mono"}, "Expected `terminal` to be 'auto' or None; found 'Mono'"),
        ({"groupby": "score"}, r"pd\.cut.*terminal=\"auto\"` finds"),
        ({"groupby": "counts"}, r"no groups. Name a column"),
        ({"terminal": "auto", "at": 7}, "No cells at time 7"),
    ],
)
def test_impossible_groups_are_named(fork, settings, words):
    adata, flow, _ = fork
    adata = adata.copy()
    adata.obs["score"] = np.round(adata.obsm["X_pca"][:, 1], 1)
    adata.obs["counts"] = np.arange(360) // 2
    with pytest.raises(ValueError, match=words):
        cf.tl.fate(adata, flow, **settings)


def test_few_whole_numbers_and_categories_are_groups(fork):
    adata, flow, _ = fork
    adata = adata.copy()
    adata.obs["leiden"] = (adata.obsm["X_pca"][:, 1] > 0).astype(int)
    cf.tl.fate(adata, flow, groupby="leiden")
    assert read_fate(adata).groups == ("0", "1")
    adata.obs["part"] = pd.cut(adata.obsm["X_pca"][:, 1], 40)
    cf.tl.fate(adata, flow, groupby="part")
    assert len(read_fate(adata).groups) > 5


def test_small_groups_and_small_snapshots_are_said(fork, caplog):
    adata, flow, _ = fork
    few = adata[np.r_[0:120, 240, 241, 359]].copy()
    with caplog.at_level("INFO"):
        cf.tl.fate(few, flow, groupby="type")
        cf.tl.push(few, flow, cells=few.obs["day"] == 0, at=2)
    assert caplog.text.count("There are 3 cells at time 2: n_neighbors is 3 instead of 10") == 2
    assert few.obsm["fate"]["Mono"].max() == pytest.approx(1 / 3)
    caplog.clear()
    cf.tl.fate(few, flow, terminal="auto")
    assert read_fate(few).shares[:120].sum(axis=1) == pytest.approx(1)
    some = adata[np.r_[0:240, 240:340, 356:360]].copy()
    cf.tl.fate(some, flow, groupby="type")
    assert "Fewer than 10 cells at time 2 are in" not in caplog.text
    cf.tl.fate(some, flow, groupby="type", n_neighbors=20)
    assert "Fewer than 20 cells at time 2 are in 'Mono' (14)," in caplog.text


def test_states_that_no_measured_cells_show_are_joined(fork):
    """Of those that end at the lower place only one is measured there: votes of ten give it a tenth at most."""
    adata, flow, up = fork
    day = adata.obs["day"].to_numpy()
    kept = (day < 2) | up
    kept[np.flatnonzero((day == 2) & ~up)[0]] = True
    kept &= (day == 2) | up | (np.arange(adata.n_obs) % 2 == 0)
    rare = adata[kept].copy()
    cf.tl.fate(rare, flow, terminal="auto")
    assert read_fate(rare).groups == ("terminal 1",)


def test_the_mass_of_states_is_the_mean_of_the_shares(fork):
    adata, flow = fork[0].copy(), fork[1]
    cf.tl.fate(adata, flow, terminal="auto")
    shares = adata.obsm["fate"].dropna().mean().to_numpy()
    np.testing.assert_allclose(adata.uns["fate"]["states"]["mass"], shares, atol=0.02)


def test_states_that_labels_name_are_not_these_labels(fork):
    x, flow = fork[0].obsm["X_pca"], fork[1]
    adata = anndata.AnnData(x.copy(), obs=fork[0].obs.copy(), obsm={"X_pca": x}, varm={"PCs": np.eye(2)})
    last = (adata.obs["day"] == 2).to_numpy()
    low = adata.obsm["X_pca"][:, 1] < 0
    some = np.arange(adata.n_obs) % 3 == 0
    adata.obs["mixed"] = np.where(low ^ (last & some), "A", "B")  # of the last day a third have the other's label
    cf.tl.fate(adata, flow, terminal="auto", groupby="mixed")
    cf.tl.trends(adata, flow, genes=["1"], at=[0.0, 2.0], n_bootstrap=5)
    found, height = adata.uns["trends"], adata.X[:, 1]
    for name, here in (("A", last & low), ("B", last & ~low)):
        at = list(found["fates"]).index(name)
        assert found["mean"][at, 0, -1] == pytest.approx(height[here].mean(), abs=1e-4)
        assert found["measured"][at, 0, -1] == pytest.approx(height[here].mean(), abs=1e-4)
    cf.tl.perturb_genes(adata, flow, genes={"1": "up"}, n_random=0)
    before = adata.uns["perturb_genes"].set_index("group")["before"]
    assert before["A"] == pytest.approx((adata.obs["day"] == 0).to_numpy()[low].sum() / 120, abs=0.02)


def test_one_state_on_which_halves_do_not_agree_is_said_to_be_so(caplog):
    for stability, said in ((0.9, False), (0.4, True)):
        caplog.clear()
        states = TerminalStates(("terminal 1",), np.ones((5, 1)), np.ones(1), np.full(1, stability), np.zeros(1))
        _say(states, "terminal", 2.0)
        assert "All cells settle in one" in caplog.text
        assert ("do not always agree on 'terminal 1'" in caplog.text) == said
