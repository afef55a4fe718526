"""Effects of treatments: what is not there is not invented, what is there is not shrunk, unseen ones add up."""

import math

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.networks.additive import AdditiveShift
from cellflow.networks.treated import Treated
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.legs import leg_batches
from cellflow.training.effects import Fold, HeldArm, confirmed_effects, curves
from cellflow.training.stopping import HELD_OUT, EarlyStopping

DIM, GROUPS = 10, ("a", "b", "c", "d")


def cells(change, *, n=60, groups=GROUPS, seed=0):
    """Cells of several groups, which lie apart: n controls and n treated ones of each."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(len(groups), DIM))
    x, obs = [], []
    for centre, group in zip(centres, groups, strict=True):
        for drug, moved in (("control", np.zeros(DIM)), ("A", np.asarray(change))):
            x.append(centre + moved + rng.normal(size=(n, DIM)))
            obs += [(drug, group)] * n
    obs = pd.DataFrame(obs, columns=["drug", "group"]).rename(index=str)
    return anndata.AnnData(obs=obs, obsm={"X_pca": np.concatenate(x).astype("float32")})


def carried(adata, *, within="group", out="d", **settings):
    """The controls of a group that is not fitted, before and after, its treated cells, and the flow."""
    of = (adata.obs["group"] == out).to_numpy()
    flow = cf.PerturbationFlow(conditions="drug", within=within, device="cpu", steps=900, batch_size=64, **settings)
    flow.fit(adata[~of].copy())
    control = (adata.obs["drug"] == "control").to_numpy()
    before, after = (adata.obsm["X_pca"][of & side] for side in (control, ~control))
    return before, flow.transport(before, condition={"drug": "A"}).x[-1].numpy(), after, flow


@pytest.mark.parametrize(("within", "seed"), [("group", 1), ("group", 2), (None, 1)])
def test_no_effect_is_invented(within, seed):
    before, moved, after, flow = carried(cells(np.zeros(DIM), seed=seed), within=within)
    assert float(flow.field_.share) < 0.1
    assert cf.metrics.energy_distance(moved, after) <= 1.1 * cf.metrics.energy_distance(before, after)


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_weak_and_strong_effects_are_found_as_well_as_by_their_mean(size):
    change = np.r_[size, np.zeros(DIM - 1)]
    adata = cells(change)
    before, moved, after, flow = carried(adata)
    fitted = adata[adata.obs["group"] != "d"]
    treated = (fitted.obs["drug"] == "A").to_numpy()
    mean_shift = fitted.obsm["X_pca"][treated].mean(axis=0) - fitted.obsm["X_pca"][~treated].mean(axis=0)
    best = min(cf.metrics.energy_distance(x, after) for x in (before, before + mean_shift))
    assert cf.metrics.energy_distance(moved, after) <= 1.1 * best
    if size == 3:
        assert float(flow.field_.share) > 0.95
        np.testing.assert_allclose((moved - before).mean(axis=0), change, atol=0.35)


def test_unseen_doses_and_pairs_of_gaussians_are_predicted_to_sampling_error():
    """Shifts linear in the amount that a field sees, and additive in drugs; all half doses and all pairs are unseen."""
    rng, n, noise = np.random.default_rng(1), 400, 4 * math.sqrt(2 / 400)
    effect = {"A": np.array([3.0, 0, 0, 1]), "B": np.array([0, -2.0, 0, 1])}
    conditions = cf.Conditions(treatment="drug", dose="dose")
    arms = [("control", 0.0), ("A", 1.0), ("A", 10.0), ("B", 1.0), ("B", 10.0)]
    obs = pd.DataFrame(np.repeat(np.array(arms, dtype=object), n, axis=0), columns=["drug", "dose"]).rename(index=str)
    obs["dose"] = obs["dose"].astype(float)
    scale = conditions.fit(obs)
    x = rng.normal(size=(len(obs), 4)).astype("float32")
    x += scale.encode(obs, len(obs)) @ np.stack([effect["A"], effect["B"]]).astype("float32")
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": x})
    flow = cf.PerturbationFlow(conditions=conditions, device="cpu", steps=900, batch_size=64).fit(adata)
    before = x[(obs["drug"] == "control").to_numpy()]
    for drug, dose in (("A", 3.0), ("B", 5.0), ("A+B", 10.0), ("A+B", 3.0)):
        asked = {"drug": drug, "dose": dose}
        amounts = scale.encode(asked, 1)[0]
        expected = amounts[0] * effect["A"] + amounts[1] * effect["B"]
        found = flow.transport(before, condition=asked).x[-1].numpy()
        np.testing.assert_allclose((found - before).mean(axis=0), expected, atol=noise, err_msg=str(asked))
    stays = flow.transport(before, condition={"drug": "control"}).x[-1].numpy()
    assert (stays == before).all()


def test_a_treatment_without_an_effect_is_told_from_one_beside_it():
    """Each treatment has a share of its own."""
    rng, n = np.random.default_rng(2), 90
    drug = np.repeat(["control", "strong", "nothing"], n)
    x = rng.normal(size=(3 * n, DIM)).astype("float32")
    x[drug == "strong", :2] += 3
    adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}).rename(index=str), obsm={"X_pca": x})
    flow = cf.PerturbationFlow(conditions="drug", device="cpu", steps=900, batch_size=64).fit(adata)
    shares = dict(zip(flow.conditions_.names, flow.field_.share.tolist(), strict=True))
    assert shares["strong"] > 0.9
    fresh = rng.normal(size=(200, DIM)).astype("float32")
    moved = {name: flow.transport(fresh, condition={"drug": name}).x[-1].numpy() - fresh for name in shares}
    assert np.square(moved["nothing"].mean(axis=0)).sum() < 0.02 * np.square(moved["strong"].mean(axis=0)).sum()


def test_what_is_saved_is_the_same_with_doses(tmp_path):
    adata = cells(np.ones(DIM))
    adata.obs["dose"] = np.where(adata.obs["drug"] == "control", 0.0, np.resize([1.0, 3.0, 10.0], adata.n_obs))
    flow = cf.PerturbationFlow(conditions=cf.Conditions("drug", "dose"), steps=90, device="cpu").fit(adata)
    assert flow.segments_ == len(flow.field_.shift.axis) > 0
    flow.save(tmp_path)
    back, x = cf.PerturbationFlow.load(tmp_path, device="cpu"), adata.obsm["X_pca"][:5]
    for dose in (0.5, 3.0, 20.0):
        asked = {"drug": "A", "dose": dose}
        assert torch.equal(*(one.transport(x, condition=asked).x for one in (flow, back)))


def moving(by, dim=2):
    """A field that moves all points by a constant, as if it had been trained to."""
    field = cf.networks.MLP(dim, width=8, condition_dim=1)
    with torch.no_grad():
        field.last.bias.fill_(by)
    return field


@pytest.mark.parametrize(("by", "expected"), [(2.0, 1.0), (4.0, 0.5), (-2.0, 0.0)])
def test_held_out_cells_confirm_what_holds_for_them(by, expected):
    rng = cf.generator(seed=0)
    x0, x1 = torch.randn(80, 2, generator=rng), torch.randn(80, 2, generator=rng) + 2
    arm = HeldArm(x0, x1, torch.ones(1))
    batches = cf.pairing.paired_batches(x0, x0 + by, batch_size=8, generator=rng, condition=torch.ones(80, 1))
    frozen = cf.training.Recipe(learning_rate=1e-9, ema=0)
    found = confirmed_effects(
        [Fold(Treated(moving(by), AdditiveShift(1, 2)), batches, [arm])],
        cf.objectives.VelocityMatching(),
        width=1,
        steps=90,
        generator=rng,
        recipe=frozen,
    )
    assert abs(float(found.share) - expected) < 0.15
    assert len(found.history) == 30 == len(found.history[HELD_OUT])
    assert not math.isnan(found.history[HELD_OUT][24])


def test_the_distance_is_that_of_energies_without_pairs_of_a_cell_with_itself():
    """With two cells on either side everything can be written down."""
    x0, x1, z = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [7.0]]), torch.tensor([[5.0], [7.0]])
    found = curves(HeldArm(x0, x1, torch.ones(1)), z, torch.zeros(1), None)[0, :, -1]
    assert found[0] == 0
    assert found[-1] == pytest.approx((2 * 1 - 2) - (2 * 5 - 2))


def test_early_stopping_asks_a_judge_in_place_of_a_loss():
    stopping = EarlyStopping((), seed=0, judge=lambda field: 7.0)
    assert stopping.measure(cf.networks.MLP(2), cf.objectives.VelocityMatching()) == {HELD_OUT: 7.0}


def test_some_legs_alone_are_drawn_from_the_same_plans():
    points = torch.arange(12.0)[:, None]
    legs = [ConditionLeg(name, torch.arange(4), torch.arange(4, 8) + 4 * k, condition=k) for k, name in enumerate("AB")]
    whole = leg_batches(points, legs, torch.eye(2), batch_size=8, generator=cf.generator(seed=0))
    some = whole.only([True, False])
    assert some.plans["A"] is whole.plans["A"]
    batch = next(iter(some))
    assert (batch.x1 < 8).all()
    assert (batch.condition == torch.tensor([1.0, 0.0])).all()
    assert len(batch.x0) == 8


def test_the_field_of_treatments_keeps_scores_and_refuses_what_it_cannot_read():
    network = cf.networks.Heads(cf.networks.MLP(2, condition_dim=3, heads=2), score="shared")
    field = Treated(network, AdditiveShift(2, 2), reach=2.0)
    with torch.no_grad():
        network.velocity.last.bias.fill_(4)
    condition = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 4.0, 1.0]])
    found = field(torch.zeros(3), torch.zeros(3, 2), condition)
    assert found.velocity[:, 0].tolist() == [0, 2, 4]
    assert found.score_drift is not None
    for wrong in (None, torch.zeros(3, 1)):
        with pytest.raises(ValueError, match="k >= 2"):
            field(torch.zeros(3), torch.zeros(3, 2), wrong)
    with pytest.raises(ValueError, match="reach > 0"):
        Treated(network, AdditiveShift(2, 2), reach=0.0)


def line(*effects, dim=2):
    """Additive effects that are lines in the amount, one treatment a row."""
    shift = AdditiveShift(len(effects), dim)
    shift.line.copy_(torch.tensor(effects))
    return shift


class Amounts(torch.nn.Module):
    """A network that says what amounts it is asked about: a number times the first, and another times the second."""

    def forward(self, t, x, condition=None):
        return condition[:, :2] @ torch.tensor([[10.0, 0.0], [0.0, 100.0]])


def moved_by(field, *effects):
    """What a field moves a point by, one row for each condition."""
    zero = torch.zeros(len(effects), 2)
    return field(zero[:, 0], zero, torch.tensor(effects))


def test_a_treatment_without_an_effect_changes_nothing_of_what_others_do():
    """At any amount, in the sum of effects and in how cells differ."""
    field = Treated(Amounts(), line([3.0, 0.0], [0.0, 4.0], [5.0, 5.0]))
    field.share.copy_(torch.tensor([1.0, 0.0, 0.0]))
    found = moved_by(field, [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 7.0, 2.0], [0.5, 0.0, 0.0], [0.5, 1.0, 0.0])
    assert found.tolist() == [[13.0, 0.0]] * 3 + [[4.0, 0.0]] * 2  # a half of the effect, and a quarter of 10
    assert moved_by(field, [0.0, 0.0, 0.0], [0.0, 2.0, 1.0]).abs().max() == 0


def test_treatments_of_a_combination_keep_their_own_shares_and_equal_ones_are_as_for_one():
    field = Treated(Amounts(), line([3.0, 0.0], [0.0, 4.0]))
    field.own.zero_()
    field.share.copy_(torch.tensor([0.5, 0.25]))
    assert moved_by(field, [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]).tolist() == [[1.5, 0.0], [0.0, 1.0], [1.5, 1.0]]
    field.own.fill_(0.5)
    field.share.fill_(0.5)
    torch.testing.assert_close(moved_by(field, [1.0, 1.0]), torch.tensor([[0.5 * (3 + 5), 0.5 * (4 + 50)]]))


def test_a_treatment_with_shares_of_its_own_has_them_at_any_dose():
    field = Treated(Amounts(), line([3.0, 0.0], [0.0, 4.0]))
    field.own.zero_()
    field.keep(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]))
    found = moved_by(field, [1.0, 2.0], [0.25, 0.5], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0])
    torch.testing.assert_close(found, torch.tensor([[1.5, 4], [0.375, 1], [3, 4], [3, 0], [0, 0]]))


def drugs(effects, *, n=150, seed=0):
    """Cells of one group: each treatment shifts a Gaussian."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(size=(n, 3)) + np.asarray(change) for change in effects.values()])
    obs = pd.DataFrame({"drug": np.repeat(list(effects), n)}).rename(index=str)
    return anndata.AnnData(obs=obs, obsm={"X_pca": x.astype("float32")})


@pytest.mark.parametrize("given", ["axes", "vectors"])
def test_a_treatment_that_its_cells_do_not_tell_from_nothing_stays_so_beside_told_ones(given, tmp_path):
    """N does nothing; of A+N it is known that it does something; with vectors every axis belongs to every treatment."""
    adata = drugs({"control": [0, 0, 0], "A": [3, 0, 0], "B": [0, 2, 0], "N": [0, 0, 0], "A+N": [3, 0, 0]})
    table = {name: np.random.default_rng(3).normal(size=(3, 5))[k] for k, name in enumerate("ABN")}
    conditions = cf.Conditions("drug", embeddings=None if given == "axes" else {"drug": table})
    flow = cf.PerturbationFlow(conditions=conditions, steps=90, device="cpu").fit(adata)
    flow.save(tmp_path)
    back, x = cf.PerturbationFlow.load(tmp_path, device="cpu"), adata.obsm["X_pca"][:150]
    mean = {}
    for drug in ("A", "B", "N", "A+N", "control", "B+N"):
        found, again = (one.transport(x, condition={"drug": drug}).x for one in (flow, back))
        assert torch.equal(found, again)
        mean[drug] = (found[-1].numpy() - x).mean(axis=0)
    assert np.linalg.norm(mean["N"]) < 0.1
    assert (mean["control"] == 0).all()
    for drug, change in (("A", [3, 0, 0]), ("B", [0, 2, 0]), ("A+N", [3, 0, 0]), ("B+N", [0, 2, 0])):
        np.testing.assert_allclose(mean[drug], change, atol=0.35, err_msg=drug)
