"""The image benchmarks: what each score says of translations whose answer is known, and both runners end to end."""

import colorsys
import math
import os
import re
import shutil
import time
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

import cellflow as cf
from benchmarks.command import guarded
from benchmarks.few_step import curves
from benchmarks.images import (
    comparison,
    few_step,
    from_noise,
    generation,
    translation,
    translation_page,
    underway,
    wortmannin,
)
from benchmarks.images import judge as judge_of_images
from benchmarks.images import methods as methods_of_images
from benchmarks.images.judge import FLOOR, Translated
from benchmarks.images.methods import CPU, GENERATORS, GPU, TRANSLATORS, Model, Patches, ddim, sample
from benchmarks.images.tasks import (
    DATASETS,
    Dataset,
    Direction,
    Sets,
    Task,
    coloured,
    hues_of,
    measured,
    outlines,
    overlap,
    resized,
    same_hue,
    shapes,
)
from benchmarks.rows import Table
from cellflow import metrics
from cellflow.images import ImageSet
from cellflow.networks import EndPoints, GuessedVelocity, Heads
from cellflow.objectives import BridgeMatching, NoiseMatching, VelocityMatching

TINY = replace(CPU, width=8, multipliers=(1,), batch=8, steps=4, images=24, solver=(1, 2), simulated=8)


@pytest.fixture(scope="module")
def cells():
    return shapes()


@pytest.fixture(scope="module")
def judge(cells):
    return Translated.of(cells, cells.directions[0], n=45, seed=0)


def discs(n, *, seed, side=32):
    """White discs of different places and sizes on black."""
    rng = cf.generator(seed=seed)
    centres, radii = torch.rand(n, 2, 1, 1, generator=rng) * 8 + 12, torch.rand(n, 1, 1, generator=rng) * 5 + 4
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    inside = (grid - centres).square().sum(1) < radii**2
    return ImageSet((inside[:, None] * 255).to(torch.uint8), torch.arange(n) % 2)


@pytest.fixture(scope="module")
def hidden():
    """A task whose target is the source in negative, with the true partners known."""
    sets = [discs(30, seed=k) for k in range(3)]
    negative = [replace(some, images=255 - some.images) for some in sets]
    way = Direction("disc -> hole", "Dice", overlap(outlines, lambda x: x < 0), (1,), outline=lambda x: x < 0)
    back = Direction("hole -> disc", "Dice", overlap(lambda x: x < 0, outlines), outline=outlines, backward=True)
    train_sets, test = Sets(sets[0], negative[1]), Sets(sets[2], negative[2])
    return Task(train_sets, test, "silhouettes", (way, back), view=resized(64), partnered=True)


# --- scores ------------------------------------------------------------------------------------------------------


def test_doing_nothing_moves_nothing_and_keeps_everything(judge):
    row = judge(judge.inputs, seed=0)
    assert row["cost"] == row["cost_low"] == row["cost_high"] == 0
    assert row["kept"] == pytest.approx(1, abs=1e-6)
    assert row["kept_shuffled"] < 0.8
    assert not row["ignores_input"]
    assert row["accuracy"] < 0.3  # untreated cells are not taken for treated ones
    floor = next(judge.controls(seed=0))
    assert row["fd"] > 5 * floor["fd_high"]
    assert row["fd_pca"] > 2 * floor["fd_pca_high"]
    assert row["kid"] > 0
    assert row["measured"] > 1


def test_real_targets_are_near_the_floor_and_ignore_the_input(judge):
    row, floor = judge(judge.others(45, seed=3), seed=0), next(judge.controls(seed=0))
    assert row["fd"] < 2 * floor["fd_high"]
    assert row["ignores_input"]
    assert row["accuracy"] > 0.3
    assert row["precision"] > 0.9
    assert row["recall"] > 0.7
    assert row["measured"] < 0.5
    assert row["cost"] > 0.1
    assert row["high_frequency"] == pytest.approx(1, abs=0.25)


def test_controls_are_scored_as_outputs_are_and_beside_real_images(judge):
    floor, *worse = judge.controls(seed=0)
    assert floor["method"] == FLOOR
    assert [row["method"] for row in worse] == list(translation_page.CONTROLS)
    assert {row["n"] for row in worse} == {floor["n"]} == {len(judge.real)}
    grain = [row["high_frequency"] for row in worse]
    assert floor["high_frequency_low"] < floor["high_frequency"] < floor["high_frequency_high"]
    assert floor["high_frequency"] == pytest.approx(1, abs=0.1)  # of other images: it is not the same by definition
    assert grain[3] < 0.5 < 0.9 < grain[0] < grain[1] < grain[2]
    for row in worse:
        assert row["fd_low"] <= row["fd"] <= row["fd_high"]
        assert 0 <= row["accuracy"] <= 1
        assert row["recall"] > 0.5


def test_right_class_of_real_images_is_that_of_test_images(judge):
    """The classifier was trained on the others."""
    floor = next(judge.controls(seed=0))
    assert floor["accuracy"] == judge._accuracy(judge.real, cf.generator(seed=0))["accuracy"]
    assert floor["accuracy"] != judge._accuracy(judge.others(10**6, 0), cf.generator(seed=0))["accuracy"]


def test_the_floor_is_of_images_that_are_not_the_same(judge, monkeypatch):
    """Were halves to share images, it would lie too low. Each image is grey, and known by its level."""
    pairs, distance = [], metrics.energy_distance

    def seen(x, y):
        pairs.append((x, y))
        return distance(x, y)

    def grey(n, low, high):
        images = torch.linspace(low, high, n)[:, None, None, None].expand(n, *judge.real.shape[1:]).clone()
        images[:, :, 9, 9] = 1  # uniform images have no high frequencies to compare
        return images

    monkeypatch.setattr(metrics, "energy_distance", seen)
    monkeypatch.setattr(Translated, "others", lambda self, n, seed: grey(2 * len(judge.real), -1, -0.1))
    described = replace(judge.direction, descriptors=lambda images: images.flatten(1)[:, :1], described_by="grey")
    numbered = replace(judge, direction=described, real=grey(len(judge.real), 0.1, 1))
    row = next(numbered.controls(seed=0))
    assert len(pairs) == judge_of_images.DRAWS
    for one, other in pairs:
        assert len(one) == len(other) == len(judge.real)
        assert not set(one.flatten().tolist()) & set(other.flatten().tolist())
    assert 0 < row["measured_low"] < row["measured"] < row["measured_high"]


def test_pages_say_what_a_distance_does_not_see():
    def row(method, fd, pca, **more):
        return {"method": method, "network": "nuclei", "fd": fd, "fd_pca": pca, "high_frequency": 1.0, **more}

    rows = [
        row(FLOOR, 16.6, 5.57),
        *(row(name, 17.0, 5.6) for name in translation_page.CONTROLS),
        row("do nothing", 90, 9),
    ]
    assert translation_page._seen(rows) == ["- FD-nuclei sees every control.", "- FD-PCA sees every control."]
    rows[3] = row(translation_page.CONTROLS[2], 13.0, 5.6)
    said = translation_page._seen(rows)
    assert said[0] == "- FD-nuclei is blind to: noise of 20 grey levels. Do not rank by it."
    assert translation_page._seen(rows[:1]) == []  # of a table from before
    rows[0]["fd_pca_high"] = 5.8
    faint = translation_page._seen(rows)[1]
    assert faint.startswith("- FD-PCA sees every control; within the spread of the floor: noise of 5 grey levels, ")


def test_simple_answers_need_no_training(judge):
    found = translation.simple(judge)
    assert found["mean image"].std(0).max() == 0
    moved = found["mean shift"] - judge.inputs
    assert moved.flatten(1).amax(1).max() <= 2
    pool = {tuple(image.flatten().tolist()) for image in judge.others(500, 0)}
    assert all(tuple(image.flatten().tolist()) in pool for image in found["nearest real target"])


def test_the_same_images_are_at_no_distance(judge):
    row = judge(judge.real, seed=0)
    assert row["fd"] == pytest.approx(0, abs=1e-4)
    assert row["measured"] == pytest.approx(0, abs=1e-9)
    assert row["precision"] == row["recall"] == 1


def test_true_partners_score_as_such_both_ways(hidden):
    for way in hidden.directions:
        judge = Translated.of(hidden, way, n=20, seed=0)
        row = judge(judge.real, seed=0)
        assert (row["partner_mse"], row["partner_dice"], row["kept"]) == (0, 1, 1)
        assert row["partner_ssim"] == pytest.approx(1, abs=1e-6)
        assert row["cost"] == 4  # black became white everywhere, and the other way round
        other = judge(judge.real.roll(1, 0), seed=0)
        assert other["partner_mse"] > 0.1
        assert other["partner_dice"] == pytest.approx(other["kept"])
        assert other["kept"] < 0.9


def test_partners_are_the_same_test_rows(hidden):
    sets, rows = hidden.chosen(hidden.directions[1], 7, cf.generator(seed=0))
    assert torch.equal(sets.source.images, 255 - sets.target.images)
    assert torch.equal(sets.target.images, hidden.test.source.images[rows])


def test_shape_of_a_disc():
    grid = (torch.arange(64) - 31.5).square()
    disc = ((grid[:, None] + grid) < 20**2).float() * 2 - 1
    area, perimeter, circularity = measured(disc[None, None])[0].tolist()
    assert area == pytest.approx(math.pi * 20**2 / 64**2, rel=0.01)
    assert perimeter == pytest.approx(2 * math.pi * 20 / 64, rel=0.03)
    assert circularity == pytest.approx(1, rel=0.05)


# --- colours -----------------------------------------------------------------------------------------------------


def test_hues_are_those_of_hsv_where_the_sextant_is_right(rng):
    white = ImageSet(torch.full((200, 1, 8, 8), 255, dtype=torch.uint8))
    hues = (torch.rand(200, generator=cf.generator(seed=0)) * 360).tolist()
    images = coloured(white, generator=cf.generator(seed=0), side=8)
    for hue, image in zip(hues, images.images[:, :, 0, 0].tolist(), strict=True):
        true = [round(255 * level) for level in colorsys.hsv_to_rgb(hue / 360, 1, 1)]
        same = max(abs(a - b) for a, b in zip(true, image, strict=True)) <= 1
        assert same == (hue % 60 < 30) or hue % 60 == pytest.approx(30, abs=0.3), hue
        assert max(image) == 255
        assert min(image) == 0


@pytest.mark.parametrize("hue", [0.0, 31.0, 90.0, 200.0, 359.0])
def test_the_hue_of_a_colour_is_found_and_compared_around_the_circle(hue):
    def of(degrees):
        colour = torch.tensor(colorsys.hsv_to_rgb(degrees % 360 / 360, 1, 0.7)) * 2 - 1
        return colour[None, :, None, None].expand(-1, -1, 4, 4)

    assert hues_of(of(hue)).item() == pytest.approx(hue, abs=1.5)
    assert same_hue(of(hue), of(hue + 45)).item() == pytest.approx(1 - 45 / 180, abs=0.02)
    assert same_hue(of(hue), of(hue - 45)).item() == pytest.approx(1 - 45 / 180, abs=0.02)


# --- models ------------------------------------------------------------------------------------------------------


def test_patches_mix_no_heads():
    net = Patches(lambda t, x, condition: torch.cat([x, -x], dim=1), 2)
    heads = Heads(net, score="shared")(torch.zeros(2), x := torch.randn(2, 3, 4, 4))
    assert torch.equal(heads.velocity, x)
    assert torch.equal(heads.score_drift, -x)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("sampler", "moved"), [("ODE", 0), ("SDE, equal steps", 3 / 4), ("SDE", 15 / 16)])
def test_translating_along_a_known_drift(backward, sampler, moved):
    """A velocity of 0.5 and no score: bytes half the range up or down, blurred by the noise of all steps but one."""
    field = Heads(
        lambda t, x, condition: torch.cat([torch.full_like(x, 0.5), torch.zeros_like(x)], dim=1), score="shared"
    )
    model = Model(field, BridgeMatching(cf.paths.BrownianBridge(0.1)))
    x = torch.zeros(4, 1, 64, 64)
    found = sample(model, x, steps=4, sampler=sampler, backward=backward, generator=cf.generator(seed=0))
    assert found.mean().item() == pytest.approx(-0.5 if backward else 0.5, abs=0.01)
    assert found.std().item() == pytest.approx(0.1 * math.sqrt(moved), abs=0.003)


@pytest.mark.parametrize("name", list(TRANSLATORS))
def test_every_method_trains(hidden, name, global_state_is_untouched):
    model, again = (translation.train(hidden, TRANSLATORS[name], TINY, seed=0) for _ in range(2))
    for one, other in zip(model.field.parameters(), again.field.parameters(), strict=True):
        assert torch.equal(one, other)
    assert isinstance(model.objective, BridgeMatching) == (name in ("[SF]2M", "DSBM"))
    assert isinstance(model.field, EndPoints) == name.endswith("by ends")
    assert isinstance(model.field, GuessedVelocity) == name.endswith("from a guess")


class Stop(Exception):
    """What ends a process between two steps."""


def trained(task, name, place):
    """Return the field of a method after eight steps, and the seconds that are told of it."""
    size = replace(TINY, steps=8)
    if name == from_noise.NAME:
        model, seconds = from_noise.train(task, size, 0, place)
        return model.field_, seconds
    found = translation.train(task, TRANSLATORS[name], size, 0, place)
    return found.field, found.seconds


@pytest.mark.parametrize("name", ["OT-CFM", "DSBM", "DSBM by ends", from_noise.NAME])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_translation_that_is_stopped_goes_on_to_the_same_weights(hidden, name, after, tmp_path, monkeypatch):
    """Within the first training, at its end, and within pairs of its own; every step is saved."""
    whole, _ = trained(hidden, name, underway.NOWHERE)
    calls, objective = [], type(from_noise.METHODS[name].objective)
    call = objective.__call__

    def counted(self, *given, **named):
        calls.append(1)
        if len(calls) == after + 1:
            raise Stop
        return call(self, *given, **named)

    monkeypatch.setattr(underway, "SAVED", 1e-9)
    monkeypatch.setattr("cellflow.training.loop.READ_EVERY", 1)
    monkeypatch.setattr(objective, "__call__", counted)
    place = underway.Underway(tmp_path)
    with pytest.raises(Stop):
        trained(hidden, name, place)
    field, seconds = trained(hidden, name, place)
    steps = 8  # half of them on pairs of its own, where there are such
    assert len(calls) == steps + 1  # none is taken twice
    assert all(map(torch.equal, field.parameters(), whole.parameters()))
    assert seconds > 0
    place.forget()
    assert not tmp_path.exists()


def test_from_noise_one_network_learns_both_sides(hidden, global_state_is_untouched):
    """A side is asked for by its number, and the two answers differ."""
    images = from_noise.both_sides(hidden)
    assert images.obs["side"].value_counts().to_dict() == {"source": 30, "target": 30}
    (model, seconds), (again, _) = (from_noise.train(hidden, TINY, seed=0) for _ in range(2))
    assert seconds > 0
    assert all(map(torch.equal, model.field_.parameters(), again.field_.parameters()))
    noise = torch.zeros(5, 1, 32, 32)
    there, back = (from_noise.generate(model, noise, steps=2, backward=backward, seed=1) for backward in (False, True))
    assert there.shape == (5, 1, 32, 32)
    with torch.no_grad():
        for parameter in model.field_.parameters():  # past the first steps, in which the output layer is still near 0
            parameter.add_(0.1)
    there, back = (from_noise.generate(model, noise, steps=2, backward=backward, seed=1) for backward in (False, True))
    assert not torch.equal(there, back)


def test_the_smaller_side_is_repeated(hidden):
    few = replace(hidden, train=Sets(hidden.train.source.take(range(4)), hidden.train.target))
    images = from_noise.both_sides(few)
    assert images.obs["side"].value_counts().to_dict() == {"source": 30, "target": 30}
    assert torch.equal(images.images[:4], images.images[4:8])
    assert torch.equal(images.images[30:], hidden.train.target.images)


def test_the_share_of_a_protein_in_the_nucleus():
    """A bright square of DNA; three parts of the protein lie in it, and one beside. Images show roots."""
    cells = torch.zeros(2, 2, 16, 16)
    cells[:, 1, 4:8, 4:8] = 0.8
    cells[0, 0, 4, 4:7] = 0.2
    cells[0, 0, 12, 12] = 0.2
    images = 2 * cells.sqrt() - 1
    assert wortmannin.nuclear_share(images)[:, 0].tolist() == pytest.approx([0.75, 0])
    assert wortmannin.nucleus(images).sum().item() == 2 * 16


@pytest.mark.skipif("CELLFLOW_DATA" not in os.environ, reason="needs the data sets")
def test_cells_under_wortmannin_are_judged_on_other_wells():
    task = wortmannin.task()
    assert [len(end) for end in (*task.train, *task.test)] == [302, 184, 149, 159]
    assert all(end.shape == (2, 32, 32) and end.classes == wortmannin.KINDS for end in (*task.train, *task.test))
    shares = [wortmannin.nuclear_share(end.scaled()).median().item() for end in task.test]
    assert shares[0] < 0.25 < 0.55 < shares[1]  # the drug moves the protein into the nucleus
    assert translation.suits(TRANSLATORS["OT-CFM in classes"], task)


@pytest.mark.parametrize(("steps", "warmup"), [(3000, 50), (300, 50), (200, 50), (100, 25), (1, 0)])
def test_a_short_training_is_a_fourth_warm_up_at_most(steps, warmup):
    """Committed tables are of 200 steps and more, in which it takes the 50 of the recipe."""
    assert methods_of_images.within(CPU.recipe, steps) == replace(CPU.recipe, warmup=warmup)


@pytest.mark.parametrize(("steps", "warmup"), [(100_000, 5000), (2000, 100), (400, 20)])
def test_a_gpu_reaches_its_learning_rate_in_every_training(steps, warmup):
    assert methods_of_images.within(GPU.recipe, steps).warmup == warmup
    assert GPU.recipe.rate_at(steps // 4, steps=steps) == GPU.recipe.learning_rate
    assert generation.SIZES["cifar10"].recipe.warmup == 5000  # as published


def test_sizes_share_no_table(tmp_path, monkeypatch):
    monkeypatch.setattr(methods_of_images, "SAMPLES", tmp_path / "samples")
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    for size in ("cpu", "gpu"):
        monkeypatch.setitem(translation.SIZES, size, TINY)
        translation.main(["task=shapes", "method=I-CFM", f"size={size}", f"out={tmp_path}"])
    for end, size in (("", "cpu"), ("_gpu", "gpu")):
        rows = Table(tmp_path / f"translation{end}.csv", translation.KEY).read()
        assert {row["size"] for row in rows} == {size}
        page = (tmp_path / f"translation{end}.md").read_text()
        assert f"size={size} " in page
        assert f"](translation{end}_shapes.png)" in page
        assert (tmp_path / f"translation{end}_shapes.png").exists()
    (tmp_path / "translation_gpu.csv").replace(tmp_path / "translation.csv")
    with pytest.raises(ValueError, match="holds rows of gpu; asked for cpu"):
        translation.main(["task=shapes", "method=I-CFM", f"out={tmp_path}"])


# --- seeds -------------------------------------------------------------------------------------------------------


def scored(method, seed, fd, width=2.0, steps=16):
    about = {"method": method, "sampler": "ODE", "solver_steps": steps, "seed": seed, "network": "x", "ignores": False}
    return about | {"fd": fd, "fd_low": fd - width / 2, "fd_high": fd + width / 2}


def test_a_difference_over_seeds_has_the_errors_of_both_scores_and_of_the_seeds():
    pairs = [(scored("a", 0, 10.0, 1.96), scored("b", 0, 7.0, 1.96)), (scored("a", 1, 12.0, 1.96), scored("b", 1, 7.0))]
    apart, half = comparison.difference([pairs[0], pairs[0]], "fd")
    assert apart == 3
    assert half == pytest.approx(1.96 * math.sqrt(2 * 0.5**2), rel=1e-4)  # widths of 1.96: standard errors of one half
    apart, half = comparison.difference([pairs[0], (scored("a", 1, 12.0, 1.96), scored("b", 1, 7.0, 1.96))], "fd")
    assert apart == 4
    # 3 and 5 have a variance of 2. Student's t with 1.5 ** 2 degrees of freedom is 3.9.
    assert half == pytest.approx(3.8756 * math.sqrt(2 * 0.5**2 + 2 / 2), rel=1e-3)
    exact = [(row | {"fd_low": row["fd"], "fd_high": row["fd"]} for row in pair) for pair in (pairs[0], pairs[1])]
    assert comparison.difference([tuple(pair) for pair in exact], "fd")[1] == pytest.approx(12.706, rel=1e-4)


def test_several_seeds_are_one_row_and_a_verdict():
    rows = [scored("I-CFM", k, 10.0 + k) for k in (0, 1)] + [scored(from_noise.NAME, k, 30.0 + k) for k in (0, 1)]
    rows += [scored("OT-CFM", k, 10.2 + k) for k in (0, 1)] + [scored(FLOOR, k, 1.0 + k) for k in (0, 1)]
    found = {row["method"]: row for row in comparison.over_seeds(rows, [FLOOR])}
    assert found["I-CFM, 2 seeds"]["fd"] == 10.5
    assert (found["I-CFM, 2 seeds"]["fd_low"], found["I-CFM, 2 seeds"]["fd_high"]) == (9, 12)
    assert found[FLOOR]["fd"] == 1
    lines = comparison.text(rows)
    assert "- I-CFM against noise -> target: better in FD-x." in lines
    assert "- OT-CFM against I-CFM: no difference shown in FD-x." in lines
    assert any(line.startswith("| I-CFM - noise -> target | **-20 [") for line in lines)
    assert "spread over 2 seeds" in lines[1]
    once = comparison.text([row for row in rows if row["seed"] == 0])
    assert "of one seed" in once[1]
    assert comparison.text(rows[:2]) == []  # nothing to compare with


def test_right_class_is_not_judged_where_the_mean_image_has_it_more_often_than_real_ones():
    def row(method, accuracy, fd=10.0):
        return scored(method, 0, fd) | {
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.04,
            "accuracy_high": accuracy,
        }

    def page(mean_image):
        rows = [row(FLOOR, 0.86), row("mean image", mean_image), row("I-CFM", 0.5), row(from_noise.NAME, 0.9, fd=40.0)]
        return translation_page._seen(rows), comparison.text(rows)

    seen, lines = page(1.0)
    assert seen == [
        "- Right class does not tell real images from others: 1 [0.96, 1] of the mean image, 0.86 [0.82, 0.86] of real "
        "ones. Do not rank by it."
    ]
    assert lines[1].endswith("Not judged, as said above: right class.")
    assert any(line.startswith("| I-CFM - noise -> target | **-30 [") for line in lines)
    assert "| -0.4 [" in lines[5]
    assert lines[-1] == "- I-CFM against noise -> target: better in FD-x."
    seen, lines = page(0.8)
    assert seen == []
    assert "judged" not in lines[1]
    assert "| **-0.4 [" in lines[5]
    assert lines[-1] == "- I-CFM against noise -> target: better in FD-x; worse in right class."


def test_a_distance_that_is_blind_to_a_control_ranks_nothing():
    """Neither in bold nor in words; a page without all controls, as of before, is as it was."""
    rows = [scored("I-CFM", 0, 10.0), scored(from_noise.NAME, 0, 40.0), scored(FLOOR, 0, 5.0)]
    rows += [scored(name, 0, 6.0 + k) for k, name in enumerate(comparison.CONTROLS)]
    assert comparison.text(rows)[-1] == "- I-CFM against noise -> target: better in FD-x."
    rows[-1]["fd"] = 5.0
    lines = comparison.text(rows)
    assert lines[1].endswith("Not judged, as said above: FD-x.")
    assert lines[-1] == "- I-CFM against noise -> target: not judged."
    assert any(line.startswith("| I-CFM - noise -> target | -30 [") for line in lines)
    assert comparison.text(rows[:-1])[-1] == "- I-CFM against noise -> target: better in FD-x."


def test_methods_know_their_tasks(hidden, cells):
    on_outlines, in_classes = TRANSLATORS["OT-CFM on outlines"], TRANSLATORS["OT-CFM in classes"]
    assert not translation.suits(on_outlines, cells)
    assert not translation.suits(in_classes, cells)
    assert translation.suits(on_outlines, replace(hidden, features=(outlines, outlines)))


def test_ddim_is_exact_where_the_data_are_one_point():
    """All data at c: the noise is (x - b c) / a, and any number of steps ends at c but for the last trace of noise."""
    path, target = cf.paths.VariancePreserving(), 0.3

    def field(t, x, condition):
        a, b, _ = path.coefficients(t)
        return (x - b[:, None, None, None] * target) / a[:, None, None, None]

    x = torch.randn(8, 1, 4, 4, generator=cf.generator(seed=0))
    for steps in (1, 7):
        assert (ddim(field, NoiseMatching(path), x, steps=steps) - target).abs().max() < 0.05
    target = 5.0  # no picture is as bright: what is predicted is kept at 1
    assert (ddim(field, NoiseMatching(path), x, steps=7) - 1).abs().max() < 0.05
    with pytest.raises(TypeError, match="NoiseMatching"):
        ddim(field, VelocityMatching(), x, steps=1)


def test_samplers_of_diffusion_agree_in_the_limit():
    """Gaussian data of scale 0.5: the noise is known in closed form, and both samplers follow one flow."""
    path = cf.paths.VariancePreserving()

    def field(t, x, condition):
        a, b, _ = (c[:, None, None, None] for c in path.coefficients(t))
        return a * x / (a**2 + (0.5 * b) ** 2)

    noise = torch.randn(64, 1, 4, 4, generator=cf.generator(seed=0))
    ends = [
        sample(Model(field, GENERATORS["diffusion"].objective), noise, sampler=sampler, steps=200, generator=None)
        for sampler in ("ddim", "euler")
    ]
    assert (ends[0] - ends[1]).abs().mean() < 0.05
    assert (ends[0] - (0.5 * noise).clamp(-1, 1)).abs().mean() < 0.05


# --- runners -----------------------------------------------------------------------------------------------------


def test_translation_runs_and_is_not_run_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(methods_of_images, "SAMPLES", tmp_path / "samples")
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    monkeypatch.setitem(translation.SIZES, "cpu", TINY)
    words = ["task=shapes", "method=I-CFM,[SF]2M", f"out={tmp_path}"]
    translation.main(words)
    rows = Table(tmp_path / "translation.csv", translation.KEY).read()
    assert [row["method"] for row in rows].count("[SF]2M") == 3  # two numbers of steps, and the flow
    assert {row["direction"] for row in rows} == {"control -> cytd"}
    assert all(row["fd"] for row in rows)
    page = (tmp_path / "translation.md").read_text()
    assert "| [SF]2M | SDE | 2 |" in page
    assert "| noise of 20 grey levels |" in page
    assert "- FD-PCA " in page
    assert "## coloured" in page
    assert "Not run yet." in page
    assert (tmp_path / "translation_shapes.png").stat().st_size > 1000
    capsys.readouterr()
    translation.main(words)
    assert "train_seconds" not in capsys.readouterr().out  # only the baselines were made again


def test_pictures_show_answers_beneath_their_own_inputs(tmp_path, monkeypatch, capsys):
    """Each seed draws other test images; a picture of rows that were made elsewhere stays as it is."""
    drawn = []
    monkeypatch.setattr(methods_of_images, "SAMPLES", tmp_path / "samples")
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    monkeypatch.setattr(methods_of_images, "save", lambda figure, path: drawn.append(figure))
    monkeypatch.setattr(methods_of_images, "rows_figure", dict)
    monkeypatch.setattr(methods_of_images, "sample", lambda model, x, **how: x)  # an answer is its input
    monkeypatch.setitem(translation.SIZES, "cpu", TINY)
    words = ["task=shapes", "method=I-CFM", "seeds=2", f"out={tmp_path}"]
    translation.main(words)
    assert list(drawn[-1]) == ["source", "I-CFM", "real target"]
    assert torch.equal(drawn[-1]["source"], drawn[-1]["I-CFM"])
    shutil.rmtree(tmp_path / "samples")
    drawn.clear()
    translation.main(words)
    assert not drawn
    assert "translation_shapes.png is not drawn: no samples are kept here of I-CFM." in capsys.readouterr().out


def test_generation_runs(tmp_path, monkeypatch):
    some = cf.images.read_images(cf.datasets.digits(), size=28)
    monkeypatch.setattr(methods_of_images, "SAMPLES", tmp_path / "samples")
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    for name, value in {"EVALUATIONS": (2, 3), "ON_THE_WAY": 3, "DRAWS": 3}.items():
        monkeypatch.setattr(generation, name, value)
    monkeypatch.setattr(judge_of_images, "REPEATS", 3)
    monkeypatch.setitem(DATASETS, "mnist", Dataset(lambda split: some.take(range(150)), "mnist"))
    monkeypatch.setitem(generation.SIZES, "cpu", replace(TINY, steps=16))
    generation.main(["task=mnist", f"out={tmp_path}"])
    rows = Table(tmp_path / "generation.csv", generation.KEY).read()
    steps = {row["train_steps"] for row in rows if row["method"] == "diffusion"}
    assert steps == {1, 2, 4, 8, 16}
    ends = [row for row in rows if row["method"] == "diffusion" and row["train_steps"] == 16]
    assert {row["sampler"] for row in ends} == {"ddim", "euler"}
    floor = next(row for row in rows if row["method"] == FLOOR)
    assert sum(row["method"] in translation_page.CONTROLS for row in rows) == 4
    assert all(row["high_frequency"] > 0 for row in rows)
    assert floor["fd"] < min(row["fd"] for row in rows if row["method"] == "FM")
    page = (tmp_path / "generation.md").read_text()
    assert "FD-mnist against evaluations" in page
    assert "| blurred |" in page
    assert "FD-mnist is blind to" in page or "FD-mnist sees every control" in page
    assert (tmp_path / "generation_mnist.png").stat().st_size > 1000


def test_a_generation_that_is_stopped_scores_and_trains_nothing_twice(tmp_path, monkeypatch):
    some = cf.images.read_images(cf.datasets.digits(), size=28).take(range(60))
    for name, value in {"EVALUATIONS": (2, 3), "ON_THE_WAY": 3}.items():
        monkeypatch.setattr(generation, name, value)
    monkeypatch.setattr(judge_of_images, "REPEATS", 3)
    judge = judge_of_images.Generated(Dataset(lambda split: some, "mnist"), some)
    scored, trained, draw = [], [], methods_of_images.sample
    call = VelocityMatching.__call__

    def counted(model, *given, **named):
        scored.append(model.steps)
        if len(scored) == 3:
            raise Stop
        return draw(model, *given, **named)

    monkeypatch.setattr(methods_of_images, "sample", counted)
    monkeypatch.setattr(VelocityMatching, "__call__", lambda *a, **named: (trained.append(1), call(*a, **named))[1])
    asked = "FM", "generation/mnist", some, judge, replace(TINY, steps=16), 0, underway.Underway(tmp_path)
    with pytest.raises(Stop):
        list(generation._scored(*asked))
    rows = list(generation._scored(*asked))
    assert scored == [1, 2, 4, 4, 8, 16, 16]
    assert len(trained) == 16
    assert [row["train_steps"] for row in rows] == [1, 2, 4, 8, 16, 16]
    seconds = [row["train_seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_scores_by_the_fid_have_their_high_frequencies_too(monkeypatch, rng):
    some = ImageSet(torch.randint(256, (30, 3, 8, 8), dtype=torch.uint8, generator=rng))
    monkeypatch.setattr(cf.datasets, "inception_weights", lambda: None)
    monkeypatch.setattr(judge_of_images, "fid", lambda images, real: 3.5)
    judge = judge_of_images.Generated(Dataset(lambda split: some, None), some)
    assert judge(some.scaled()) == {"distance": "FID", "n": 30, "fd": 3.5, "high_frequency": 1.0}


def test_cifar10_without_the_weights_of_the_fid_stops_before_training(monkeypatch, tmp_path):
    def nowhere():
        raise FileNotFoundError("No weights")

    monkeypatch.setattr(cf.datasets, "inception_weights", nowhere)
    monkeypatch.setitem(DATASETS, "cifar10", Dataset(lambda split: discs(5, seed=0), None))
    with pytest.raises(FileNotFoundError, match="No weights"):
        generation.main(["task=cifar10", f"out={tmp_path}"])


@pytest.mark.parametrize("word", ["task=masses", "method=OT", "size=big"])
@pytest.mark.parametrize("kind", [translation, generation, few_step])
def test_unknown_words_are_refused(kind, word, capsys):
    with pytest.raises(SystemExit):
        kind.main([word])
    assert "choose from" in capsys.readouterr().err


def test_the_page_marks_what_goes_no_better_with_its_own_input():
    about = dict.fromkeys(translation.COLUMNS) | {
        "task": "stains", "direction": "there", "n": 9, "size": "cpu", "batch": 4, "train_steps": 5, "fd": 1.0,
        "network": "nuclei", "kept_by": "Dice", "seed": 0, "kept_shuffled": 0.5, "solver_steps": 4,
    }  # fmt: skip
    kept = {"I-CFM": (0.9, False), "OT-CFM": (0.5, True), "DSBM": (0.2, False)}
    rows = [
        about | {"method": method, "kept": value, "kept_low": value, "kept_high": value, "ignores_input": ignores}
        for method, (value, ignores) in kept.items()
    ]
    lines = {line.split(" | ")[0]: line for line in translation_page.text(rows).splitlines()}
    assert "0.5, ignores" in lines["| OT-CFM"]
    assert "0.5, worse" in lines["| DSBM"]
    assert "| 0.5 |" in lines["| I-CFM"]


@pytest.mark.parametrize("method", [few_step.REFLOWS[0], few_step.TRAJECTORIES, "semigroup"])
def test_images_are_flowed_reflowed_and_distilled(method, monkeypatch, tmp_path, rng):
    digits = ImageSet(torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8, generator=rng))
    monkeypatch.setitem(DATASETS, "mnist", Dataset(lambda split: digits, "mnist"))
    for name, value in {"MOMENTS": 3, "MANY": 2}.items():
        monkeypatch.setattr(few_step, name, value)
    monkeypatch.setattr(curves, "JUMPS", (1, 2))
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    size = ["flow_steps=1", "steps=1", "batch=4", "simulated=4", "images=6", "device=cpu"]
    few_step.main(["task=mnist", f"method={method}", "seeds=1", *size, f"out={tmp_path}"])
    rows = Table(tmp_path / "few_step_mnist.csv", ("method", "seed")).read()
    assert len(rows) == (4 if method in few_step.REFLOWS else 3)
    assert all(row["at_2"] > 0 and row["high_frequency_2"] > 0 for row in rows)
    assert {row["size"] for row in rows} == {"1 and 1 steps of 4, width 24"}
    page = (tmp_path / "few_step_mnist.md").read_text()
    assert "Real images made worse: noise of 5 grey levels " in page
    assert "## High frequencies" in page
    assert re.search(r"real against real [01]\.\d+, noise of 5 grey levels ", page)


def test_the_flow_that_maps_start_from_is_not_trained_twice(monkeypatch, tmp_path, rng):
    digits = ImageSet(torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8, generator=rng))
    monkeypatch.setitem(DATASETS, "mnist", Dataset(lambda split: digits, "mnist"))
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    monkeypatch.setattr(few_step, "METHODS", (few_step.TRAJECTORIES, "semigroup"))
    for name, value in {"MOMENTS": 3, "MANY": 2}.items():
        monkeypatch.setattr(few_step, name, value)
    monkeypatch.setattr(curves, "JUMPS", (1, 2))
    call, distilled, trained = VelocityMatching.__call__, curves.Bench.distilled, []

    def stopped(*given, **named):
        raise Stop

    monkeypatch.setattr(VelocityMatching, "__call__", lambda *a, **named: (trained.append(1), call(*a, **named))[1])
    size = ["flow_steps=3", "steps=1", "batch=4", "simulated=4", "images=6", "device=cpu", f"out={tmp_path}"]
    monkeypatch.setattr(curves.Bench, "distilled", stopped)
    with pytest.raises(Stop):
        few_step.main(["task=mnist", f"method={few_step.TRAJECTORIES}", "seeds=1", *size])
    monkeypatch.setattr(curves.Bench, "distilled", distilled)
    table, kept = Table(tmp_path / "few_step_mnist.csv", ("method", "seed")), tmp_path / "underway"
    before = table.read()
    for method in few_step.METHODS:
        assert list(kept.iterdir())  # as there are methods that it has not been used for
        few_step.main(["task=mnist", f"method={method}", "seeds=1", *size])
    assert len(trained) == 3
    assert not list(kept.iterdir())
    rows = table.read()
    assert [row["method"] for row in rows[2:]] == list(few_step.METHODS)
    assert [row["at_1"] for row in rows[:2]] == [row["at_1"] for row in before]
    assert [row["seconds"] for row in rows[:2]] == [row["seconds"] for row in before]
    few_step.main(["task=mnist", "method=semigroup", "seeds=1", "--again", *size])
    assert len(trained) == 6


def steps_of(bench, method, flow):
    """Return the weights of every round of a method, or of its map."""
    if method not in bench.reflows:
        return [deepcopy(bench.distilled(flow, method, time.process_time)[0].state_dict())]
    return [deepcopy(straight.state_dict()) for straight, _ in bench.reflowed(flow, time.process_time)]


@pytest.mark.parametrize("after", [2, 5])
@pytest.mark.parametrize("method", [few_step.REFLOWS[-1], *few_step.MAPS, few_step.TRAJECTORIES])
def test_a_map_or_reflow_that_is_stopped_goes_on_to_the_same_weights(method, after, tmp_path, monkeypatch, rng):
    """Reflow in its first round, and in its second, of four steps each; what is done is not done again."""
    digits = ImageSet(torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8, generator=rng))
    monkeypatch.setitem(DATASETS, "mnist", Dataset(lambda split: digits, "mnist"))
    monkeypatch.setattr(few_step, "MOMENTS", 3)
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    monkeypatch.setattr(underway, "SAVED", 1e-9)
    monkeypatch.setattr("cellflow.training.loop.READ_EVERY", 1)
    rounds, steps = (len(few_step.REFLOWS), 4) if method in few_step.REFLOWS else (1, 8)
    size = replace(few_step.SIZES["cpu"], flow_steps=1, steps=steps, batch=4, simulated=4, images=6)
    bench = few_step.bench("mnist", size, seed=0)
    flow, _ = bench.velocity(time.process_time)
    whole = steps_of(replace(bench, place=underway.NOWHERE), method, flow)
    taken, step = [], torch.optim.AdamW.step

    def counted(self, *given, **named):
        taken.append(1)
        if len(taken) == after + 1:
            raise Stop
        return step(self, *given, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    with pytest.raises(Stop):
        steps_of(bench, method, flow)
    found = steps_of(bench, method, flow)
    assert len(taken) == rounds * steps + 1  # none is taken twice
    for one, other in zip(found, whole, strict=True):
        assert all(torch.equal(one[name], weight) for name, weight in other.items())


def test_the_seconds_of_a_training_that_was_stopped_are_those_of_both_processes(tmp_path):
    """Three seconds of pairs, then a second a step; after a hundred it is stopped, and goes on another day."""
    now, place = [0.0], underway.Underway(tmp_path)

    def process(steps):
        watch = place.watch("part", 200, lambda: now[0])
        run = watch.on(cf.training.Run())
        now[0] += 3
        for _ in range(0, steps, run.watch_every):
            now[0] += run.watch_every
            run.watch(None)
        now[0] += 1  # after the last look: lost with a process that is stopped
        return watch.seconds()

    assert process(100) == 104
    now[0] += 86_400
    assert process(100) == 103 + 104


def test_a_part_that_is_done_keeps_its_seconds(tmp_path):
    now, place = [0.0], underway.Underway(tmp_path)

    def train(run):
        now[0] += 5
        return "trained"

    assert [place.timed("part", 10, train, lambda: now[0]) for _ in range(2)] == [("trained", 5.0)] * 2
    place.forget()
    assert place.timed("part", 10, train, lambda: now[0]) == ("trained", 5.0)


def test_a_missing_file_is_named_in_a_line(tmp_path, monkeypatch):
    def missing(split):
        raise FileNotFoundError(f"{split} images are nowhere")

    monkeypatch.setitem(DATASETS, "mnist", Dataset(missing, "mnist"))
    with pytest.raises(SystemExit, match="images few_step: test images are nowhere"):
        guarded("images few_step", few_step.main, ["task=mnist", f"out={tmp_path}"])


def test_the_page_says_when_a_flow_is_where_diffusion_ends():
    about = dict.fromkeys(generation.COLUMNS) | {
        "dataset": "mnist", "distance": "FD-mnist", "n": 9, "size": "cpu", "batch": 4, "train_seconds": 1.0,
        "evaluations": generation.ON_THE_WAY,
    }  # fmt: skip
    courses = {"diffusion": ("ddim", [50, 20]), "FM": ("euler", [20, 10]), "OT-CFM": ("euler", [60, 21])}
    rows = [
        about | {"method": method, "sampler": sampler, "train_steps": 100 * (k + 1), "fd": fd}
        for method, (sampler, found) in courses.items()
        for k, fd in enumerate(found)
    ]
    text = generation.text(rows)
    assert "After 200 steps, sampled with 16 evaluations: FM 10, OT-CFM 21, diffusion 20." in text
    assert "FM after 100, OT-CFM never" in text
    assert "steps=200 batch=4 images=9" in text
