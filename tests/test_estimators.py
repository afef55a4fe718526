"""What holds for every estimator: failed fits change nothing, the precision is the model's, threads do not meet."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cellflow as cf
from cellflow.errors import ConvergenceError, NotFittedError
from cellflow.integrate import Jumps
from cellflow.training import Recipe
from conftest import make_cells, make_treated

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
QUICK = Recipe(warmup=2, learning_rate=1e-2)
CELLS = make_cells()
TREATED = make_treated()
X = torch.from_numpy(CELLS.obsm["X_pca"])
LABELS = torch.arange(24) % 2
PIXELS = torch.randint(256, (24, 1, 4, 4), generator=cf.generator(0)).to(torch.uint8)
IMAGES = cf.images.ImageSet(PIXELS, LABELS, classes=("dark", "bright"))
MLP = partial(cf.networks.MLP, width=8)
UNET = partial(cf.networks.UNet, width=8, multipliers=(1,), blocks=1)
BRIDGE = cf.paths.BrownianBridge(0.5)
ANEW = cf.training.MarkovianFitting(0.5, solver=3)


@dataclass(frozen=True)
class Kind:
    """An estimator, what it is fitted on, and everything it does once it is."""

    make: Callable[..., Any]
    data: tuple[Any, ...]
    verbs: dict[str, Callable[[Any], Any]]

    def __call__(self, **settings):
        return self.make(**{"steps": 4, "batch_size": 8, "device": "cpu", "recipe": QUICK} | settings)

    def results(self, model):
        """What the model says: states that it makes, by solver, with noise, and by jumps."""
        names = ["moved", "noisy", *(["jumped"] if model.distilled else [])]
        return [torch.as_tensor(self.verbs[name](model)) for name in names if name in self.verbs]


ALL_ESTIMATORS = {
    "SnapshotFlow": Kind(
        partial(cf.SnapshotFlow, time_key="day", network=MLP, path=BRIDGE, stochastic=True),
        (CELLS,),
        {
            "moved": lambda flow: flow.transport(X[:5], start=0, stop=5).x,
            "noisy": lambda flow: flow.simulate(X[:5], start=0, stop=5, solver=4).x,
            "jumped": lambda flow: flow.transport(X[:5], start=0, stop=5, solver=Jumps(1)).x,
            "velocity": lambda flow: flow.velocity(X[:5], 0.0),
            "growth_rate": lambda flow: flow.growth_rate(X[:5], 0.0),
            "grow": lambda flow: flow.grow(X[:5], start=0, stop=5),
            "distill": lambda flow: flow.distill(CELLS, steps=3),
        },
    ),
    "DomainTranslator": Kind(
        partial(cf.DomainTranslator, network=MLP, path=BRIDGE, stochastic=True),
        (X, X + 3),
        {
            "moved": lambda model: model.translate(X[:5]),
            "noisy": lambda model: model.simulate(X[:5], solver=4),
            "jumped": lambda model: model.translate(X[:5], solver=Jumps(1)),
            "trajectory": lambda model: model.trajectory(X[:5]),
            "refine": lambda model: model.refine(X, X + 3, rounds=2, steps=2, coupling=ANEW),
            "distill": lambda model: model.distill(X, X + 3, steps=3),
        },
    ),
    "PerturbationFlow": Kind(
        partial(cf.PerturbationFlow, conditions="drug", network=MLP, path=BRIDGE, stochastic=True),
        (TREATED,),
        {
            "moved": lambda flow: flow.transport(X[:5], condition={"drug": "A"}).x,
            "noisy": lambda flow: flow.simulate(X[:5], condition={"drug": "A+B"}, solver=4).x,
            "jumped": lambda flow: flow.transport(X[:5], condition={"drug": "A"}, solver=Jumps(1)).x,
            "velocity": lambda flow: flow.velocity(X[:5], condition={"drug": "B"}),
            "distill": lambda flow: flow.distill(TREATED, steps=3),
        },
    ),
    "ImageGenerator": Kind(
        partial(cf.ImageGenerator, network=UNET, conditional=True),
        (IMAGES,),
        {
            "moved": lambda model: model.generate(3, label="dark", guidance=2.0, solver=2).images,
            "jumped": lambda model: model.generate(3, solver=Jumps(1)).images,
            "trajectory": lambda model: model.trajectory(3, solver=8),
            "refine": lambda model: model.refine(IMAGES, rounds=2, steps=2, coupling=cf.training.Reflow(solver=2)),
            "distill": lambda model: model.distill(IMAGES, steps=3, objective="semigroup"),
        },
    ),
}  # fmt: skip
REFINED, DISTILLED = (
    [name for name, kind in ALL_ESTIMATORS.items() if verb in kind.verbs] for verb in ("refine", "distill")
)
"""Those that are trained further, and those that have flow maps."""


def test_every_estimator_is_listed():
    assert set(cf.estimators.__all__) == set(ALL_ESTIMATORS)


@pytest.fixture(params=ALL_ESTIMATORS)
def kind(request):
    return ALL_ESTIMATORS[request.param]


@pytest.fixture(params=DISTILLED)
def distilled_kind(request):
    return ALL_ESTIMATORS[request.param]


def distil(kind, model):
    """Give a model a flow map, where it can have one."""
    if "distill" in kind.verbs:
        kind.verbs["distill"](model)


KEPT_APART = {"digest_", "plans_"}
"""What is learned and not saved, which the docstring says of all that has one: plans are as large as the data."""
MORE = {
    "SnapshotFlow": [
        {"ensemble": 2, "n_pcs": 2},
        {"coupling": "auto", "growth": True, "masses": {0: 1.0, 1: 2.0, 5: 3.0}},
        {"conditions": "drug", "time_key": "time", "growth": True, "coupling": "auto"},
    ],
    "PerturbationFlow": [{"within": "donor"}],
    "ImageGenerator": [{"conditional": False}],
}
"""Settings by which an estimator learns more, or other things, than by those above."""


def in_time(treated):
    """The treated cells at time 3, and the controls at 0 too."""
    later = treated.copy()
    later.obs["time"] = np.where((later.obs["drug"] == "control") & (np.arange(len(later)) % 2 == 0), 0.0, 3.0)
    return later


@pytest.mark.parametrize(
    ("name", "settings"), [(name, more) for name in ALL_ESTIMATORS for more in ({}, *MORE.get(name, []))]
)
def test_what_was_learned_is_saved_and_loaded_but_for_plans(name, settings, tmp_path):
    kind = ALL_ESTIMATORS[name]
    data = (in_time(TREATED),) if settings.get("time_key") == "time" else kind.data
    if "growth" in settings:
        settings = settings | {"path": cf.paths.Linear(), "stochastic": False}
    model = kind(**settings).fit(*data)
    if not settings:
        distil(kind, model)
    model.save(tmp_path)
    again = type(model).load(tmp_path, device="cpu")
    learned = {name for name in vars(model) if name.endswith("_")}
    assert {name for name in learned if not hasattr(again, name)} <= KEPT_APART
    assert all(name not in learned or "Not saved" in type(model).__doc__ for name in KEPT_APART)
    for name in sorted(learned - KEPT_APART):
        assert plainly(getattr(again, name)) == plainly(getattr(model, name)), name


def plainly(value):
    """What was learned, as plain values that can be compared."""
    if isinstance(value, nn.Module):
        return {name: tensor.tolist() for name, tensor in value.state_dict().items()}
    if hasattr(value, "record"):
        return value.record()
    if hasattr(value, "field_"):  # a member
        return {
            name: plainly(one) for name, one in vars(value).items() if name.endswith("_") and name not in KEPT_APART
        }
    if isinstance(value, cf.training.History):
        return value.columns
    if isinstance(value, tuple | list):
        return [plainly(one) for one in value]
    return value.to_dict() if hasattr(value, "to_dict") else value.tolist() if hasattr(value, "tolist") else value


def weights(module):
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


class Failing(nn.Module):
    """A network that fails as it is told: by raising, or with NaN."""

    def __init__(self, dim, *, how="raise", heads=1, **_):
        super().__init__()
        self.scale, self.how, self.heads = nn.Parameter(torch.ones(())), how, heads

    def forward(self, t, x, condition=None):
        if self.how == "raise":
            raise RuntimeError("no memory left")
        return torch.cat([self.scale * torch.nan * x] * self.heads, dim=1)


def in_the_way(folder):
    """A training state that is there already."""
    (folder / "training.safetensors").write_text("something else")
    return folder


def not_writable(folder):
    """A folder that cannot be made, since a file has its name."""
    (folder / "file").write_text("")
    return folder / "file"


FAILURES = {
    "pairing": ({"coupling": cf.couplings.Sinkhorn(1e-9, max_iterations=3)}, None, ConvergenceError),
    "training": ({"network": partial(Failing, how="raise")}, None, RuntimeError),
    "loss": ({"network": partial(Failing, how="nan")}, None, FloatingPointError),
    "saving": ({}, not_writable, OSError),
    "overwriting": ({}, in_the_way, FileExistsError),
}


def fails(kind, failure, model, tmp_path):
    """Let a model fail to fit in one of the ways; give back the settings it had."""
    changed, place, error = FAILURES[failure]
    before = model.get_params(deep=False)
    model.set_params(**changed)
    with pytest.raises(error):
        model.fit(*kind.data, run=None if place is None else cf.Run(place(tmp_path)))
    model.set_params(**before)


@pytest.mark.parametrize("failure", FAILURES)
def test_what_failed_to_fit_is_not_fitted(kind, failure, tmp_path):
    model = kind()
    fails(kind, failure, model, tmp_path)
    for verb, call in (kind.verbs | {"save": lambda model: model.save(tmp_path / "model")}).items():
        with pytest.raises(NotFittedError):
            pytest.fail(f"{verb} of an unfitted model gave {call(model)}")


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_fit_leaves_the_earlier_one(kind, failure, tmp_path):
    model = kind().fit(*kind.data)
    distil(kind, model)
    learned = {name: value for name, value in vars(model).items() if name.endswith("_")}
    histories = [dict(value.columns) for name, value in learned.items() if name.endswith("history_")]
    before = kind.results(model)
    fails(kind, failure, model, tmp_path)
    assert {name: value for name, value in vars(model).items() if name.endswith("_")} == learned
    assert all(torch.equal(one, other) for one, other in zip(before, kind.results(model), strict=True))
    assert [value.columns for name, value in learned.items() if name.endswith("history_")] == histories
    assert len(histories) >= (2 if "distill" in kind.verbs else 1)


class FailingCoupling:
    """Pairs that cannot be made in the second round."""

    def __call__(self, field, objective, x0, x1, *, turn, generator, condition=None):
        if turn:
            raise RuntimeError("no memory left")
        return x0, x0


@pytest.mark.parametrize("name", REFINED)
def test_a_refinement_that_fails_leaves_the_fit(name):
    kind = ALL_ESTIMATORS[name]
    model = kind().fit(*kind.data)
    kind.verbs["distill"](model)
    before, history = kind.results(model), len(model.history_)
    with pytest.raises(RuntimeError, match="no memory"):
        model.refine(*kind.data, rounds=2, steps=2, coupling=FailingCoupling())
    assert all(torch.equal(one, other) for one, other in zip(before, kind.results(model), strict=True))
    assert len(model.history_) == history


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"recipe": Recipe(learning_rate=1e30, clip=None)}, FloatingPointError),
        ({"objective": "unheard of"}, ValueError),
        ({"run": lambda folder: cf.Run(not_writable(folder))}, OSError),
        ({"run": lambda folder: cf.Run(in_the_way(folder))}, FileExistsError),
    ],
    ids=["loss", "objective", "saving", "overwriting"],
)
@pytest.mark.parametrize("distilled", [False, True])
def test_a_distillation_that_fails_leaves_what_was_there(distilled_kind, settings, error, distilled, tmp_path):
    kind = distilled_kind
    model = kind().fit(*kind.data)
    if distilled:
        kind.verbs["distill"](model)
    before = kind.results(model)
    given = {name: value(tmp_path) if callable(value) else value for name, value in settings.items()}
    with pytest.raises(error):
        model.distill(*kind.data, steps=30, **given)
    assert model.distilled == distilled
    assert all(torch.equal(one, other) for one, other in zip(before, kind.results(model), strict=True))


def test_double_precision_is_the_models_own(kind, tmp_path):
    """Trained, refined, distilled with any recipe, saved and loaded: double stays double, and works everywhere."""
    model = kind(recipe=Recipe(precision="64", warmup=2)).fit(*kind.data)
    assert {weight.dtype for weight in model.field_.parameters()} == {torch.float64}
    if "refine" in kind.verbs:
        kind.verbs["refine"](model)
    for objective in ("semigroup", "trajectories") if "distill" in kind.verbs else ():
        model.distill(*kind.data, steps=2, objective=objective)
        assert {weight.dtype for weight in model.flow_map_.parameters()} == {torch.float64}
    before = kind.results(model)
    model.save(tmp_path)
    back = type(model).load(tmp_path, device="cpu", network=model.network)
    for module in (back.field_, back.flow_map_) if back.distilled else (back.field_,):
        assert {weight.dtype for weight in module.parameters()} == {torch.float64}
    assert all(torch.equal(one, other) for one, other in zip(before, kind.results(back), strict=True))
    if "distill" not in kind.verbs:
        return
    kind.verbs["distill"](back)
    if "refine" in kind.verbs:
        kind.verbs["refine"](back)
    back.distill(*kind.data, steps=2, objective="semigroup", recipe=Recipe(precision="32"))
    assert {weight.dtype for weight in back.flow_map_.parameters()} == {torch.float64}
    with pytest.raises(ValueError, match="this one is in double. Found precision='bf16'"):
        back.distill(*kind.data, steps=2, objective="semigroup", recipe=Recipe(precision="bf16"))


def test_a_double_map_of_a_single_flow_jumps(distilled_kind, tmp_path):
    kind = distilled_kind
    model = kind().fit(*kind.data).distill(*kind.data, steps=2, recipe=Recipe(precision="64"))
    before = kind.results(model)
    model.save(tmp_path)
    back = type(model).load(tmp_path, device="cpu", network=model.network)
    assert {weight.dtype for weight in back.flow_map_.parameters()} == {torch.float64}
    assert {weight.dtype for weight in back.field_.parameters()} == {torch.float32}
    assert all(torch.equal(one, other) for one, other in zip(before, kind.results(back), strict=True))


def test_fits_in_threads_are_the_fit_alone(kind):
    """Of single and of double precision beside each other: nothing global is shared."""
    recipes = [QUICK, Recipe(precision="64", warmup=2)]

    def learn(recipe):
        model = kind(recipe=recipe).fit(*kind.data)
        if "distill" not in kind.verbs:
            return weights(model.field_)
        return weights(model.distill(*kind.data, steps=2, objective="semigroup").flow_map_)

    alone = [learn(recipe) for recipe in recipes]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(learn, recipes * 4))
    for number, each in enumerate(found):
        assert torch.equal(each, alone[number % 2]), number


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_dropout_draws_from_the_seed(share):
    """torch's dropout only knows the global random state: it is put back, and the same seed gives the same weights."""
    kind = ALL_ESTIMATORS["ImageGenerator"]

    def learn(_):
        return weights(kind(network=partial(UNET, dropout=share)).fit(IMAGES).field_)

    alone = learn(None)
    with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(4) as pool:
        torch.rand(3)
        assert all(torch.equal(each, alone) for each in pool.map(learn, range(8)))
    assert np.isfinite(alone.numpy()).all()


def trained(verb, kind, run=None):
    """The weights after a fit, or after what trains a fitted model further."""
    model = kind(recipe=Recipe(schedule="constant", warmup=2, ema=0.9))
    if verb == "fit":
        return weights(model.fit(*kind.data, run=run).field_)
    model.fit(*kind.data)
    if verb == "refine":
        settings = {"rounds": 2, "steps": 5, "coupling": cf.training.Reflow(solver=2)}
        return weights(model.refine(*kind.data, **settings, run=run).field_)
    return weights(model.distill(*kind.data, steps=5, objective="semigroup", run=run).flow_map_)


TRAINS = [
    *((name, "fit") for name in ALL_ESTIMATORS),
    *((name, "distill") for name in DISTILLED),
    *((name, "refine") for name in REFINED),
]


class PowerCutError(Exception):
    """What stops a training in a test."""


@pytest.mark.parametrize(("name", "verb"), TRAINS)
def test_a_run_is_watched_stopped_and_resumed_to_the_same_weights(name, verb, tmp_path):
    """Whoever looks sees a whole model: it answers, can be saved, and is another one each time."""
    kind, seen = ALL_ESTIMATORS[name], []
    alone = trained(verb, kind)

    def watch(model):
        model.save(tmp_path / f"look-{len(seen)}")
        history = model.map_history_ if verb == "distill" else model.history_
        seen.append((len(history), kind.results(model)[-1]))

    def stop(model):
        raise PowerCutError

    assert torch.equal(trained(verb, kind, cf.Run(watch=watch, watch_every=3)), alone)
    steps = {"fit": [3, 4], "distill": [3, 5], "refine": [7, 9, 12, 14]}[verb]
    assert [step for step, _ in seen] == steps
    assert not torch.equal(seen[0][1], seen[-1][1])
    back = kind.make.func.load(tmp_path / "look-0", device="cpu")
    assert torch.equal(kind.results(back)[-1], seen[0][1])
    with pytest.raises(PowerCutError):
        trained(verb, kind, cf.Run(tmp_path / "kept", watch=stop, watch_every=2, save_every=1))
    assert torch.equal(trained(verb, kind, cf.Run(tmp_path / "kept", resume=True)), alone)


@pytest.mark.parametrize("name", [name for name in DISTILLED if name != "PerturbationFlow"])  # it is newer
def test_what_became_a_run_is_still_taken(name, tmp_path):
    kind, seen = ALL_ESTIMATORS[name], []
    alone = weights(kind().fit(*kind.data).distill(*kind.data, steps=3, objective="semigroup", teacher=False).flow_map_)
    model = kind()
    with pytest.warns(FutureWarning, match=rf"{name}\.fit\(folder=.*is now `{name}\.fit\(run="):
        model.fit(*kind.data, folder=tmp_path, watch=seen.append, every=2)
    assert len(seen) == 2
    with pytest.warns(FutureWarning, match="resume"):
        model.fit(*kind.data, folder=tmp_path, resume=True)
    with pytest.warns(
        FutureWarning, match=rf"`{name}\.distill\(taught=False\)` is now `{name}\.distill\(teacher=False"
    ):
        model.distill(*kind.data, steps=3, objective="semigroup", taught=False)
    assert torch.equal(weights(model.flow_map_), alone)


@pytest.mark.parametrize("name", REFINED)
def test_repairing_is_now_a_coupling(name):
    kind = ALL_ESTIMATORS[name]
    model, other = (kind().fit(*kind.data) for _ in range(2))
    model.refine(*kind.data, rounds=1, steps=2, coupling=cf.training.Reflow(solver=2))
    with pytest.warns(FutureWarning, match=rf"{name}\.refine\(repairing=.* is now `{name}\.refine\(coupling="):
        other.refine(*kind.data, rounds=1, steps=2, repairing=cf.training.Reflow(solver=2))
    assert torch.equal(weights(model.field_), weights(other.field_))
    with pytest.raises(TypeError, match="a coupling made by the model"):
        model.refine(*kind.data, rounds=1, steps=2, coupling=cf.couplings.Exact())


def test_forget_is_now_condition_dropout():
    with pytest.warns(
        FutureWarning, match=r"`ImageGenerator\(forget=0.3\)` is now `ImageGenerator\(condition_dropout="
    ):
        model = cf.ImageGenerator(forget=0.3)
    assert model.condition_dropout == 0.3
    assert "forget" not in model.get_params()
