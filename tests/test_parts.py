"""Contracts of the parts: the lists are complete; parts print, compare, pickle and come from YAML."""

import dataclasses
import importlib
import inspect
import math
import pickle
import typing

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from parts import (
    ALL_CONDITIONS,
    ALL_COSTS,
    ALL_COUPLINGS,
    ALL_CURVES,
    ALL_METRICS,
    ALL_MODEL_COUPLINGS,
    ALL_NETWORKS,
    ALL_OBJECTIVES,
    ALL_PATHS,
    ALL_RECIPES,
    ALL_RUNS,
    ALL_SOLVERS,
    ALL_TABLES,
    ALL_TIME_LAWS,
    COUPLINGS_OF_THEIR_OWN_POINTS,
)
from torch import nn

import cellflow as cf
from cellflow import couplings, integrate, metrics, networks, objectives, pairing, paths, training
from cellflow.errors import CheckpointError
from conftest import make_cells

PARTS = [
    *ALL_PATHS, *ALL_TIME_LAWS, *ALL_COUPLINGS.values(), *ALL_COSTS, *ALL_OBJECTIVES, *ALL_SOLVERS, *ALL_CURVES,
    *ALL_MODEL_COUPLINGS, *ALL_RECIPES, *ALL_RUNS, *ALL_TABLES.values(), couplings.Given(), *ALL_CONDITIONS,
]  # fmt: skip
each_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
ROOMS = (
    "paths", "couplings", "networks", "integrate", "objectives", "cells", "images", "metrics", "pairing", "training",
)  # fmt: skip
"""What lies below the estimators."""


def exported(room, kind):
    """The classes of a room that are final and of a kind: a base class, or what a predicate says."""
    classes = [thing for thing in (getattr(room, name) for name in room.__all__) if inspect.isclass(thing)]
    final = [one for one in classes if not inspect.isabstract(one) and not getattr(one, "_is_protocol", False)]
    return {one for one in final if (issubclass(one, kind) if inspect.isclass(kind) else kind(one))}


def calls_with(*names):
    """Whether instances of a class are called with these words first."""
    return lambda kind: (
        dataclasses.is_dataclass(kind)
        and any("__call__" in vars(base) for base in kind.__mro__)
        and tuple(inspect.signature(kind.__call__).parameters)[1 : 1 + len(names)] == names
    )


def types(parts):
    return {type(part) for part in parts}


def test_every_path_and_time_law_is_listed():
    assert exported(paths, paths.GaussianPath) == types(ALL_PATHS)
    assert exported(paths, paths.TimeLaw) == types(ALL_TIME_LAWS)


def test_every_coupling_and_cost_is_listed():
    found = types(ALL_COUPLINGS.values()) | types(COUPLINGS_OF_THEIR_OWN_POINTS)
    assert exported(couplings, calls_with("x0", "x1")) - types(ALL_COSTS) == found
    squares = exported(couplings, lambda kind: calls_with("x0", "x1")(kind) or calls_with("x", "y")(kind))
    assert squares - found == types(ALL_COSTS)


def test_every_objective_is_listed():
    assert exported(objectives, calls_with("field", "batch")) - {objectives.FlowMapObjective} == types(ALL_OBJECTIVES)


def test_every_solver_is_listed():
    assert set(typing.get_args(integrate.Solver)) == types(ALL_SOLVERS)
    assert set(ALL_TABLES) >= set(integrate.TABLES)


def test_every_curve_and_coupling_of_a_model_is_listed():
    curves = exported(pairing, lambda kind: hasattr(kind, "bends")) | exported(training, lambda k: hasattr(k, "bends"))
    assert curves == types(ALL_CURVES)
    assert exported(training, calls_with("field", "objective", "x0", "x1")) == types(ALL_MODEL_COUPLINGS)


def test_every_network_is_listed():
    found = {type(make()) for make, _ in ALL_NETWORKS.values()}
    assert exported(networks, nn.Module) - {networks.TimeEmbedding, networks.EndGuess, networks.VelocityGuess} == found


@pytest.mark.parametrize("room", ROOMS)
def test_every_record_that_is_exported_is_frozen(room):
    """What is made once is never changed, whether a part or a result."""
    found = importlib.import_module(f"cellflow.{room}")
    records = exported(found, lambda kind: dataclasses.is_dataclass(kind) and kind.__module__.startswith("cellflow"))
    assert [kind.__name__ for kind in records if not kind.__dataclass_params__.frozen] == []


def test_every_metric_is_listed():
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert functions - {"fid"} == set(ALL_METRICS)


@pytest.mark.parametrize("name", ALL_METRICS)
@pytest.mark.usefixtures("global_state_is_untouched")
def test_a_metric_says_the_same_twice(name):
    first, second = (torch.as_tensor(ALL_METRICS[name](metrics)).double() for _ in range(2))
    assert first.isfinite().all()
    assert torch.equal(first, second)


@each_part
def test_a_part_is_frozen_and_compares_by_value(part):
    assert dataclasses.is_dataclass(part)
    again = dataclasses.replace(part)
    assert again == part
    assert hash(again) == hash(part)
    assert part != object()
    for field in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field.name, None)


@each_part
def test_a_part_prints_what_it_is(part):
    """What is printed makes the part again, apart from functions of one's own."""
    shown = repr(part)
    assert shown.startswith(f"{type(part).__name__}(")
    assert "<" not in shown or "<function" in shown
    if "<" not in shown:
        names = {type(one).__name__: type(one) for one in PARTS}
        assert eval(shown, names | {"inf": math.inf, "Relative": couplings.Relative}) == part


@each_part
def test_a_part_pickles(part):
    if "<lambda>" in repr(part):
        pytest.skip("functions written on the spot do not pickle")
    assert pickle.loads(pickle.dumps(part)) == part


def as_settings(value):
    """A part as it stands in a YAML file."""
    if dataclasses.is_dataclass(value):
        kind, fields = type(value), dataclasses.fields(value)
        settings = {field.name: as_settings(getattr(value, field.name)) for field in fields if field.init}
        room = next(room for room in ROOMS if hasattr(importlib.import_module(f"cellflow.{room}"), kind.__name__))
        return {"_target_": f"cellflow.{room}.{kind.__name__}"} | settings
    return [as_settings(inner) for inner in value] if isinstance(value, tuple) else value


@each_part
def test_a_part_comes_from_yaml(part):
    if "<lambda>" in repr(part):
        pytest.skip("functions written on the spot have no name")
    settings = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(as_settings(part))))
    made = instantiate(settings, _convert_="all")
    assert type(made) is type(part)
    assert as_settings(made) == as_settings(part) or repr(made).replace("[", "(").replace("]", ")") == repr(part)


@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_a_network_is_called_with_time_state_and_condition(name, rng):
    make, shape = ALL_NETWORKS[name]
    network = make()
    assert tuple(inspect.signature(network.forward).parameters) == ("t", "x", "condition")
    found = network(torch.rand(shape[0], generator=rng), torch.randn(shape, generator=rng), None)
    assert cf.fields.outputs(found).velocity.shape == shape


@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_an_objective_is_called_alike(objective):
    field, batch, generator = inspect.signature(objective).parameters.values()
    assert (field.name, batch.name, generator.name) == ("field", "batch", "generator")
    assert generator.kind is generator.KEYWORD_ONLY
    assert set(objective.heads) <= {"score", "growth"}


@pytest.mark.parametrize("coupling", [*ALL_COUPLINGS.values(), *COUPLINGS_OF_THEIR_OWN_POINTS], ids=repr)
def test_a_coupling_is_called_alike_and_says_what_it_needs(coupling):
    assert list(inspect.signature(coupling).parameters) == ["x0", "x1", "a", "b"]
    assert isinstance(coupling.keeps_mass, bool)
    assert isinstance(coupling.memory(3, 3), int)


def functions():
    """Public functions and methods below the estimators, by the name they are called by."""
    for room in ROOMS:
        found = importlib.import_module(f"cellflow.{room}")
        for name in found.__all__:
            thing = getattr(found, name)
            if inspect.isfunction(thing):
                yield f"{room}.{name}", thing
            if inspect.isclass(thing) and thing.__module__.startswith("cellflow"):
                methods = [(key, value) for key, value in vars(thing).items() if inspect.isfunction(value)]
                yield from ((f"{room}.{name}.{k}", v) for k, v in methods if not k.startswith("_") or k == "__call__")


@pytest.mark.parametrize("function", [pytest.param(thing, id=name) for name, thing in functions()])
def test_randomness_and_devices_are_arguments(function):
    """Below the estimators a generator is given, never a seed, and the device is that of the data.

    A `Run` says where a training lives, and on which devices.
    """
    parameters = inspect.signature(function).parameters
    assert "seed" not in parameters
    assert "device" not in parameters or function.__name__ in ("to", "joined")
    if "generator" in parameters:
        assert parameters["generator"].kind is inspect.Parameter.KEYWORD_ONLY
    names = list(parameters)
    for before, after in (("t", "x"), ("s", "t"), ("x", "condition"), ("x0", "x1")):
        if before in names and after in names:
            assert names.index(before) < names.index(after), names


@pytest.mark.parametrize("function", [pytest.param(thing, id=name) for name, thing in functions()])
def test_a_switch_is_never_given_by_position(function):
    """`f(x, True)` says nothing: what is true or false by default has its name said."""
    loose = [
        p.name for p in inspect.signature(function).parameters.values()
        if isinstance(p.default, bool) and p.kind is not p.KEYWORD_ONLY
    ]  # fmt: skip
    assert loose == []


@dataclasses.dataclass(frozen=True)
class Power(paths.GaussianPath):
    """A path that no room exports yet."""

    power: float = 2.0

    def coefficients(self, t):
        return 1 - t**self.power, t**self.power, torch.full_like(t, self.sigma)


def test_a_part_that_a_room_exports_is_saved_loaded_and_named_in_yaml(monkeypatch, tmp_path):
    adata = make_cells()
    flow = cf.SnapshotFlow(time_key="day", path=Power(power=3.0), steps=2, batch_size=4, device="cpu").fit(adata)
    flow.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"`path` of this model is not a part of cellflow .*load\(folder, path="):
        cf.SnapshotFlow.load(tmp_path)
    assert cf.SnapshotFlow.load(tmp_path, path=Power(power=3.0)).path == Power(power=3.0)
    monkeypatch.setattr(paths, "Power", Power, raising=False)
    monkeypatch.setattr(paths, "__all__", [*paths.__all__, "Power"])
    flow.save(tmp_path, overwrite=True)
    back = cf.SnapshotFlow.load(tmp_path, device="cpu")
    assert back.path == Power(power=3.0)
    x = adata.obsm["X_pca"][:3]
    assert torch.equal(back.transport(x, start=0, stop=5).x, flow.transport(x, start=0, stop=5).x)
    assert instantiate({"_target_": "cellflow.paths.Power", "power": 3.0}) == Power(power=3.0)
