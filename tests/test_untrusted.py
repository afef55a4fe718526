"""Files that a stranger wrote: they load, or one sentence says what is wrong; fast, and with little memory."""

import gzip
import json
import math
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import damaged_tensors, descriptions
from safetensors import safe_open
from safetensors.torch import save_file
from test_estimators import ALL_ESTIMATORS, CELLS

import cellflow as cf
from cellflow.cells.h5ad import read_adata
from cellflow.errors import CheckpointError
from cellflow.estimators.model_files import DIGESTS
from cellflow.estimators.serialize import modernise_training
from cellflow.images.arrays import read_arrays
from cellflow.objectives import VelocityMatching
from cellflow.report import few_steps
from cellflow.training import Recipe, Reflow
from cellflow.training.checkpoint import STATE, load_tensors, save_tensors
from cellflow.training.reading import parse_json, read_header

SLOW = 2.0
"""Seconds that no file may take; a whole one takes 0.02."""


def saved(name, folder):
    """A fitted and distilled model of an estimator, in a folder."""
    kind = ALL_ESTIMATORS[name]
    model = kind().fit(*kind.data)
    if "distill" in kind.verbs:
        kind.verbs["distill"](model)
    model.save(folder)
    return type(model)


def outcome(load):
    """``None`` where something loads, else what is said; nothing else may happen."""
    began = time.thread_time()
    try:
        load()
        said = None
    except CheckpointError as error:
        said = str(error)
    assert time.thread_time() - began < SLOW
    assert said is None or (re.search(r"[.)]$", said) and "\n" not in said and len(said) < 600), said
    return said


@pytest.fixture(scope="module", params=ALL_ESTIMATORS)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return saved(request.param, folder), folder


HARMLESS = re.compile(
    r"settings\.(device|steps|batch_size|seed|progress|recipe|coupling|curve|heads|guess|masses|time_key|rep|within\w*|flip"
    r"|weight_key|prior_key|ensemble|replicate_key|regularize|ot_batch_size|features|growth|stochastic|standardize|conditional|network\.values"
    r"|condition_dropout|path\.values\.sigma|control|conditions)"
    r"|learned\.(arms\.(group|cells|controls)|conditions\.(dose|units|categories|numbers|levels|moments|scales|control|separator|trained)|\w*history|n_cells|turnover|matching|masses|blur|unit|shape|classes|growth|times|fingerprint)|flow_map|digests"
)
"""Of which some changes load: values that are as good, or that only a further training asks for."""
NONE = {"learned.conditions", "learned.controls", "learned.segments"}
"""What models without conditions may leave out, as those of before do."""
NEWER = {"settings.n_pcs", "settings.autoencoder", "learned.levels"}
"""Entries that models of before lack, and that are ``None`` then; other values of them are checked."""


def test_every_entry_of_a_description_is_checked(model):
    estimator, folder = model
    path = folder / "model.json"
    whole = path.read_text()
    try:
        for place, how, text in descriptions(json.loads(whole)):
            path.write_text(text)
            said = outcome(lambda: estimator.load(folder, device="cpu"))
            if how in ("missing", "nothing") and place in NONE and estimator is not cf.PerturbationFlow:
                continue
            if how in ("missing", "nothing") and place in NEWER:
                assert said is None, (place, how)
                continue
            if how in ("digits", "deep", "more", "NaN", "list", "object", "missing"):
                assert said is not None or HARMLESS.match(place), (place, how)
            elif said is None:
                assert HARMLESS.match(place) or how == "true", (place, how)
    finally:
        path.write_text(whole)


@pytest.mark.parametrize("file", ["model.safetensors", "flow_map.safetensors"])
def test_every_tensor_of_a_model_is_checked(model, file):
    estimator, folder = model
    description, path = folder / "model.json", folder / file
    if not path.exists():
        pytest.skip(f"{estimator.__name__} has no flow map")
    whole, about = path.read_bytes(), description.read_text()
    tensors, said = load_tensors(path)
    try:
        description.write_text(json.dumps({k: v for k, v in json.loads(about).items() if k != DIGESTS}))
        for name, how, others in damaged_tensors(tensors):
            save_file(others, path, metadata={"cellflow": json.dumps(said)})
            assert outcome(lambda: estimator.load(folder, device="cpu")) is not None, (name, how)
        save_file(tensors, path, metadata={"cellflow": json.dumps({"kind": "other"})})
        assert "weights of a" in outcome(lambda: estimator.load(folder, device="cpu"))
        save_file({}, path, metadata={"cellflow": json.dumps(said)})
        assert "holds no weights" in outcome(lambda: estimator.load(folder, device="cpu"))
        wider = {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}
        save_file(wider, path, metadata={"cellflow": json.dumps(said)})
        assert outcome(lambda: estimator.load(folder, device="cpu")) is None
    finally:
        path.write_bytes(whole)
        description.write_text(about)


# Trainings.


def field(dim=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cf.networks.MLP(dim, width=4, depth=1, harmonics=1)


def train(folder, *, resume=False, steps=3, ema=0.5, about=None):
    x, rng, trained = torch.arange(8.0).view(4, 2), cf.generator(seed=0), field()
    batches = [cf.Batch(x, x + 1)]
    recipe = Recipe(warmup=2, clip=2.0, ema=ema, schedule="constant")
    run = cf.Run(folder, resume=resume)
    given = {"recipe": recipe, "run": run, "about": about or {"cells": "abc"}}
    cf.training.fit(trained, VelocityMatching(), batches, steps=steps, generator=rng, **given)
    return trained.state_dict()


STATES = {"average": 0.6, "no average": 0.0}
CHANGEABLE = re.compile(r"history\.(loss|learning_rate)\.0|settings$")


@pytest.fixture(params=STATES)
def state(request, tmp_path):
    ema = STATES[request.param]
    train(tmp_path, ema=ema)
    return tmp_path / STATE, partial(train, tmp_path, resume=True, ema=ema)


def test_every_entry_of_a_training_state_is_checked(state):
    path, resume = state
    tensors, about = load_tensors(path)
    for place, how, text in descriptions(about):
        save_file(tensors, path, metadata={"cellflow": text})
        as_good = CHANGEABLE.match(place) or place == "behind" or how == "true"  # which is 1
        assert outcome(resume) is not None or as_good, (place, how)
    for more in ({"settings": about["settings"] | {"unheard_of": 1}}, {"unheard_of": 1}):
        save_tensors(path, tensors, about | more)
        assert "unheard_of" in outcome(resume)


def test_every_tensor_of_a_training_state_is_checked(state):
    path, resume = state
    tensors, about = load_tensors(path)
    for name, how, others in damaged_tensors(tensors):
        save_file(others, path, metadata={"cellflow": json.dumps(about)})
        counts = name.endswith(".step") and how == "double"  # as torch counts where that is its default
        assert outcome(resume) is not None or counts, (name, how)
    for name, value, words in (
        ("optimizer.0.step", torch.tensor(2.0), "expected 3 updates of weight 0; found 2"),
        ("optimizer.1.step", torch.tensor(4.0), "expected 3 updates of weight 1; found 4"),
        ("optimizer.2.exp_avg_sq", -torch.ones_like(tensors["optimizer.2.exp_avg_sq"]), "below 0"),
    ):
        save_tensors(path, tensors | {name: value}, about)
        assert words in outcome(resume)
    save_tensors(path, {name: value for name, value in tensors.items() if "optimizer.2." not in name}, about)
    assert "missing tensor `optimizer.2." in outcome(resume)


class Sometimes(torch.nn.Module):
    """Of three weights one is used at early times only, and one never."""

    def __init__(self):
        super().__init__()
        self.always, self.early, self.never = (torch.nn.Parameter(torch.ones(())) for _ in range(3))

    def forward(self, t, x, condition=None):
        return self.always * x + (self.early if t.max() < 0.6 else 0.0)


def test_weights_that_are_not_always_used_are_resumed(tmp_path):
    """Their optimiser has seen fewer updates, or none: the state says so, and those of before need not."""

    def learn(folder, steps, resume=False):
        trained, x = Sometimes(), torch.ones(1, 2)
        run = None if folder is None else cf.Run(folder, resume=resume)
        given = {"generator": cf.generator(seed=0), "recipe": Recipe(schedule="constant", warmup=2, ema=0.0)}
        cf.training.fit(trained, VelocityMatching(), [cf.Batch(x, x + 1)], steps=steps, run=run, **given)
        return trained.state_dict()

    whole = learn(None, 20)
    learn(tmp_path, 12)
    tensors, about = load_tensors(tmp_path / STATE)
    assert [2, 0] in about["behind"]
    assert any(number == 1 and 0 < updates < 12 for number, updates in about["behind"])
    for said in (about, {key: value for key, value in about.items() if key != "behind"}):
        save_tensors(tmp_path / STATE, tensors, said)
        resumed = learn(tmp_path, 20, resume=True)
        assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_damaged_rounds_are_refused(tmp_path):
    def refit(resume):
        x, rng = torch.arange(8.0).view(4, 2), cf.generator(seed=0)
        run = cf.Run(tmp_path, resume=resume)
        cf.training.refit(
            field(), VelocityMatching(), x, x + 1, coupling=Reflow(solver=1), rounds=2, steps=2, generator=rng, run=run
        )  # fmt: skip

    refit(False)
    path = tmp_path / "round-0" / "generator.safetensors"
    tensors, about = load_tensors(path)
    bytes_ = tensors["state"]
    for others, said in (
        ({"state": bytes_[:-1]}, about), ({"state": bytes_.int()}, about), ({"state": 0 * bytes_}, about),
        ({"state": bytes_, "more": bytes_}, about), ({}, about), (tensors, {"kind": "model"}), (tensors, {}),
        (tensors, about | {"more": 1}),
    ):  # fmt: skip
        save_tensors(path, others, said)
        assert "does not hold the state of a generator" in outcome(partial(refit, True))
    path.unlink()
    assert "No file" in outcome(partial(refit, True))
    save_tensors(path, tensors, about)
    assert outcome(partial(refit, True)) is None


@pytest.mark.parametrize("name", ALL_ESTIMATORS)
def test_states_of_estimators_are_checked_before_they_are_converted(name, tmp_path):
    kind = ALL_ESTIMATORS[name]
    kind().fit(*kind.data, run=cf.Run(tmp_path))
    path = tmp_path / STATE
    tensors, about = load_tensors(path)

    def spoil(settings):
        said = json.dumps({key: value for key, value in about.items() if key != "settings"})
        save_file(tensors, path, metadata={"cellflow": f"{said[:-1]}, {settings[1:]}"})

    for _, _, text in descriptions({"settings": about["settings"]}):
        spoil(text)
        outcome(lambda: modernise_training(kind.make.func, tmp_path))
    for wrong in ([], {"growth": {"mapping": 3}, "score": []}, about["settings"] | {"unheard_of": 1}):
        spoil(json.dumps({"settings": wrong}))
        assert outcome(lambda: kind().fit(*kind.data, run=cf.Run(tmp_path, resume=True))) is not None


# Whatever the file: little memory, little time, no code.


HOSTILE = """
import json, resource, sys, time
from pathlib import Path
import cellflow as cf
from cellflow.errors import CheckpointError
cases = json.loads(sys.argv[1])
for folder in cases:  # everything is imported once
    getattr(cf, Path(folder).name).load(folder, device="cpu")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
for folder, large in cases.items():
    path = Path(folder) / "model.json"
    about = json.loads(path.read_text())
    for values in large:
        network = about["settings"]["network"] | {"values": values}
        path.write_text(json.dumps(about | {"settings": about["settings"] | {"network": network}}))
        began = time.thread_time()
        try:
            getattr(cf, about["estimator"]).load(folder, device="cpu")
        except CheckpointError as error:
            assert any(words in str(error) for words in ("fit this model", "cannot be made", "Expected")), error
        else:
            raise AssertionError(values)
        assert time.thread_time() - began < 5, values
print("held")
"""
LARGE = {
    "MLP": [{"width": 200_000}, {"depth": 10**6}, {"depth": 10**18}, {"harmonics": 2**31 - 1}, {"heads": 10**9},
            {"condition_dim": 10**9}, {"width": 2**31 - 1}, {"width": 10**19}, {"width": 8, "depth": 10**9},
            {"width": -5}, {"depth": -1}, {"harmonics": -4}, {"times": 0}],
    "UNet": [{"width": 200_000}, {"blocks": 10**9}, {"multipliers": [1] * 10_000}, {"multipliers": [10**9]},
             {"multipliers": [2**31 - 1, 2**31 - 1]}, {"attention": [0] * 10**4}, {"head_dim": 0}, {"width": 0},
             {"multipliers": []}, {"condition_dim": -1}],
}  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited as on Linux")
def test_large_claims_take_no_memory(tmp_path):
    """Half a gigabyte more than Python and torch take is the limit of the process."""
    cases = {}
    for name in ALL_ESTIMATORS:
        saved(name, tmp_path / name)
        network = json.loads((tmp_path / name / "model.json").read_text())["settings"]["network"]["partial"]
        cases[str(tmp_path / name)] = LARGE[network]
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, json.dumps(cases)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "held\n", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**6, "nested more than 64 deep"),
        ("[]," * 10**6 + "[]", "more than 1,000,000 times"),
        ("{}," * 10**6, "more than 100,000 times"),
        ('"' + '\\"' * 10**6, "not JSON"),
        ("1" * 10**6, "more than 20 digits"),
        ('{"a": -' + "9" * 21 + "}", "more than 20 digits"),
        pytest.param("\xff", "not JSON", id="no text"),
        ("", "not JSON"),
        ('["' + "[" * 100, "not JSON"),
    ],
)
def test_json_is_measured_before_it_is_read(text, words):
    with pytest.raises(CheckpointError, match=words):
        parse_json(text.encode("latin-1"), source="model.json")


def test_json_of_ours_is_read_as_it_is():
    ours = {"a [b": '\\"{[', "numbers": [1, -2.5, 1e-300, float("inf")], "long": [0.1] * 10**5, "seed": 2**64 - 1}
    assert parse_json(json.dumps(ours), source="model.json") == ours


class Masked(torch.nn.Module):
    """A network with a mask, as attention has one: infinite by design."""

    def __init__(self, dim):
        super().__init__()
        self.inner = cf.networks.MLP(dim, width=4, depth=1)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))

    def forward(self, t, x, condition=None):
        return self.inner(t, x, condition) * self.mask.exp().sum()


def test_what_is_infinite_by_design_is_loaded_and_resumed(tmp_path):
    x = torch.randn(40, 2, generator=cf.generator(seed=0))
    settings = {"network": Masked, "steps": 4, "batch_size": 8, "device": "cpu", "recipe": Recipe(schedule="constant")}
    model = cf.DomainTranslator(**settings).fit(x, x + 1, run=cf.Run(tmp_path))
    model.save(tmp_path)
    back = cf.DomainTranslator.load(tmp_path, device="cpu", network=Masked)
    assert torch.equal(back.translate(x), model.translate(x))
    longer = cf.DomainTranslator(**settings | {"steps": 6})
    assert len(longer.fit(x, x + 1, run=cf.Run(tmp_path, resume=True)).history_) == 6
    tensors, said = load_tensors(tmp_path / "model.safetensors")
    mask = next(name for name in tensors if name.endswith("mask"))
    save_tensors(tmp_path / "model.safetensors", tensors | {mask: torch.full((2,), math.nan)}, said)
    with pytest.raises(CheckpointError, match="mask.* holds NaN or infinity"):
        cf.DomainTranslator.load(tmp_path, device="cpu", network=Masked)


@pytest.mark.parametrize(
    "part",
    [
        {"part": name}
        for name in ("os.system", "__import__", "eval", "resolve", "GaussianPath", "fit", "PATHS", "Coupling")
    ]
    + [{"class": "os.system"}, {"partial": "fit", "values": {}}, {"partial": "resolve", "values": {"path": "linear"}}],
    ids=str,
)
def test_names_in_a_file_call_nothing_but_parts(part, tmp_path):
    estimator = saved("DomainTranslator", tmp_path)
    path = tmp_path / "model.json"
    about = json.loads(path.read_text())
    for setting in ("path", "coupling", "network", "recipe"):
        path.write_text(json.dumps(about | {"settings": about["settings"] | {setting: part}}))
        assert outcome(lambda: estimator.load(tmp_path, device="cpu")) is not None


def test_a_header_is_read_without_its_tensors(tmp_path):
    path = tmp_path / "large.safetensors"
    save_tensors(path, {"weight": torch.ones(3, 2)}, {"step": 3})
    with safe_open(path, "pt") as file:
        assert file.metadata()
    header = read_header(path)
    assert header.tensors["weight"].shape == (3, 2)
    assert header.about == {"step": 3}
    for text in ("[1]", "[" * 10**5, "null", "{"):
        save_file({"weight": torch.ones(2)}, path, metadata={"cellflow": text})
        assert outcome(lambda: read_header(path)) is not None


def test_facts_of_a_run_are_checked(tmp_path):
    from cellflow.cli import runs

    runs.write_facts(tmp_path, command="fit", seed=0, seconds={"fit": 1.0}, device="cpu")
    path = tmp_path / runs.FACTS
    for place, how, text in descriptions(json.loads(path.read_text())):
        path.write_text(text)
        good = how in ("text", "odd text", "huge", "many", "negative", "fraction", "NaN", "infinity") or "." in place
        empty = place in ("seconds", "versions")
        assert outcome(lambda: runs.details(tmp_path)) is not None or good or empty, (place, how)


def test_the_estimator_of_a_run_is_checked(tmp_path):
    from cellflow.cli import runs

    for text in ("{", "[]", "{}", '{"estimator": 3}', "[" * 10**5):
        (tmp_path / "model.json").write_text(text)
        assert outcome(lambda: runs.estimator_of(tmp_path)) is not None


FORMER_ONES = ("settings.bend", "settings.score")


def test_saved_models_of_format_1_are_checked_too(tmp_path):
    saved_ones = Path(__file__).parent / "saved"
    about = json.loads((saved_ones / "growth_two_networks" / "model.json").read_text())
    for name in ("model.safetensors", "model.json"):
        (tmp_path / name).write_bytes((saved_ones / "growth_two_networks" / name).read_bytes())
    heading = json.dumps({"format": 1, "estimator": "SnapshotFlow"})[:-1]
    for place, how, text in descriptions({key: about[key] for key in ("settings", "learned")}, few=True):
        (tmp_path / "model.json").write_text(f"{heading}, {text[1:]}")
        said = outcome(lambda: cf.SnapshotFlow.load(tmp_path, device="cpu"))
        assert said is not None or HARMLESS.match(place) or place in FORMER_ONES, (place, how)


# Data.


def spoiled(whole, *, n=60):
    """The bytes of a file with some of them changed, every fifth time cut off."""
    draw = np.random.default_rng(0)
    for number in range(n):
        found = bytearray(whole)
        for place in draw.integers(0, len(found), draw.integers(1, 20)):
            found[place] = draw.integers(256)
        yield bytes(found[: draw.integers(len(found))] if number % 5 == 0 else found)


FILES = {
    "cells.h5ad": (CELLS.write_h5ad, read_adata),
    "array.npy": (lambda path: np.save(path, PICTURES), read_arrays),
    "arrays.npz": (lambda path: np.savez_compressed(path, images=PICTURES, labels=np.arange(4)), read_arrays),
    "idx.gz": (lambda path: path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab")), read_arrays),
}
PICTURES = np.arange(144, dtype=np.uint8).reshape(4, 6, 6)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")  # of the libraries that read them
def test_damaged_data_are_refused_in_a_sentence(name, tmp_path):
    path, (write, read) = tmp_path / name, FILES[name]
    write(path)
    for data in spoiled(path.read_bytes()):
        path.write_bytes(data)
        try:
            read(path)
        except ValueError as error:
            assert name in str(error)  # noqa: PT017 (others are as good as none)


@pytest.mark.parametrize(
    "text",
    ["", "\0", "a,b\n1,2\n", "sampler,steps,W1,seconds\n", "sampler,steps,W1,seconds\njumps,x,1,1\n", '"',
     "sampler,steps,W1,seconds\njumps,0,1,1\n", "sampler,steps,W1,seconds\n1,1,1,1\n", "a,b,c,d,e\nx,1,1,1,1\n",
     "sampler,steps,FD,High frequencies,seconds\njumps,1,1,x,1\n"],
    ids=range(10),
)  # fmt: skip
def test_a_damaged_comparison_of_a_run_is_refused(text, tmp_path):
    (tmp_path / few_steps.FILE).write_text(text)
    assert "is damaged" in outcome(lambda: few_steps.section(tmp_path, tmp_path / "figures"))
