"""One model from the source to many conditions: who is paired with whom, what comes out, and what is refused."""

import os
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.errors import CheckpointError
from cellflow.images import ImageSet, stream_images
from cellflow.integrate import Jumps, Noisy
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.image_legs import image_leg_batches

UNET = partial(cf.networks.UNet, width=8, multipliers=(1,), blocks=1)
FEW = {"network": UNET, "steps": 3, "batch_size": 8, "device": "cpu"}
LEVEL = {"control": 0, "A": 60, "B": 120, "A+B": 180}
BRIDGE = cf.paths.BrownianBridge(0.2)


def plate(*, drugs=("A", "B"), plates=(1, 2), n=6, seed=0, plain=0):
    """Flat images: their level tells drug and, by one, plate."""
    rows = [(drug, number, k) for drug in drugs for number in plates for k in range(n)]
    obs = pd.DataFrame(rows, columns=["drug", "plate", "well"])
    levels = torch.tensor([30 + LEVEL[drug] + number + plain for drug, number, _ in rows], dtype=torch.uint8)
    images = levels[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    images[:, :, 0, :4] += torch.randint(9, (len(rows), 1, 4), generator=cf.generator(seed), dtype=torch.uint8)
    return ImageSet(images, names=tuple(f"{k}.png" for k in range(len(rows))), obs=obs)


CONTROL, TREATED = plate(drugs=["control"], seed=1), plate()


def cells(drugs, *, n=150, seed=0, spread=0.4):
    """Gaussian clouds of which each drug moves the mean, and combinations by both shifts."""
    rng, shifts = np.random.default_rng(seed), {"control": (0, 0), "A": (2, 0), "B": (0, 1.5), "C": (-1, -1)}
    x = [rng.normal(np.sum([shifts[name] for name in drug.split("+")], axis=0), spread, (n, 2)) for drug in drugs]
    names = [drug for drug in drugs for _ in range(n)]
    obs = pd.DataFrame({"drug": names}, index=[f"{drug}{k}" for k, drug in enumerate(names)])
    return anndata.AnnData(np.concatenate(x).astype(np.float32), obs=obs)


@pytest.fixture(scope="module")
def translator():
    return cf.DomainTranslator(conditions="drug", within="plate", condition_dropout=0.1, **FEW).fit(CONTROL, TREATED)


@pytest.fixture(scope="module")
def generator():
    return cf.ImageGenerator(conditions=cf.Conditions("drug", categories=("plate",)), **FEW).fit(TREATED)


# --- pairs -------------------------------------------------------------------------------------------------------


def legs_of(target, *, sizes):
    parts = torch.arange(len(target)).split(sizes)
    return [ConditionLeg(f"{k}", torch.arange(4 * k, 4 * k + 8), rows, condition=k) for k, rows in enumerate(parts)]


@pytest.mark.parametrize("settings", [{}, {"coupling": "independent"}, {"features": 3}, {"ot_batch_size": 5}])
def test_pairs_stay_within_their_leg_and_conditions_share_alike(settings):
    source, target = plate(drugs=["control"], n=6), plate(drugs=["A", "B", "A+B"], plates=[1], n=10)
    legs = legs_of(target, sizes=[3, 25, 2])[:2]
    seen = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    batches = image_leg_batches(source, target, legs, seen, batch_size=10, generator=cf.generator(seed=0), **settings)
    known0, known1 = source.scaled(), target.scaled()
    for batch in islice(batches, 8):
        first = batch.condition[:, 0] == 1
        assert int(first.sum()) == 5
        for leg, chosen in zip(legs, (first, ~first), strict=True):
            for x, known, rows in ((batch.x0, known0, leg.source), (batch.x1, known1, leg.target)):
                apart = torch.cdist(x[chosen].flatten(1), known[rows].flatten(1)).min(dim=1).values
                assert apart.max() == 0
    assert [a.x1.sum() for a in islice(batches.iterate(3), 3)] == [b.x1.sum() for b in islice(batches, 3, 6)]


def test_pairs_of_one_leg_are_those_of_an_optimal_plan():
    source, target = plate(drugs=["control"], n=8), plate(drugs=["A"], n=8)
    rows = torch.arange(16)
    given = {"batch_size": 16, "generator": cf.generator(seed=0)}
    batches = image_leg_batches(source, target, [ConditionLeg("A", rows, rows)], torch.ones(1, 1), **given)
    cost = torch.cdist(source.scaled().flatten(1), target.scaled().flatten(1)).square()
    from scipy.optimize import linear_sum_assignment

    best = cost[linear_sum_assignment(cost.numpy())].mean()
    found = torch.stack([(batch.x1 - batch.x0).flatten(1).square().sum(1).mean() for batch in islice(batches, 4)])
    torch.testing.assert_close(found.mean(), best, rtol=1e-4, atol=0)


def test_noise_meets_every_condition_as_often():
    target = plate(drugs=["A", "B"], plates=[1], n=10)
    none, rows = torch.arange(0), torch.arange(20)
    legs = [ConditionLeg("A", none, rows[:3]), ConditionLeg("B", none, rows[10:], condition=1)]
    for coupling in ("independent", "exact"):
        batches = image_leg_batches(
            None, target, legs, torch.eye(2), coupling=coupling, batch_size=8, generator=cf.generator(seed=0)
        )
        for batch in islice(batches, 3):
            assert batch.condition.sum(dim=0).tolist() == [4.0, 4.0]
            bright = batch.x1.mean(dim=(1, 2, 3)) > 0
            assert torch.equal(bright, batch.condition[:, 1] == 1)


# --- translation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"condition_dropout": 0.1}, {"path": BRIDGE, "stochastic": True}])
def test_cells_go_where_their_condition_is(settings):
    """Gaussians of which each drug moves the mean: seen drugs and combinations, forward and back; and unseen ones."""
    source, target = cells(["control"], n=300, seed=1), cells(["A", "B", "C", "A+B"])
    model = cf.DomainTranslator(conditions="drug", rep="X", steps=600, batch_size=64, device="cpu", **settings).fit(
        source, target
    )
    for drug in ("A", "B", "B+A", "A+C", "C+B"):
        found = model.translate(source, condition={"drug": drug})
        assert set(found.obs["drug"]) == {drug}
        real = cells([drug], n=300, seed=5).X
        np.testing.assert_allclose(found.X.mean(axis=0), real.mean(axis=0), atol=0.15)
        np.testing.assert_allclose(found.X.std(axis=0), real.std(axis=0), atol=0.12)
    back = model.translate(target, reverse=True)
    assert back.obs["drug"].tolist() == target.obs["drug"].tolist()
    for drug in ("A", "B", "C", "A+B"):
        np.testing.assert_allclose(back.X[(back.obs["drug"] == drug).to_numpy()].mean(axis=0), 0, atol=0.2)


def test_each_sample_may_have_its_own_condition(translator):
    drugs = ["A", "B"] * 6
    mixed = translator.translate(CONTROL, condition={"drug": drugs}, solver=2)
    assert mixed.obs["drug"].tolist() == drugs
    assert mixed.obs["plate"].tolist() == CONTROL.obs["plate"].tolist()
    for drug in ("A", "B"):
        alone = translator.translate(CONTROL, condition={"drug": drug}, solver=2)
        chosen = mixed.obs["drug"] == drug
        assert torch.equal(mixed.take(chosen).images, alone.take(chosen).images)
    by_frame = translator.translate(CONTROL, condition=pd.DataFrame({"drug": drugs}), solver=2, batch_size=5)
    assert torch.equal(by_frame.images, mixed.images)
    ends = [translator.trajectory(CONTROL, condition={"drug": drug}, solver=2).x[-1] for drug in "AB"]
    assert not torch.equal(*ends)


def test_what_was_not_done_is_not_said():
    control, treated = cells(["control"]), cells(["A", "B", "A+B"])
    both = treated.obs["drug"].str.split("+")
    treated.obs["d1"] = ["A" if "A" in names else "control" for names in both]
    treated.obs["d2"] = ["B" if "B" in names else "control" for names in both]
    treated.obs["amount"] = 3.0
    conditions = cf.Conditions(("d1", "d2"), dose="amount")
    model = cf.DomainTranslator(rep="X", conditions=conditions, steps=2, batch_size=8, device="cpu")
    model.fit(control, treated)
    control.obs = control.obs.assign(d1="control", d2="B", amount=7.0)
    found = model.translate(control, condition={"d1": "A", "amount": 3.0}, solver=1)
    assert found.obs[["d1", "d2", "amount"]].drop_duplicates().to_numpy().tolist() == [["A", "control", 3.0]]
    again = model.conditions_.read(found.obs)
    assert again.labels == ("A, amount 3",) or len(again) == 1


def test_guidance_leads_further(translator):
    x, to = CONTROL.take([0, 7]), {"drug": "B"}
    by = {g: translator.trajectory(x, condition=to, guidance=g, solver=1, save=2).x[-1] for g in (0.0, 1.0, 2.0)}
    torch.testing.assert_close(by[2.0] - by[1.0], by[1.0] - by[0.0], rtol=1e-3, atol=1e-5)
    assert not torch.equal(by[1.0], by[0.0])


def test_the_source_need_not_be_the_control():
    """With the control among the targets it can be asked for; effects of drugs are counted from where it is."""
    source, target = cells(["control"], n=200, seed=1), cells(["control", "A", "B"], seed=2)
    target.X += np.array([5, -3], dtype=np.float32)
    model = cf.DomainTranslator(conditions="drug", rep="X", steps=600, batch_size=64, device="cpu").fit(source, target)
    assert model.controls_
    for drug, shift in {"control": (5, -3), "A": (7, -3), "A+B": (7, -1.5)}.items():
        found = model.translate(source, condition={"drug": drug}).X
        np.testing.assert_allclose(found.mean(axis=0), shift, atol=0.15)


def test_effects_grow_with_the_dose():
    """A shift that is linear in the dose: a dose between those of the fit, of a drug with noise around it."""
    doses, source = (1.0, 2.0, 4.0), cells(["control"], n=300, seed=1)
    target = cells(["control"] * 6)
    target.obs["drug"] = np.repeat(["A", "A", "A", "B", "B", "B"], 150)
    target.obs["dose"] = np.repeat([*doses, *doses], 150)
    along = np.where(target.obs["drug"] == "A", 1.0, -0.5) * target.obs["dose"]
    target.X += np.stack([along, 0 * along], axis=1).astype(np.float32)
    conditions = cf.Conditions("drug", "dose")
    model = cf.DomainTranslator(conditions=conditions, rep="X", steps=400, batch_size=64, device="cpu").fit(
        source, target
    )
    for drug, dose, shift in (("A", 3.0, 3.0), ("B", 4.0, -2.0), ("A", 2.0, 2.0)):
        found = model.translate(source, condition={"drug": drug, "dose": dose})
        np.testing.assert_allclose(found.X.mean(axis=0), (shift, 0), atol=0.25)


def test_samples_are_paired_within_their_groups():
    seen = []

    def watched(x0, x1):
        seen.append((x0, x1))
        return cf.couplings.Exact()(x0, x1)

    model = cf.DomainTranslator(conditions="drug", within="plate", coupling=watched, **FEW)
    model.fit(CONTROL, TREATED)
    assert len(seen) == 4
    for x0, x1 in seen:
        levels = [((x[:, -1] + 1) * 127.5).round() for x in (x0, x1)]
        assert len(levels[0].unique()) == len(levels[1].unique()) == 1
        assert (levels[1][0] - levels[0][0]) % 60 == 0  # of one plate: drugs add 60 and 120


def test_groups_without_conditions_are_classes():
    """`within` alone is what labels are: the same weights."""
    by_obs = cf.DomainTranslator(within="plate", **FEW).fit(CONTROL, TREATED)
    labels = [torch.from_numpy(images.obs["plate"].to_numpy()) - 1 for images in (CONTROL, TREATED)]
    labelled = [replace(images, labels=one) for images, one in zip((CONTROL, TREATED), labels, strict=True)]
    by_labels = cf.DomainTranslator(within_labels=True, **FEW).fit(*labelled)
    for one, two in zip(by_obs.field_.parameters(), by_labels.field_.parameters(), strict=True):
        assert torch.equal(one, two)
    assert by_obs.translate(CONTROL, solver=1).labels is None


def test_streamed_images_are_as_those_in_memory(tmp_path):
    from PIL import Image

    for name, images in (("control", CONTROL), ("treated", TREATED)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images.images):
            Image.fromarray(image[0].numpy()).save(tmp_path / name / f"{number}.png")
        images.obs.assign(file=images.names).to_csv(tmp_path / name / "plate.csv", index=False)
    streams = [stream_images(tmp_path / n, size=8, channels=1, table="plate.csv") for n in ("control", "treated")]
    settings = {"conditions": "drug", "within": "plate", "features": 3, **FEW}
    models = [cf.DomainTranslator(**settings).fit(*both) for both in (streams, (CONTROL, TREATED))]
    found = [model.translate(CONTROL, condition={"drug": "A"}, solver=1).images for model in models]
    assert torch.equal(*found)


@pytest.mark.parametrize("stochastic", [False, True])
def test_all_verbs_take_a_condition(stochastic, tmp_path):
    given = {"path": BRIDGE, "stochastic": True} if stochastic else {}
    model = cf.DomainTranslator(conditions="drug", condition_dropout=0.2, **given, **FEW).fit(CONTROL, TREATED)
    coupling = cf.training.MarkovianFitting(0.2, solver=2) if stochastic else cf.training.Reflow(solver=2)
    model.refine(CONTROL, TREATED, rounds=2, steps=2, coupling=coupling)
    assert len(model.history_) == 3 + 4
    model.distill(CONTROL, TREATED, steps=2, guidance=2.0)
    to = {"condition": {"drug": "A"}}
    model.save(tmp_path / "model")
    again = cf.DomainTranslator.load(tmp_path / "model", device="cpu")
    assert again.conditions_.names == ("A", "B")
    for use in (
        lambda m: m.translate(CONTROL, **to, solver=2).images,
        lambda m: m.translate(CONTROL, **to, solver=Jumps(1)).images,
        lambda m: m.translate(TREATED, reverse=True, solver=2).images,
        lambda m: m.trajectory(CONTROL, **to, solver=2, save=2).x,
        *([lambda m: m.simulate(CONTROL, **to, solver=3).images,
           lambda m: m.trajectory(CONTROL, **to, solver=Noisy(3), save=2).x] if stochastic else []),
    ):  # fmt: skip
        assert torch.equal(use(model), use(again))


def test_training_resumes_with_the_same_conditions_only(tmp_path):
    settings = {"conditions": "drug", **FEW}
    run = cf.training.Run(tmp_path / "run", save_every=1)
    cf.DomainTranslator(**settings).fit(CONTROL, TREATED, run=run)
    whole = cf.DomainTranslator(**settings | {"steps": 5}).fit(CONTROL, TREATED)
    again = replace(run, resume=True)
    others = replace(TREATED, obs=TREATED.obs.assign(drug=TREATED.obs["drug"][::-1].to_numpy()))
    with pytest.raises(CheckpointError):
        cf.DomainTranslator(**settings | {"steps": 5}).fit(CONTROL, others, run=again)
    with pytest.raises(CheckpointError):
        cf.DomainTranslator(**settings | {"steps": 5, "within": "plate"}).fit(CONTROL, TREATED, run=again)
    resumed = cf.DomainTranslator(**settings | {"steps": 5}).fit(CONTROL, TREATED, run=again)
    for one, two in zip(whole.field_.parameters(), resumed.field_.parameters(), strict=True):
        assert torch.equal(one, two)


def in_nucleus(images):
    """How much brighter GFP is where DNA is than elsewhere; the median over cells."""
    gfp, dna = ((images.scaled()[:, channel] + 1) / 2 for channel in (0, 1))
    inside = (gfp * dna).sum(dim=(1, 2)) / dna.sum(dim=(1, 2))
    return float((inside / gfp.mean(dim=(1, 2)).clamp(min=1e-3)).median())


@pytest.mark.skipif(not os.environ.get("CELLFLOW_DATA"), reason="needs the data sets in CELLFLOW_DATA")
def test_wortmannin_brings_its_reporter_into_the_nucleus():
    """Real cells of two channels, paired within the rows of a plate; in real ones 3.8 becomes 10."""
    arrays = np.load(Path(os.environ["CELLFLOW_DATA"]) / "images" / "bbbc013_wortmannin_64.npz")
    drug = np.where(arrays["dose_nM"] > 0, "wortmannin", "control")
    obs = pd.DataFrame({"drug": drug, "dose": arrays["dose_nM"], "row": [well[0] for well in arrays["well"]]})
    pixels = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).float()
    wells = ImageSet(torch.nn.functional.avg_pool2d(pixels, 4).round().byte(), obs=obs)
    control, treated = (wells.take(obs["drug"] == name) for name in ("control", "wortmannin"))
    settings = {"conditions": cf.Conditions("drug", "dose"), "within": "row", "features": 10, "batch_size": 16}
    network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
    recipe = cf.training.Recipe(learning_rate=3e-3, ema=0.95)
    model = cf.DomainTranslator(**settings, network=network, recipe=recipe, steps=100, device="cpu")
    some = control.take(range(0, len(control), 4))
    found = model.fit(control, treated).translate(some, condition={"drug": "wortmannin", "dose": 150.0}, solver=4)
    assert in_nucleus(found) > 1.5 * in_nucleus(some)
    assert found.obs["row"].tolist() == some.obs["row"].tolist()


DRUG = {"conditions": "drug"}


@pytest.mark.parametrize(
    ("settings", "source", "target", "error", "message"),
    [
        (DRUG, CONTROL, replace(TREATED, obs=None), ValueError, "`target` with a table `obs`.*read_images"),
        (DRUG, CONTROL.scaled(), TREATED.scaled() + 1, ValueError, "`target` with a table `obs`"),
        ({"conditions": "dose"}, CONTROL, TREATED, KeyError, r"'dose'.*'drug', 'plate', 'well'"),
        ({**DRUG, "within": "batch"}, CONTROL, TREATED, KeyError, "No column 'batch' in `obs` of `source`"),
        ({**DRUG, "within": "plate"}, CONTROL.take(CONTROL.obs["plate"] == 1), TREATED, ValueError, "no source .* '2'"),
        ({**DRUG, "within": "plate"}, CONTROL, replace(TREATED, obs=TREATED.obs.assign(plate=np.nan)), ValueError,
         "24 of 24 samples have no 'plate' in `obs` of `target`"),
        ({"within": "plate"}, replace(CONTROL, obs=None), TREATED, ValueError, "`source` with a table `obs`"),
        ({"within": "plate", "within_labels": True}, CONTROL, TREATED, ValueError, "one of `within` and `within_l"),
        ({"within": ()}, CONTROL, TREATED, ValueError, "found none"),
        ({"condition_dropout": 0.1}, CONTROL, TREATED, ValueError, "no conditions to drop"),
        ({**DRUG, "condition_dropout": 2.0}, CONTROL, TREATED, ValueError, "`condition_dropout` from 0 to 1"),
        ({"conditions": 3}, CONTROL, TREATED, TypeError, "conditions"),
        ({"conditions": "well"}, CONTROL, TREATED.take([0, 1, 2, 3, 4, 5]), ValueError, "one cell"),
        ({**DRUG, "network": lambda channels, **given: UNET(channels)}, CONTROL, TREATED, ValueError, "condition"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(settings, source, target, error, message):
    with pytest.raises(error, match=message):
        cf.DomainTranslator(**{**FEW, **settings}).fit(source, target)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"condition": {"drug": "Z"}}, ValueError, "'Z'.*'A', 'B'"),
        ({"condition": {"drg": "A"}}, KeyError, "'drg' is not one of the columns"),
        ({"condition": {}}, KeyError, "lacks 'drug'"),
        ({"condition": {"drug": ["A", "B"]}}, ValueError, "one value, or 12, for 'drug'; found 2"),
        ({"condition": "A"}, TypeError, "a mapping from columns"),
        ({"condition": {"drug": "control"}}, ValueError, "control was not among the conditions of the fit"),
        ({}, ValueError, "control was not among the conditions of the fit"),
        ({"x": CONTROL.images}, ValueError, "expected a `condition` to carry to"),
        ({"condition": {"drug": "A"}, "guidance": 2.0, "solver": Jumps(1)}, ValueError, "guidance of jumps is fixed"),
    ],
)
def test_conditions_that_cannot_be_met_are_refused(given, error, message, translator):
    with pytest.raises(error, match=message):
        translator.translate(**{"x": CONTROL, "solver": 1} | given)


def test_conditions_are_refused_without_a_model_of_them():
    model = cf.DomainTranslator(**FEW).fit(CONTROL, TREATED)
    with pytest.raises(ValueError, match="fitted without conditions"):
        model.translate(CONTROL, condition={"drug": "A"})
    for guided in (
        lambda: model.translate(CONTROL, guidance=2.0),
        lambda: model.distill(CONTROL, TREATED, guidance=2.0),
    ):
        with pytest.raises(ValueError, match=r"Guidance 2.0 needs a model that was trained with dropped conditions"):
            guided()


# --- generation --------------------------------------------------------------------------------------------------


def test_generated_images_have_their_condition(generator):
    found = generator.generate(4, condition={"drug": ["A", "B", "A", "B"], "plate": 1}, solver=2)
    assert found.obs["drug"].tolist() == ["A", "B", "A", "B"]
    assert found.obs["plate"].tolist() == [1] * 4
    alone = generator.generate(4, condition={"drug": "A", "plate": 1}, solver=2)
    assert torch.equal(found.take([0, 2]).images, alone.take([0, 2]).images)
    assert generator.generate(2, solver=2).obs is None
    assert generator.trajectory(2, condition={"drug": "B", "plate": 2}, guidance=2.0, solver=2).x.shape[1] == 2


def test_generators_of_conditions_learn_levels():
    target = plate(drugs=["A", "B"], plates=[1], n=30)
    model = cf.ImageGenerator(conditions="drug", network=UNET, steps=250, batch_size=32, device="cpu").fit(target)
    levels = {drug: model.generate(40, condition={"drug": drug}, solver=8).images.float().mean() for drug in "AB"}
    assert levels["B"] - levels["A"] > 30


def test_generators_are_refined_distilled_and_saved(generator, tmp_path):
    model = cf.ImageGenerator(conditions=cf.Conditions("drug", categories=("plate",)), **FEW).fit(TREATED)
    model.refine(TREATED, rounds=1, steps=2, coupling=cf.training.Reflow(2)).distill(TREATED, steps=2, guidance=1.5)
    model.save(tmp_path / "model")
    again, to = cf.ImageGenerator.load(tmp_path / "model", device="cpu"), {"drug": "A", "plate": "1"}
    for solver in (2, Jumps(1)):
        one, two = (m.generate(3, condition=to, solver=solver).images for m in (model, again))
        assert torch.equal(one, two)


def untold(model):
    return cf.ImageGenerator(**FEW).fit(TREATED)


def twice(model):
    return cf.ImageGenerator(conditions="drug", conditional=True, **FEW).fit(TREATED)


def tableless(model):
    return cf.ImageGenerator(conditions="drug", **FEW).fit(replace(TREATED, obs=None))


def undropped(model):
    return cf.ImageGenerator(conditions="drug", condition_dropout=0.0, **FEW).fit(TREATED)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda m: m.generate(2, condition={"drug": "A"}), KeyError, "lacks 'plate'"),
        (lambda m: m.generate(2, condition={"drug": "Z", "plate": 1}), ValueError, "'Z'"),
        (lambda m: m.generate(2, label="A"), ValueError, "learned no classes"),
        (lambda m: m.generate(2, guidance=2.0), ValueError, "Give a `label`, or a `condition`"),
        (twice, ValueError, "found both"),
        (tableless, ValueError, "table `obs`"),
        (lambda m: untold(m).generate(2, condition={"drug": "A"}), ValueError, "without conditions"),
        (lambda m: undropped(m).generate(2), ValueError, r"Give a `condition`, in columns \['drug'\]"),
    ],
)
def test_generators_refuse_what_they_have_not_learned(use, error, message, generator):
    with pytest.raises(error, match=message):
        use(generator)


def test_images_of_a_figure_have_the_same_size_in_rows_of_any_length():
    from cellflow.report.grids import GAP, rows_figure

    figure = rows_figure([("many", torch.zeros(6, 1, 8, 8)), ("few", torch.zeros(2, 1, 8, 8))])
    many, few = (ax.images[0].get_array() for ax in figure.axes)
    assert many.shape == few.shape
    assert (few[:, : 2 * (8 + GAP) - GAP] == many[:, : 2 * (8 + GAP) - GAP]).all()
    assert (few[:, 2 * (8 + GAP) - GAP :] == 255).all()
    heights = [ax.get_position().height for ax in figure.axes]
    assert heights[0] == pytest.approx(heights[1])


@pytest.mark.parametrize("name", ["few", "OT-CFM in classes", "[SF]2M by ends, with noise, 16 steps"])
def test_names_of_rows_are_not_cut(name):
    from cellflow.report.grids import rows_figure

    figure = rows_figure([(name, torch.zeros(6, 1, 8, 8)), ("source", torch.zeros(6, 1, 8, 8))])
    figure.draw_without_rendering()
    for ax in figure.axes:
        box = ax.yaxis.label.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= ax.get_window_extent().x0
