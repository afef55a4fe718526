"""The loop: exact resume, accumulation, averaging, the learning rate, and how it stops."""

import json
import os
import re
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

import cellflow as cf
from cellflow.errors import CheckpointError
from cellflow.objectives import VelocityMatching
from cellflow.seeds import seeded
from cellflow.training import History, Recipe, Run, fit
from cellflow.training.checkpoint import STATE, load_tensors, save_tensors
from cellflow.training.compiled import compiled
from cellflow.training.run import Interrupt

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
QUICK = Recipe(warmup=5, learning_rate=1e-2)


def make_field():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return cf.networks.MLP(dim=2, width=16, depth=1)


def make_batches(seed=0, batch_size=16):
    x0 = torch.randn(40, 2, generator=cf.generator(1))
    return cf.pairing.paired_batches(x0, x0 + 3, batch_size=batch_size, generator=cf.generator(seed))


def weights(field):
    return torch.cat([weight.detach().flatten() for weight in field.parameters()])


def run(field=None, *, objective=None, batches=None, seed=7, folder=None, resume=False, save_every=1000, **settings):
    field = make_field() if field is None else field
    kept = Run(folder, resume=resume, save_every=save_every)
    settings = {"steps": 60, "recipe": QUICK, "run": kept} | settings
    history = fit(
        field,
        objective or VelocityMatching(),
        make_batches() if batches is None else batches,
        generator=cf.generator(seed),
        **settings,
    )
    return field, history


def test_training_learns_a_constant_velocity():
    field, history = run(steps=300)
    assert history["loss"][-1] < 0.02 * history["loss"][0]
    found = field(torch.full((5,), 0.5), torch.randn(5, 2, generator=cf.generator(3)))
    assert torch.allclose(found, torch.full((5, 2), 3.0), atol=0.3)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("ema", [0.0, 0.99])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, accumulate, ema):
    recipe = Recipe(warmup=5, accumulate=accumulate, ema=ema)
    whole, history = run(steps=200, recipe=recipe)
    run(steps=200, recipe=recipe, until=100, folder=tmp_path)
    parts, resumed = run(steps=200, recipe=recipe, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))
    assert history.columns == resumed.columns
    assert len(history) == 200


def test_a_longer_training_at_constant_rate_continues_a_shorter_one(tmp_path):
    recipe = Recipe(schedule="constant", warmup=5)
    whole, _ = run(steps=200, recipe=recipe)
    run(steps=100, recipe=recipe, folder=tmp_path)
    parts, _ = run(steps=200, recipe=recipe, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))


def test_super_batches_resume_exactly_too(tmp_path):
    x0 = torch.randn(60, 2, generator=cf.generator(1))

    def batches():
        return cf.pairing.paired_batches(x0, x0 + 3, batch_size=8, ot_batch_size=16, generator=cf.generator(0))

    whole, _ = run(steps=50, batches=batches())
    run(steps=50, batches=batches(), until=23, folder=tmp_path)
    parts, _ = run(steps=50, batches=batches(), folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))


def test_plain_iterables_resume_by_skipping(tmp_path):
    batches = [cf.Batch(*torch.randn(2, 8, 2, generator=cf.generator(k))) for k in range(30)]
    whole, _ = run(steps=30, batches=batches)
    run(steps=30, batches=batches, until=11, folder=tmp_path)
    parts, _ = run(steps=30, batches=batches, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))


def test_the_seed_decides_everything():
    first, again, other = run()[0], run()[0], run(seed=8)[0]
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def distance(field, batch, *, generator):
    """An objective without randomness."""
    return {"loss": (field(torch.zeros(len(batch.x0)), batch.x0, None) - batch.x1).square().mean()}


def test_two_half_batches_accumulated_equal_one_batch():
    x0, x1 = torch.randn(2, 32, 2, generator=cf.generator(0))
    halves = [cf.Batch(x0[:16], x1[:16]), cf.Batch(x0[16:], x1[16:])] * 10
    distance.velocity = None
    whole, _ = run(objective=distance, batches=[cf.Batch(x0, x1)] * 10, steps=10)
    parts, _ = run(
        objective=distance, batches=halves, steps=10, recipe=Recipe(warmup=5, learning_rate=1e-2, accumulate=2)
    )
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6)


def test_the_field_is_left_with_averaged_weights():
    last, _ = run(recipe=Recipe(warmup=5, ema=0, schedule="constant"))
    averaged, _ = run(recipe=Recipe(warmup=5, ema=0.99, schedule="constant"))
    start = weights(make_field())
    assert not torch.equal(weights(last), weights(averaged))
    assert (weights(averaged) - start).norm() < (weights(last) - start).norm()


def test_the_average_is_the_moving_average_of_the_weights(tmp_path):
    """Against the recursion, from weights saved at every step."""
    recipe, trail = Recipe(warmup=2, ema=0.25), []
    for until in range(1, 7):
        run(recipe=recipe, steps=6, until=until, folder=tmp_path, resume=until > 1)
        tensors, _ = load_tensors(tmp_path / STATE)
        trail.append((tensors["field.last.bias"], tensors["average.11"]))
    expected = trail[0][0]
    for count, (current, found) in enumerate(trail):
        decay = min(0.25, count / (count + 9))
        expected = decay * expected + (1 - decay) * current
        assert torch.allclose(found, expected, atol=1e-7)


def test_the_time_left_is_told_after_five_steps_where_there_is_no_bar(monkeypatch, caplog):
    monkeypatch.setattr("cellflow.training.run.WORTH_SAYING", 0)
    with caplog.at_level("INFO", logger="cellflow"):
        run(steps=8)
    assert re.fullmatch(r"training: step 5 of 8, \S+ s a step; about 0 s left", caplog.messages[-1])
    monkeypatch.setattr("cellflow.training.run.WORTH_SAYING", 30)  # who waits no minute wants no estimate
    caplog.clear()
    run(steps=8)
    assert not [message for message in caplog.messages if "left" in message]


def test_the_first_look_comes_in_time_and_changes_nothing():
    seen = []
    look = {"watch": lambda history: seen.append(len(history)), "watch_every": 6}
    plain, first = (run(steps=8, run=Run(**look, watch_first=minutes))[1]["loss"] for minutes in (None, 1e-9))
    assert seen == [6, 8, 1, 6, 8]
    assert plain == first
    with pytest.raises(ValueError, match="watch_first > 0"):
        Run(watch_first=0.0)


def test_a_warmup_below_one_is_a_share_of_the_steps_and_from_one_on_a_count():
    share, count = Recipe(warmup=0.2), Recipe(warmup=20)
    assert [share.rate_at(step, steps=100) for step in range(100)] == [
        count.rate_at(step, steps=100) for step in range(100)
    ]
    assert (share.warmup_steps(50), count.warmup_steps(50), Recipe(warmup=1).warmup_steps(50)) == (10, 20, 1)
    for wrong in (1.5, -0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="warmup"):
            Recipe(warmup=wrong)


def test_learning_rate_rises_then_falls_and_is_recorded():
    _, history = run(steps=100, recipe=Recipe(learning_rate=1.0, warmup=10, clip=None))
    rates = history["learning_rate"]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] < 0.001


def test_clipping_bounds_the_step():
    batch = [cf.Batch(torch.zeros(4, 2), torch.full((4, 2), 1e6))] * 5
    sgd_like = Recipe(warmup=0, clip=1e-12, weight_decay=0, ema=0)  # far below Adam's epsilon: nothing moves
    moved, _ = run(objective=distance, batches=batch, steps=5, recipe=sgd_like)
    free, _ = run(objective=distance, batches=batch, steps=5, recipe=Recipe(warmup=0, clip=None, weight_decay=0, ema=0))
    start = weights(make_field())
    assert (weights(moved) - start).abs().max() < 1e-5 < (weights(free) - start).abs().max()


def test_mixed_precision_is_close_to_full_precision_but_not_equal():
    full, half = (run(steps=20, recipe=Recipe(warmup=5, precision=kind)) for kind in ("32", "bf16"))
    assert half[1]["loss"] != full[1]["loss"]
    assert half[1]["loss"] == pytest.approx(full[1]["loss"], rel=0.02)
    assert {weight.dtype for weight in half[0].parameters()} == {torch.float32}


@pytest.mark.parametrize("ema", [0.0, 0.99])
@pytest.mark.parametrize("precision", ["32", 32, "64", 64, "bf16"])
def test_every_precision_trains_with_and_without_averaging(precision, ema):
    _, history = run(steps=3, recipe=Recipe(precision=precision, ema=ema))
    assert all(torch.isfinite(torch.tensor(history["loss"])))


def test_double_precision_is_double():
    field, _ = run(
        field=make_field().double(),
        steps=2,
        recipe=Recipe(precision="64"),
        batches=[cf.Batch(*torch.randn(2, 8, 2, generator=cf.generator(0), dtype=torch.float64))] * 2,
    )
    assert {weight.dtype for weight in field.parameters()} == {torch.float64}


def test_nan_loss_names_the_step_and_keeps_the_last_good_state(tmp_path):
    good, bad = cf.Batch(torch.zeros(4, 2), torch.ones(4, 2)), cf.Batch(torch.full((4, 2), torch.nan), torch.ones(4, 2))
    with pytest.raises(FloatingPointError, match="nan at step 26: its batch holds NaN or infinity"):
        run(batches=[good] * 25 + [bad] * 5, steps=30, folder=tmp_path, save_every=20)
    _, about = load_tensors(tmp_path / STATE)
    assert about["step"] == 20


def test_control_c_saves_says_how_to_resume_and_resumes_exactly(tmp_path):
    whole, _ = run(steps=40)

    def interrupting(field, batch, *, generator):
        interrupting.calls += 1
        if interrupting.calls == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return VelocityMatching()(field, batch, generator=generator)

    interrupting.calls = 0
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="step 17 of 40.*resume=True"):
        run(objective=interrupting, steps=40, folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    parts, _ = run(steps=40, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))


class Reads(TorchDispatchMode):
    """Counts what waits for a device: numbers that are read back, and results whose size depends on numbers."""

    WAITING = ("_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "_unique2")
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in self.WAITING
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("masses", [None, (1.0, 2.0, 3.0)])
def test_a_step_waits_for_nothing_that_a_device_has_to_tell(masses):
    clouds = [torch.randn(30, 2, generator=cf.generator(k)) + k for k in range(3)]
    batches = cf.pairing.snapshot_batches(
        clouds, [0.0, 0.4, 1.0], batch_size=8, generator=cf.generator(), masses=masses, coupling="exact"
    )
    objective = VelocityMatching() if masses is None else cf.objectives.GrowthMatching()
    counts = []
    for steps in (10, 30):
        field = make_field()
        if masses is not None:
            with seeded(cf.generator()):
                field = cf.networks.Heads(cf.networks.MLP(dim=2, width=8, heads=2), growth="shared")
        with Reads() as reads:
            run(field, objective=objective, batches=batches, steps=steps)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0  # the seed is drawn, and weights are checked, once


def test_terms_are_read_as_the_numbers_that_they_are():
    def terms(field, batch, *, generator):
        loss = VelocityMatching()(field, batch, generator=generator)["loss"]
        return {"loss": loss, "double": torch.tensor(1 / 3, dtype=torch.float64), "whole": torch.tensor([3])}

    _, history = run(objective=terms, steps=3, recipe=replace(QUICK, warmup=0))
    assert history["double"] == [1 / 3] * 3
    assert history["whole"] == [3] * 3
    assert history["learning_rate"][0] == QUICK.learning_rate


@pytest.mark.parametrize(
    ("way", "device", "steps", "accumulate", "processes", "mode"),
    [
        (True, "cpu", 5, 2, 2, "default"),
        ("graphs", "cuda", 5, 1, 1, "reduce-overhead"),
        ("auto", "cuda", 10**5, 1, 1, "reduce-overhead"),
        ("auto", "cuda", 10**5, 2, 1, None),
        ("auto", "cuda", 10**5, 1, 2, None),
        ("auto", "cuda", 500, 1, 1, None),
        ("auto", "cpu", 10**5, 1, 1, None),
        (False, "cuda", 10**5, 1, 1, None),
    ],
)
def test_graphs_are_for_one_gpu_one_batch_per_step_and_long_trainings(
    way, device, steps, accumulate, processes, mode, monkeypatch
):
    field, found = make_field(), []
    monkeypatch.setattr(torch, "compile", lambda module, mode: found.append(mode or "default") or module)
    about = {"steps": steps, "device": torch.device(device), "processes": processes}
    assert compiled(field, Recipe(compile=way, accumulate=accumulate), **about) is field
    assert found == ([] if mode is None else [mode])


def test_graphs_without_a_gpu_are_refused_with_what_to_ask_for():
    with pytest.raises(ValueError, match=r"process\(es\) on cpu.*'auto'"):
        run(steps=2, recipe=Recipe(compile="graphs"))


@pytest.mark.slow
def test_compiled_training_learns_as_plain_training_does():
    plain, compiled = (run(steps=30, recipe=Recipe(warmup=5, compile=flag))[1]["loss"] for flag in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "linear"}, "'cosine', 'constant'"),
        ({"precision": "16"}, "'32', '64', 'bf16'"),
        ({"compile": "always"}, "'auto', 'graphs'"),
        ({"ema": 1.0}, "ema < 1"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"accumulate": 0}, "accumulate >= 1"),
        ({"clip": 0.0}, "clip > 0"),
    ],
)
def test_impossible_recipes_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**settings)


def test_resuming_refuses_what_does_not_fit(tmp_path):
    run(steps=20, folder=tmp_path)
    with torch.random.fork_rng():
        narrow = cf.networks.MLP(dim=2, width=8, depth=1)
    for changed, words in (
        ({"seed": 8}, "another seed"),
        ({"recipe": Recipe(warmup=5, learning_rate=3e-3)}, "recipe.learning_rate 0.01, not 0.003"),
        ({"field": narrow}, "do not fit"),
        ({"steps": 10}, None),
    ):
        kind = ValueError if words is None else CheckpointError
        with pytest.raises(kind, match=words or "20 were taken"):
            run(folder=tmp_path, resume=True, **changed)


def test_damaged_and_foreign_states_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="No file"):
        run(folder=tmp_path, resume=True)
    run(steps=20, folder=tmp_path)
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="truncated"):
        run(folder=tmp_path, resume=True)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not saved by cellflow"):
        run(folder=tmp_path, resume=True)
    save_tensors(path, {"field.weight": torch.zeros(2)}, {"kind": "training", "step": 3, "seed": 1})
    with pytest.raises(CheckpointError, match=r"another version of cellflow: it lacks \['history', 'settings'\]"):
        run(folder=tmp_path, resume=True)
    save_tensors(path, {"field.weight": torch.zeros(2)}, {"kind": "model"})
    with pytest.raises(CheckpointError, match="not a training state"):
        run(folder=tmp_path, resume=True)


def test_a_training_is_never_overwritten(tmp_path):
    run(steps=20, folder=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"):
        run(steps=20, folder=tmp_path)
    _, about = load_tensors(tmp_path / STATE)
    assert about["step"] == 20


def test_what_a_training_is_about_must_be_the_same(tmp_path):
    run(steps=20, folder=tmp_path, about={"cells": "abc", "path": {"sigma": 0.1}})
    with pytest.raises(CheckpointError, match=r"path.sigma 0.1, not 0.2"):
        run(folder=tmp_path, resume=True, about={"cells": "abc", "path": {"sigma": 0.2}})
    run(folder=tmp_path, resume=True, about={"cells": "abc", "path": {"sigma": 0.1}})


def test_two_trainings_may_run_in_two_threads():
    from concurrent.futures import ThreadPoolExecutor

    alone = weights(run(steps=80)[0])
    fields = [make_field(), make_field()]
    with ThreadPoolExecutor(2) as pool:
        for field, _ in pool.map(lambda field: run(field, steps=80), fields):
            assert torch.equal(weights(field), alone)


def test_tied_weights_are_saved_and_come_back(tmp_path):
    def tied():
        field = make_field()
        field.blocks[0].outer.weight = field.blocks[0].inner.weight
        return field

    whole, _ = run(tied(), steps=20)
    run(tied(), steps=20, until=10, folder=tmp_path)
    parts, _ = run(tied(), steps=20, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))


def test_saved_tensors_come_back_and_an_old_file_survives_a_failed_write(tmp_path):
    path = tmp_path / "kept.safetensors"
    save_tensors(path, {"a": torch.arange(3)}, {"note": "é"})
    with pytest.raises(TypeError):
        save_tensors(path, {"a": torch.arange(4)}, {"note": {1, 2}})
    tensors, about = load_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(3))
    assert about == {"note": "é"}


def test_history_is_a_table(tmp_path):
    _, history = run(steps=20)
    frame = history.to_frame()
    assert list(frame.columns) == ["loss", "learning_rate"]
    assert frame.index[0] == 1
    history.to_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text().startswith("step,loss,learning_rate\n1,")
    assert json.dumps(history.columns)
    assert len(History()) == 0


def test_ctrl_c_between_the_last_look_and_the_end_is_passed_on():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as outer:
        with Interrupt():
            signal.raise_signal(signal.SIGINT)  # nobody looks at the inner one any more
        assert outer.pending
        outer.pending = False
    with pytest.raises(KeyboardInterrupt), Interrupt():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


class Pairs(torch.utils.data.Dataset):
    """Points one by one, moved a little at random, from torch's global state, each time they are asked for."""

    def __init__(self, n=24):
        self.x = torch.randn(n, 2, generator=cf.generator(2))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.x[index] + 3 + 0.1 * torch.randn(2)


def collated(rows):
    return cf.Batch(*(torch.stack(side) for side in zip(*rows, strict=True)))


def loader():
    return torch.utils.data.DataLoader(Pairs(), batch_size=8, shuffle=True, collate_fn=collated)


def test_a_data_loader_is_shuffled_by_the_seed_and_resumes_exactly(tmp_path):
    """Its order, and what its data set draws, come from torch's global state, which the seed decides meanwhile."""
    whole, _ = run(batches=loader(), steps=20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again, _ = run(batches=loader(), steps=20)
    other, _ = run(batches=loader(), steps=20, seed=8)
    assert torch.equal(weights(whole), weights(again))
    assert not torch.equal(weights(whole), weights(other))
    run(batches=loader(), steps=20, until=7, folder=tmp_path)
    parts, _ = run(batches=loader(), steps=20, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))


def test_a_data_loader_with_workers_feeds_the_same_batches():
    whole, _ = run(batches=[cf.Batch(torch.zeros(4, 2), torch.ones(4, 2))], steps=5)
    rows = [cf.Batch(torch.zeros(4, 2), torch.ones(4, 2))] * 3
    batches = torch.utils.data.DataLoader(rows, batch_size=None, num_workers=1, multiprocessing_context="fork")
    found, _ = run(batches=batches, steps=5)
    assert torch.equal(weights(whole), weights(found))


def test_batches_that_can_begin_again_do(tmp_path):
    batches = [cf.Batch(*torch.randn(2, 8, 2, generator=cf.generator(k))) for k in range(3)]
    whole, _ = run(batches=batches * 4, steps=12)
    for again in (batches, tuple(batches)):
        found, _ = run(batches=again, steps=12)
        assert torch.equal(weights(whole), weights(found))
    found, _ = run(batches=(batch for batch in batches * 4), steps=12)
    assert torch.equal(weights(whole), weights(found))


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (lambda: iter([cf.Batch(torch.zeros(4, 2), torch.ones(4, 2))] * 12), ValueError, "after 12, and 60 are needed"),
        (list, ValueError, "after 0, and 60 are needed"),
        (lambda: [(torch.zeros(4, 2), torch.ones(4, 2))], TypeError, "`cellflow.Batch`; found tuple"),
        (lambda: 3, TypeError, "not iterable"),
    ],
    ids=["dry", "empty", "tuples", "number"],
)
def test_batches_that_will_not_do_are_refused(batches, error, words):
    with pytest.raises(error, match=words):
        run(batches=batches(), steps=30, recipe=Recipe(warmup=5, accumulate=2))


def test_a_batch_in_double_precision_trains_a_single_field():
    single = cf.Batch(*torch.randn(2, 8, 2, generator=cf.generator(0)), condition=None)
    one, other = (run(batches=[batch], steps=5)[0] for batch in (single, single.to("cpu", torch.float64)))
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("steps", [7, 25])
def test_every_step_is_told_once_and_in_order(steps):
    told = []
    _, history = run(steps=steps, on_step=lambda step, terms: told.append((step, dict(terms))))
    assert [step for step, _ in told] == list(range(1, steps + 1))
    assert [terms["loss"] for _, terms in told] == history["loss"]
    assert set(told[0][1]) == {"loss", "learning_rate"}


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_looking_on_changes_nothing_and_shows_the_averaged_weights(ema, dropout):
    """Whoever looks sees what a training that ends there leaves behind, even where looking draws random numbers."""
    recipe = Recipe(warmup=5, ema=ema, schedule="constant")

    class Calling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.drop = make_field(), torch.nn.Dropout(dropout)

        def forward(self, t, x, condition=None):
            return self.drop(self.net(t, x, condition))

    watched, seen = Calling(), {}

    def watch(history):
        with torch.random.fork_rng(devices=[]):
            assert not watched.training
            seen[len(history)] = weights(watched).clone()
            torch.rand(3)

    kept = Run(watch=watch, watch_every=8)
    _, history = run(watched, steps=20, recipe=recipe, run=kept)
    plain, expected = run(Calling(), steps=20, recipe=recipe)
    assert torch.equal(weights(watched), weights(plain))
    assert history.columns == expected.columns
    assert list(seen) == [8, 16, 20]
    for step, found in seen.items():
        assert torch.equal(found, weights(run(Calling(), steps=step, recipe=recipe)[0]))


def test_looks_go_on_where_a_training_is_resumed(tmp_path):
    seen = []
    for until, resume in ((11, False), (20, True)):
        kept = Run(tmp_path, resume=resume, watch=lambda history: seen.append(len(history)), watch_every=5)
        run(steps=20, until=until, run=kept)
    assert seen == [5, 10, 11, 15, 20]


def test_a_look_that_fails_stops_the_training_and_keeps_its_state(tmp_path):
    def watch(history):
        raise RuntimeError("no paper left")

    with pytest.raises(RuntimeError, match="no paper left"):
        run(steps=20, run=Run(tmp_path, watch=watch, watch_every=5, save_every=5))
    whole, _ = run(steps=20)
    parts, _ = run(steps=20, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"resume": True}, ValueError, "without a `folder`"),
        ({"save_every": 0}, ValueError, "save_every >= 1; found 0"),
        ({"watch_every": 0}, ValueError, "watch_every >= 1; found 0"),
        ({"watch": 3}, TypeError, "`watch` to be a function"),
    ],
)
def test_impossible_runs_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        Run(**settings)


class Second:
    """A Fabric that says of itself that it is not the first process."""

    def __init__(self):
        from lightning_fabric import Fabric

        self.real, self.waited, self.is_global_zero = Fabric(accelerator="cpu", devices=1), 0, False

    def __getattr__(self, name):
        return getattr(self.real, name)

    def barrier(self):
        self.waited += 1


def test_a_process_that_is_not_the_first_waits_and_writes_nothing(tmp_path):
    seen, fabric = [], Second()
    kept = Run(tmp_path / "state", watch=seen.append, watch_every=4, save_every=4, fabric=fabric)
    field, _ = run(steps=10, run=kept, on_step=lambda step, terms: seen.append(step))
    assert (seen, fabric.waited) == ([], 3)
    assert not (tmp_path / "state").exists()
    assert torch.equal(weights(field), weights(run(steps=10)[0]))


def shared_training(rank, port, folder):
    """What each of two processes does: train together, watched by the first."""
    from lightning_fabric import Fabric

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    seen, told = [], []
    kept = Run(folder / "state", watch=lambda history: seen.append(len(history)), watch_every=4, fabric=fabric)
    watched, _ = run(steps=10, run=kept, on_step=lambda step, terms: told.append(step))
    plain, _ = run(steps=10, run=Run(fabric=fabric))
    found = {"watched": weights(watched), "plain": weights(plain)}
    torch.save(found | {"seen": torch.tensor(seen), "told": torch.tensor(told)}, folder / f"{rank}.pt")


@pytest.mark.slow
def test_of_several_processes_the_first_watches_and_the_others_wait(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(shared_training, args=(port, tmp_path), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for found in (first, second):
        assert torch.equal(found["watched"], found["plain"])
        assert torch.equal(found["plain"], first["plain"])
    assert first["seen"].tolist() == [4, 8, 10]
    assert first["told"].tolist() == list(range(1, 11))
    assert len(second["seen"]) == len(second["told"]) == 0


def test_settings_that_became_a_run_still_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(FutureWarning, match=r"`fit\(run=Run\(folder='kept', save_every=20\)\)`"):
        fit(
            make_field(),
            VelocityMatching(),
            make_batches(),
            steps=5,
            generator=cf.generator(7),
            folder="kept",
            save_every=20,
        )
    assert load_tensors(tmp_path / "kept" / STATE)[1]["step"] == 5
    with pytest.raises(TypeError, match="unexpected keyword argument 'path'"):
        fit(make_field(), VelocityMatching(), make_batches(), steps=5, generator=cf.generator(7), path=tmp_path)
