"""Plans of other tools: read in every form, brought to the cells by name, and learned from."""

import copy
import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone

import cellflow as cf
from cellflow.couplings import Given, SparsePlan
from cellflow.couplings import pair_masses as reading
from cellflow.couplings.pair_masses import thinned
from cellflow.errors import CheckpointError

SIZES, TIMES = (20, 24, 18), (0, 1, 3)


def cells():
    return cf.datasets.branching(SIZES, times=TIMES, seed=0)


def names(adata, time):
    return adata.obs_names[adata.obs["time"].astype(float) == time]


def plans(seed=0):
    """A sparse plan for each interval, in which every cell has mass."""
    rng = np.random.default_rng(seed)
    found = {}
    for (t0, n), (t1, m) in zip(zip(TIMES, SIZES, strict=True), list(zip(TIMES, SIZES, strict=True))[1:], strict=False):
        dense = rng.uniform(0.1, 1, (n, m)) * (rng.uniform(size=(n, m)) < 0.4)
        dense[np.arange(n), np.arange(n) % m] = dense[np.arange(m) % n, np.arange(m)] = 1.0
        found[t0, t1] = dense
    return found


def flow_of(given, **settings):
    return cf.SnapshotFlow(rep="X_latent", coupling=given, steps=settings.pop("steps", 2), **settings)


def as_anndata(dense, rows, columns):
    return anndata.AnnData(sparse.csr_matrix(dense), obs=pd.DataFrame(index=rows), var=pd.DataFrame(index=columns))


class Solution:
    """As moscot's output."""

    def __init__(self, dense):
        self.transport_matrix = dense


FORMS = {
    "csr matrix": lambda dense, *_: sparse.csr_matrix(dense),
    "coo array": lambda dense, *_: sparse.coo_array(dense),
    "dense": lambda dense, *_: dense,
    "single precision": lambda dense, *_: dense.astype("float32"),
    "list": lambda dense, *_: dense.tolist(),
    "tensor": lambda dense, *_: torch.from_numpy(dense),
    "plan": lambda dense, *_: cf.couplings.DensePlan(torch.from_numpy(dense)),
    "sparse plan": lambda dense, *_: SparsePlan(
        *map(torch.from_numpy, dense.nonzero()), torch.from_numpy(dense[dense.nonzero()]), shape=dense.shape
    ),
    "moscot's": lambda dense, *_: Solution(dense),
    "table": lambda dense, rows, columns: pd.DataFrame(dense, index=rows, columns=columns),
    "table in another order": lambda dense, rows, columns: pd.DataFrame(dense, rows, columns).iloc[::-1, ::-1],
    "AnnData": as_anndata,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_plan_is_learned_from_as_it_is(form):
    adata, dense = cells(), plans()
    made = {(a, b): FORMS[form](plan, names(adata, a), names(adata, b)) for (a, b), plan in dense.items()}
    flow = flow_of(Given(made)).fit(adata)
    for plan, expected in zip(flow.plans_, dense.values(), strict=True):
        assert np.allclose(plan.dense().numpy(), expected / expected.sum(), atol=1e-7)


def test_pairs_come_from_the_plan_alone():
    """Each cell is led to one other: no pair of any step is another."""
    adata = cf.datasets.branching((30, 30), times=(0, 2), seed=0)
    order = np.random.default_rng(0).permutation(30)
    one = sparse.csr_matrix((np.ones(30), (np.arange(30), order)), shape=(30, 30))
    flow = flow_of(Given({(0, 2): one}), curve="straight")
    snapshots = flow._snapshots(adata)
    batches = flow._pair(snapshots, flow.coupling, cf.generator(0), None, torch.device("cpu"))
    early, late = (adata.obsm["X_latent"][adata.obs["time"].astype(float) == t] for t in (0, 2))
    batch = next(iter(batches))
    rows = torch.cdist(batch.x0.double(), torch.from_numpy(early).double()).argmin(dim=1)
    assert np.allclose(batch.x1.numpy(), late[order][rows])


def test_the_sum_of_a_row_is_how_much_its_cell_grows():
    adata = cf.datasets.branching((40, 40), times=(0, 2), seed=0)
    gain = np.linspace(0.2, 1.8, 40)
    flow = flow_of(Given({(0, 2): np.outer(gain, np.ones(40))}), growth=True)
    snapshots = flow._snapshots(adata)
    batches = flow._pair(snapshots, flow.coupling, cf.generator(0), (1.0, 1.0), torch.device("cpu"))
    early = torch.from_numpy(adata.obsm["X_latent"][adata.obs["time"].astype(float) == 0]).double()
    batch = next(iter(batches))
    rows = torch.cdist(batch.x0.double(), early).argmin(dim=1)
    assert np.allclose((batch.log_mass1 - batch.log_mass0).exp().numpy(), gain[rows], rtol=1e-4)


@pytest.mark.slow
def test_growth_is_learned_from_row_sums():
    """Twice as many descendants of cells on one side: growth differs by log 2 over the interval."""
    generator, sides = np.random.default_rng(0), [(-2, 40), (2, 40), (-2, 80), (2, 40)]
    x = np.concatenate([generator.normal(side, 0.2, (n, 2)) for side, n in sides]).astype("float32")
    obs = pd.DataFrame({"time": [0.0] * 80 + [2.0] * 120}, index=[f"c{k}" for k in range(200)])
    adata = anndata.AnnData(np.zeros((200, 1), "float32"), obs=obs, obsm={"X_latent": x})
    dense = np.zeros((80, 120))
    dense[:40, :80] = dense[40:, 80:] = 1
    flow = flow_of(Given({(0, 2): dense}), growth=True, steps=1500, batch_size=64).fit(adata)
    left, right = (flow.growth_rate(np.array([[side, side]], "float32"), 1.0)[0] for side in (-2, 2))
    assert left - right == pytest.approx(np.log(2) / 2, abs=0.08)
    assert (left, right) == pytest.approx((np.log(4 / 3) / 2, np.log(2 / 3) / 2), abs=0.05)


def test_groups_are_not_crossed_and_it_is_said(caplog):
    adata = cells()
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    with caplog.at_level(logging.WARNING):
        flow = flow_of(Given(plans()), within="donor").fit(adata)
    assert "between groups of `within`" in caplog.text
    for plan, (a, b) in zip(flow.plans_, [(0, 1), (1, 3)], strict=True):
        before, after = (adata.obs["donor"][names(adata, t)].to_numpy() for t in (a, b))
        crossing = before[:, None] != after
        assert float(plan.dense()[torch.from_numpy(crossing)].sum()) == 0
        assert plan.mass == pytest.approx(1)


def test_with_conditions_a_plan_is_that_of_each_leg():
    adata = cf.datasets.branching((30, 40), times=(0, 2), seed=0)
    adata.obs["drug"] = np.where(adata.obs["time"].astype(float) == 0, "control", "A")
    adata.obs.loc[adata.obs_names[-10:], "drug"] = "control"
    dense = np.random.default_rng(0).uniform(0.1, 1, (30, 40))
    flow = flow_of(Given({(0, 2): dense}), conditions=cf.Conditions("drug")).fit(adata)
    treated = (adata.obs["drug"][names(adata, 2)] == "A").to_numpy()
    for label, chosen in (("A", treated), ("control", ~treated)):
        expected = dense[:, chosen] / dense[:, chosen].sum()
        assert np.allclose(flow.plans_[label, 0.0, 2.0].dense().numpy(), expected)


def test_two_clouds_take_the_only_plan():
    x0, x1 = torch.zeros(2, 3), torch.ones(3, 3)
    one = Given({(0, 1): [[1.0, 0, 0], [0, 1, 2]]})
    assert torch.equal(one(x0, x1).dense() * 4, torch.tensor([[1.0, 0, 0], [0, 1, 2]]).double())
    with pytest.raises(ValueError, match="between 3 and 3 points; found one of 2 x 3"):
        one(x1, x1)
    with pytest.raises(ValueError, match=r"One of|Take one of them"):
        Given({(0, 1): np.eye(2), (1, 2): np.eye(2)})(x0, x0)


def test_times_are_read_as_those_of_the_column():
    adata = cells()
    adata.obs["age"] = pd.to_timedelta(adata.obs["time"].astype(float), unit="D")
    given = Given({(pd.Timedelta(days=a), f"{b}"): plan for (a, b), plan in plans().items()})
    flow_of(given, time_key="age").fit(adata)
    flow_of(Given({(np.float32(a), np.int64(b)): plan for (a, b), plan in plans().items()})).fit(adata)


# ---- what is refused ----

BAD = {
    "none": (dict, ValueError, "found none"),
    "a key of one time": (lambda: {2.0: np.eye(2)}, ValueError, "by their two times"),
    "a key of three": (lambda: {(0, 1, 2): np.eye(2)}, ValueError, "by their two times"),
    "backward": (lambda: {(3, 1): np.eye(2)}, ValueError, "from an earlier to a later"),
    "endless": (lambda: {(0, float("inf")): np.eye(2)}, ValueError, "finite times"),
    "NaN": (lambda: {(0, 1): np.array([[np.nan, 1.0]])}, ValueError, "1 are NaN"),
    "sparse infinity": (lambda: {(0, 1): sparse.csr_matrix([[np.inf, 1.0]])}, ValueError, "NaN or infinite"),
    "negative": (lambda: {(0, 1): [[-0.5, 1.0]]}, ValueError, "down to -0.5"),
    "empty": (lambda: {(0, 1): np.zeros((2, 3))}, ValueError, "all of its 2 x 3 are 0"),
    "one row": (lambda: {(0, 1): np.ones(3)}, ValueError, r"found ndarray of shape \(3,\)"),
    "text": (lambda: {(0, 1): np.array([["a"]])}, ValueError, "matrix of numbers"),
    "complex": (lambda: {(0, 1): sparse.csr_matrix([[1j]])}, ValueError, "matrix of numbers"),
    "a file": (lambda: {(0, 1): "plan.h5ad"}, ValueError, "matrix of numbers"),
    "nothing": (lambda: {(0, 1): None}, ValueError, "matrix of numbers"),
    "a name twice": (
        lambda: {(0, 1): pd.DataFrame(np.eye(2), index=["a", "a"], columns=["b", "c"])}, ValueError, "some cells twice",
    ),
    "no mapping": (lambda: [np.eye(2)], TypeError, "mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plan_is_refused(name):
    make, error, said = BAD[name]
    with pytest.raises(error, match=said):
        Given(make())


def lacking():
    found = plans()
    del found[1, 3]
    return found


def named(drop=0):
    adata = cells()
    return {
        (a, b): as_anndata(plan, names(adata, a), names(adata, b))[drop:] for (a, b), plan in plans().items()
    }  # fmt: skip


def silent():
    found = plans()
    found[0, 1][3] = 0
    return found


UNFIT = {
    "a plan is missing": (lacking, {}, r"No plan of the times \(1, 3\).*There are: \(0, 1\)"),
    "other times": (lambda: {(5, 6): np.eye(2)}, {}, "none of the times of these cells"),
    "other sizes": (lambda: {**plans(), (0, 1): np.ones((7, 24))}, {}, "7 rows without names, and there are 20 cells"),
    "cells are missing": (lambda: named(drop=2), {}, "lacks 2 of 20 cells in its rows, such as"),
    "growth of no mass": (silent, {"growth": True}, "1 of 20 cells at time 0 have no mass"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_plans_of_other_cells_are_refused(name):
    make, settings, said = UNFIT[name]
    with pytest.raises(ValueError, match=said):
        flow_of(Given(make()), **settings).fit(cells())


def test_a_prior_of_growth_is_refused():
    adata = cells()
    adata.obs["rate"] = 0.1
    with pytest.raises(ValueError, match="leave out `prior_key`"):
        flow_of(Given(plans()), growth=True, prior_key="rate").fit(adata)


def test_a_missing_leg_is_named_by_the_users_times():
    adata = cells()
    adata.obs["drug"] = np.where(adata.obs["time"].astype(float) == 0, "control", "A")
    with pytest.raises(ValueError, match=r"No plan of the times \(1, 3\)"):
        flow_of(Given(lacking()), conditions=cf.Conditions("drug")).fit(adata)


def test_cells_without_mass_are_not_drawn():
    flow = flow_of(Given(silent())).fit(cells())
    assert float(flow.plans_[0].marginals()[0][3]) == 0


def test_cells_that_are_not_there_are_left_out_and_said(caplog):
    adata = cells()
    kept = adata[adata.obs_names != names(adata, 0)[0]].copy()
    with caplog.at_level(logging.WARNING):
        flow = flow_of(Given(named())).fit(kept)
    assert flow.plans_[0].shape == (19, 24)
    assert "of its mass is left out" in caplog.text


# ---- large plans ----


def test_large_plans_keep_the_largest_masses_of_each_row(monkeypatch, caplog):
    dense = np.random.default_rng(0).uniform(size=(50, 40))
    monkeypatch.setattr(reading, "MOST_PAIRS", 500)
    monkeypatch.setattr(reading, "AT_ONCE", 400)
    with caplog.at_level(logging.WARNING):
        found = reading.read_masses(dense, what="the plan").masses
    assert "only the largest masses of each row are kept" in caplog.text
    assert found.nnz <= 500
    assert np.allclose(found.sum(axis=1), dense.sum(axis=1))
    kept = found.toarray() > 0
    assert (np.where(kept, dense, np.inf).min(axis=1) >= np.where(kept, 0, dense).max(axis=1)).all()


def test_thinning_says_what_share_is_dropped():
    dense = np.random.default_rng(1).uniform(size=(30, 20))
    found, dropped = thinned(sparse.csr_array(dense), most=150)
    largest = np.sort(dense, axis=1)[:, -5:]
    assert dropped == pytest.approx(1 - largest.sum() / dense.sum())
    assert np.diff(found.indptr).max() == 5


# ---- as a part: compared, copied, saved ----


def test_plans_compare_by_what_is_in_them():
    given, again, other = Given(plans()), Given({k: sparse.csr_matrix(p) for k, p in plans().items()}), Given(plans(1))
    assert given == again
    assert hash(given) == hash(again)
    assert given != other
    assert given != Given()
    assert copy.deepcopy(given) == given
    assert clone(flow_of(given)).coupling == given
    assert repr(given) == "Given({(0, 1): <20 x 24>, (1, 3): <24 x 18>})"
    assert (given.keeps_mass, given.uses_states, given.divisible) == (False, False, False)
    assert given.memory(20, 24) > Given().memory(20, 24)
    with pytest.raises(ValueError, match="to other plans"):
        Given(plans(), digest=other.digest)


def test_a_saved_flow_keeps_the_digest_of_its_plans(tmp_path):
    adata = cells()
    flow = flow_of(Given(plans())).fit(adata)
    flow.save(tmp_path / "model")
    assert (tmp_path / "model" / "model.json").stat().st_size < 100_000
    loaded = cf.SnapshotFlow.load(tmp_path / "model")
    x = adata.obsm["X_latent"][:5]
    assert np.allclose(loaded.velocity(x, 1.0), flow.velocity(x, 1.0))
    assert loaded.coupling == flow.coupling
    with pytest.raises(
        ValueError, match=r"Give them again: `flow\.set_params\(coupling=cf\.couplings\.Given\(plans\)\)"
    ):
        loaded.fit(adata)
    loaded.set_params(coupling=Given(plans())).fit(adata)


def test_a_training_resumes_with_the_same_plans_only(tmp_path):
    adata, run = cells(), cf.Run(str(tmp_path / "run"), save_every=1)
    flow_of(Given(plans())).fit(adata, run=run)
    again = cf.Run(str(tmp_path / "run"), resume=True, save_every=1)
    resumed = flow_of(Given(plans()), steps=3).fit(adata, run=again)
    assert len(resumed.history_) == 3
    with pytest.raises(CheckpointError, match="coupling"):
        flow_of(Given(plans(1)), steps=4).fit(adata, run=again)
