"""Growth that can be believed: what genes let expect, and what depends on the relaxation alone."""

import math

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse
import torch

import cellflow as cf
from cellflow.cells.gene_sets import APOPTOSIS, CELL_CYCLE
from cellflow.couplings import Exact, UnbalancedSinkhorn
from cellflow.tl.growth_prior import growth_prior
from cellflow.tl.sensitivity import LITTLE, conclusion, sensitivity

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
QUICK = {"time_key": "day", "batch_size": 128, "device": "cpu"}


def expressing(n=300, mouse=False, seed=0):
    """Cells of which the first third express genes of the cell cycle and the last third those of apoptosis."""
    draw = np.random.default_rng(seed)
    apoptosis = [gene for gene in APOPTOSIS if gene not in CELL_CYCLE]
    names = [*CELL_CYCLE[:40], *apoptosis[:40], *(f"OTHER{k}" for k in range(400))]
    x = draw.gamma(2.0, 0.3, size=(n, len(names)))
    x[: n // 3, :40] += 2
    x[-n // 3 :, 40:80] += 2
    var = pd.DataFrame(index=[name.capitalize() if mouse else name for name in names])
    obs = pd.DataFrame({"day": np.arange(n) % 2}, index=[f"c{k}" for k in range(n)])
    return anndata.AnnData(x.astype(np.float32), obs=obs, var=var)


def thirds(values):
    return [float(np.mean(part)) for part in np.array_split(np.asarray(values), 3)]


def test_rates_are_those_of_waddington_ot_in_the_users_unit():
    """Dividing cells grow by 1.7 - 0.3 a day, dying ones by 0.3 - 1.7, others by nothing."""
    adata = expressing()
    growth_prior(adata, unit="days")
    assert thirds(adata.obs["growth_prior"]) == pytest.approx([1.4, 0.0, -1.4], abs=0.1)
    for unit, days in (("hours", 1 / 24), ("minutes", 1 / 1440), ("weeks", 7)):
        found = growth_prior(adata, unit=unit, copy=True).obs["growth_prior"]
        assert found.to_numpy() == pytest.approx(adata.obs["growth_prior"].to_numpy() * days)
    assert adata.uns["growth_prior"] == {"unit": "days", "n_cell_cycle": 40, "n_apoptosis": 40}
    other = growth_prior(adata, unit="days", birth=(0.0, 1.0), death=(0.0, 0.5), copy=True)
    assert thirds(other.obs["growth_prior"]) == pytest.approx([1.0, 0.0, -0.5], abs=0.1)


@pytest.mark.parametrize("kind", ["scaled", "mouse", "sparse", "raw", "layer", "backed"])
def test_the_form_of_the_expression_does_not_matter(kind, tmp_path):
    adata = expressing()
    growth_prior(adata, unit="days")
    expected = adata.obs["growth_prior"].to_numpy()
    other = expressing(mouse=kind == "mouse")
    if kind == "scaled":
        other.X = 7 * other.X
    if kind == "sparse":
        other.X = scipy.sparse.csr_matrix(other.X)
    if kind == "raw":
        other.raw = other
        other = other[:, :3].copy()
    if kind == "layer":
        other.layers["logs"] = other.X
        other.X = np.zeros_like(other.X)
    if kind == "backed":
        other.write_h5ad(tmp_path / "cells.h5ad")
        other = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    columns = set(other.obs)
    growth_prior(other, unit="days", layer="logs" if kind == "layer" else None)
    assert other.obs["growth_prior"].to_numpy() == pytest.approx(expected, abs=1e-4)
    added = {"growth_prior", "growth_prior_cell_cycle", "growth_prior_apoptosis"}
    assert set(other.obs) - columns == added


def test_sets_of_the_users_own_and_none():
    adata = expressing()
    growth_prior(adata, unit="days", cell_cycle=APOPTOSIS, apoptosis=(), key_added="rate")
    dying = thirds(adata.obs["rate"])
    assert dying[2] > 1.4 > dying[0]
    both = growth_prior(adata, unit="days", apoptosis=[*APOPTOSIS, *CELL_CYCLE], copy=True)
    plain = growth_prior(adata, unit="days", copy=True)
    assert both.obs["growth_prior"].equals(plain.obs["growth_prior"])  # genes of both count as cell cycle


def few_genes():
    return expressing()[:, 41:].copy()


@pytest.mark.parametrize(
    ("adata", "settings", "error", "words"),
    [
        (expressing, {"unit": "years"}, ValueError, "unit 'years'"),
        (few_genes, {"unit": "days"}, ValueError, "5 genes of `cell_cycle` or more; 0 of 100 are in the data"),
        (expressing, {"unit": "days", "apoptosis": ["TP53"]}, ValueError, "genes of `apoptosis` or more; 0 of 1"),
        (expressing, {"unit": "days", "cell_cycle": []}, ValueError, "5 genes of `cell_cycle`"),
        (expressing, {"unit": "days", "layer": "logs"}, KeyError, "No `adata.layers.'logs'.`"),
        (lambda: anndata.AnnData(np.zeros((3, 0))), {"unit": "days"}, KeyError, "no expression in `adata.X`"),
        (lambda: anndata.AnnData(np.full((3, 9), 4.0)), {"unit": "days"}, ValueError, "whole numbers, as counts are"),
    ],
)
def test_unusable_expression_is_named(adata, settings, error, words):
    with pytest.raises(error, match=words):
        growth_prior(adata(), **settings)


def test_myoblasts_divide_before_they_differentiate():
    """Growth medium is replaced at 0 h: half of the cells are in the cycle then, and few later."""
    adata = cf.datasets.hsmm()
    growth_prior(adata, unit="hours")
    mean = adata.obs.groupby("hours")["growth_prior"].mean()
    assert mean[0] > 0 > mean.drop(0).max()
    assert np.corrcoef(adata.obs["growth_prior"], adata[:, "CDK1"].X.toarray().ravel())[0, 1] > 0.6


def test_clones_of_progenitors_that_are_expected_to_grow_expand():
    """Truth that no snapshot sees: how many more cells of a clone there are two days later."""
    adata = cf.datasets.hematopoiesis()
    growth_prior(adata, unit="days")
    counts = adata.obs.groupby(["clone", "day"], observed=True).size().unstack(fill_value=0)
    cells = adata.obs[(adata.obs["day"] == 4) & adata.obs["clone"].notna()]
    expansion = np.log((counts[6.0] + 0.5) / (counts[4.0] + 0.5)).loc[cells["clone"]].to_numpy()
    ranks = [pd.Series(values).rank() for values in (cells["growth_prior"].to_numpy(), expansion)]
    assert len(cells) > 300
    assert np.corrcoef(*ranks)[0, 1] > 0.2


@pytest.mark.slow
def test_cycling_myoblasts_grow_only_where_genes_are_asked():
    """What docs/questions.md says: cells that leave the cycle travel farthest, which is taken for death."""
    adata = cf.datasets.hsmm()
    sc.pp.pca(adata, n_comps=10)
    growth_prior(adata, unit="hours")
    first = (adata.obs["hours"] == 0).to_numpy()
    marker = adata[first, "CDK1"].X.toarray().ravel()
    found = {}
    for prior in (None, "growth_prior"):
        settings = {"coupling": "auto", "growth": True, "prior_key": prior, "steps": 600, "batch_size": 128}
        flow = cf.SnapshotFlow(time_key="hours", **settings).fit(adata)
        rate = flow.growth_rate(adata.obsm["X_pca"][first], 0.0)
        found[prior] = np.corrcoef(pd.Series(marker).rank(), pd.Series(rate).rank())[0, 1]
    assert found[None] < -0.1
    assert found["growth_prior"] > 0.4


def groups(gain=3, apart=14.0, moved=2.0, n=300, seed=0):
    """Cells that stay, and grow, and cells that move, in five dimensions."""
    draw = np.random.default_rng(seed)
    sizes = [n, n, gain * n, n]
    x = draw.normal(size=(sum(sizes), 5)).astype(np.float32)
    group = np.repeat([0, 1, 0, 1], sizes)
    x[:, 0] += apart * group
    day = np.repeat([0, 1], [2 * n, (gain + 1) * n])
    x[:, 1] += moved * group * day
    obs = pd.DataFrame({"day": day, "group": group.astype(str)}, index=[f"c{k}" for k in range(len(x))])
    obs["known"] = np.where(group == 0, math.log(gain), 0.0)
    return anndata.AnnData(obs=obs, obsm={"X_pca": x})


@pytest.mark.parametrize("coupling", [Exact(), UnbalancedSinkhorn(0.5, 50.0)], ids=repr)
def test_a_flow_that_is_told_who_triples_finds_it_and_nobody_crosses(coupling):
    adata = groups(n=100, moved=6.0)
    settings = QUICK | {"growth": True, "coupling": coupling, "steps": 250}
    flow = cf.SnapshotFlow(**settings, prior_key="known").fit(adata)
    cf.tl.growth(adata, flow)
    rate = adata.obs.groupby("group")["growth"].mean()
    assert rate["0"] - rate["1"] == pytest.approx(math.log(3), abs=0.15)
    found = flow.transport(adata.obsm["X_pca"][:200], start=0, stop=1)
    assert (found.x[-1, :100, 0] < 7).all()
    assert (found.x[-1, 100:, 0] > 7).all()
    assert found.mass()[-1].item() == pytest.approx(1, abs=0.1)
    share = found.shares()[-1]
    assert share[:100].sum().item() == pytest.approx(0.75, abs=0.03)


def told(adata, coupling=None, **settings):
    coupling = coupling or UnbalancedSinkhorn(1.0, 50.0)
    return cf.SnapshotFlow(**QUICK, growth=True, coupling=coupling, steps=1, **settings).fit(adata)


def test_growth_that_shares_show_does_not_depend_on_the_relaxation():
    adata = groups()
    flow = told(adata)
    table = sensitivity(adata, flow)
    assert table["level"].max() < 1.2
    assert table[["half", "double"]].min().min() > 0.98
    assert (table["spread"] > 0.4).all()
    cf.tl.growth(adata, flow)  # no warning
    assert adata.uns["growth_sensitivity"]["conclusion"] == ""


def test_travel_that_is_taken_for_death_is_called_so(tmp_path):
    """Nobody grows, and half of the cells move: their rates are the cost of moving over the relaxation."""
    adata = groups(gain=1, moved=6.0, n=100)
    flow = told(adata, UnbalancedSinkhorn(1.0, 40.0))
    with pytest.warns(
        UserWarning, match="spread changes up to 3.[0-9]-fold at time 0, 1. There, snapshots cannot tell"
    ):
        cf.tl.growth(adata, flow)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    kept = anndata.read_h5ad(tmp_path / "cells.h5ad").uns["growth_sensitivity"]
    assert kept["conclusion"].startswith("Growth depends on the relaxation")
    pd.testing.assert_frame_equal(kept["table"], sensitivity(adata, flow), check_index_type=False)
    cf.tl.growth(adata, flow, sensitivity=False)
    assert "growth_sensitivity" not in adata.uns  # of another growth
    known = told(adata, UnbalancedSinkhorn(1.0, 4000.0))
    cf.tl.growth(adata, known)  # so little growth that there is nothing to warn of
    assert adata.uns["growth_sensitivity"]["table"]["spread"].max() < LITTLE


@pytest.mark.parametrize(
    ("apart", "gain", "moved", "warned"), [(14, 1, 10, False), (14, 3, 2, False), (14, 3, 10, False), (4, 1, 10, True)]
)
def test_the_default_plans_are_believed_where_groups_stay_apart(apart, gain, moved, warned):
    """Far apart, shares decide; groups that are near and move far could have crossed as well as grown."""
    adata = groups(gain=gain, apart=apart, moved=moved, n=200)
    table = sensitivity(adata, cf.SnapshotFlow(**QUICK, steps=1).fit(adata))
    assert bool(conclusion(table)) == warned


def test_ranks_that_change_are_called_so():
    table = pd.DataFrame({"time": [0.0, 2.0], "spread": [1.0, 1.0], "half": [0.95, 0.4], "double": 0.97, "level": 1.5})
    assert "the ranks of cells change at time 2 (correlation down to 0.40)" in conclusion(table)
    assert conclusion(table.assign(spread=LITTLE / 2)) == ""


def test_nothing_is_checked_where_nothing_can_be():
    adata = groups(n=60)
    balanced = told(adata, Exact(), prior_key="known")
    assert sensitivity(adata, balanced) is None
    flow = told(adata, prior_key="known")
    assert sensitivity(adata, flow) is not None
    late = adata[adata.obs["day"] == 1].copy()
    assert sensitivity(late, flow) is None
    cf.tl.growth(late, flow)
    assert "growth_sensitivity" not in late.uns
    assert sensitivity(adata[:, :][:, []].copy(), flow) is not None
    del adata.obs["known"]
    assert sensitivity(adata, flow) is None


@pytest.mark.parametrize("more", [{"within": "donor"}, {"weight_key": "w"}, {"masses": {0: 1.0, 1: 2.0}}], ids=str)
def test_plans_are_those_of_the_flow(more):
    """Groups, weights and sizes count; held-out snapshots do not."""
    adata = groups(n=200)
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    adata.obs["w"] = 1 + np.arange(adata.n_obs) % 3
    flow = told(adata, **more)
    extra = anndata.concat([adata, adata[:50].copy()], index_unique="-")
    extra.obs.iloc[-50:, extra.obs.columns.get_loc("day")] = 7
    pd.testing.assert_frame_equal(sensitivity(adata, flow), sensitivity(extra, flow))
    assert sensitivity(adata, flow)["level"].max() < 1.5


def test_the_growth_of_the_plans_is_what_the_network_learns():
    """The same number by two routes."""
    adata = groups(n=100)
    flow = cf.SnapshotFlow(**QUICK, growth=True, coupling=UnbalancedSinkhorn(1.0, 50.0), steps=600).fit(adata)
    cf.tl.growth(adata, flow)
    spread = adata.obs.groupby("day")["growth"].std()
    assert spread.to_numpy() == pytest.approx(adata.uns["growth_sensitivity"]["table"]["spread"].to_numpy(), rel=0.1)
    assert torch.isfinite(torch.from_numpy(adata.obs["growth"].to_numpy())).all()


def test_expression_that_is_missing_and_reversed_bounds_are_named():
    adata = expressing()
    with pytest.raises(ValueError, match="the lower one first"):
        growth_prior(adata, unit="days", birth=(1.7, 0.3))
    adata.X[5, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        growth_prior(adata, unit="days")


def test_genes_that_are_alike_in_all_cells_are_named():
    adata = expressing()
    adata.X[:, :40] = 0.5
    with pytest.warns(UserWarning, match="40 genes do not vary between cells"):
        growth_prior(adata, unit="days")
    assert adata.obs["growth_prior"].std() > 0  # apoptosis still tells cells apart
