"""Solver parts: every one against every property, and every verb against every kind of solver."""

import copy
import importlib
import inspect
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

import cellflow as cf
from cellflow.cli import configs_folder
from cellflow.errors import NotFittedError
from cellflow.fields import Outputs
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy, Table, grow, log_density, ode, resolve, sde
from conftest import make_cells, make_treated

RALSTON = Table(a=((), (2 / 3,)), b=(1 / 4, 3 / 4), c=(0.0, 2 / 3), order=2)
ALL_SOLVERS = [
    Fixed(), Fixed("euler", steps=3), Fixed(RALSTON, steps=2), Fixed("torchdyn:rk4", steps=4),
    Adaptive(), Adaptive("bosh3", rtol=1e-3, atol=0.0), Adaptive("torchdyn:tsit5"),
    Jumps(), Jumps(3), Noisy(), Noisy(7, method="euler_maruyama"), Noisy(7, power=1.5), Noisy(7, denoise=True),
]  # fmt: skip
ONE_OF_EACH = [Fixed("euler", steps=2), Adaptive("bosh3", rtol=1e-2, atol=1e-2), Jumps(1), Noisy(2)]
PARTS = {part.__name__: part for part in (Fixed, Adaptive, Jumps, Noisy, Table)}

CELLS = make_cells(sizes=(20, 25, 20))
CELLS.obs["side"] = np.where(CELLS.obsm["X_pca"][:, 1] > 0, "left", "right")
GENES = anndata.AnnData(CELLS.obsm["X_pca"].copy(), obs=CELLS.obs, var=pd.DataFrame(index=list("abc")))
GENES.obsm["X_pca"], GENES.varm["PCs"] = CELLS.obsm["X_pca"], np.eye(3)
DECODER = cf.cells.Decoder(lambda x: x[:, :1], ["a"])
TREATED = make_treated()
X = torch.from_numpy(CELLS.obsm["X_pca"])[:6]
PIXELS = torch.randint(256, (24, 1, 4, 4), generator=cf.generator(0)).to(torch.uint8)
IMAGES = cf.images.ImageSet(PIXELS, torch.arange(24) % 2, classes=("dark", "bright"))
BRIDGE = cf.paths.BrownianBridge(0.5)
QUICK = {"steps": 4, "batch_size": 8, "device": "cpu"}


def as_yaml(part):
    """Return a part as it is written in YAML."""
    if not is_dataclass(part):
        return part
    inside = {field.name: as_yaml(getattr(part, field.name)) for field in fields(part)}
    return {"_target_": f"cellflow.integrate.{type(part).__name__}"} | inside


@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=repr)
def test_a_solver_survives_every_round_trip(solver):
    assert eval(repr(solver), PARTS) == solver
    assert pickle.loads(pickle.dumps(solver)) == solver
    assert copy.deepcopy(solver) == solver
    assert hash(copy.copy(solver)) == hash(solver)
    assert [other == solver for other in ALL_SOLVERS].count(True) == 1
    if getattr(solver, "method", None) is not RALSTON:  # YAML has no tuples
        assert instantiate(yaml.safe_load(yaml.safe_dump(as_yaml(solver)))) == solver


@pytest.mark.parametrize("kind", [Fixed, Adaptive, Jumps, Noisy])
def test_a_file_of_its_name_has_its_defaults(kind):
    found = instantiate(OmegaConf.load(configs_folder() / "solver" / f"{kind.__name__.lower()}.yaml"))
    assert found == (Noisy(20) if kind is Noisy else kind())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((partial(kind, steps=n), "whole number >= 1") for kind in (Fixed, Jumps, Noisy) for n in (0, -1, True, "2")),
        (lambda: Jumps(1.5), r"whole number >= 1; found 1\.5"),
        (lambda: Fixed("rk5"), "Unknown method 'rk5'. Choose from: 'euler'"),
        (lambda: Fixed(3), "Unknown method 3"),
        (lambda: Fixed("dopri5"), r"chooses its own steps. Take `Adaptive\('dopri5'\)`"),
        (lambda: Fixed("torchdyn:rk5"), "Unknown torchdyn method 'rk5'"),
        (lambda: Adaptive("rk4"), r"takes fixed steps. Take `Fixed\('rk4', steps=20\)`"),
        (lambda: Adaptive("dopri6"), "Unknown method 'dopri6'"),
        *((partial(Adaptive, rtol=wrong), "finite `rtol` >= 0") for wrong in (-1, float("nan"), "1e-5")),
        *((partial(Adaptive, atol=wrong), "finite `atol` >= 0") for wrong in (-1, float("inf"), None)),
        (lambda: Noisy(method="rk4"), "Unknown method 'rk4'. Choose from: 'heun', 'euler_maruyama'"),
        (lambda: Noisy("heun"), "whole number >= 1; found 'heun'"),
    ],
)  # fmt: skip
def test_settings_are_validated(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("given", "default", "expected"),
    [
        (7, Fixed("midpoint"), Fixed("midpoint", steps=7)),
        (np.int64(7), Noisy(method="euler_maruyama"), Noisy(7, method="euler_maruyama")),
        ("euler", Fixed("midpoint", steps=50), Fixed("euler", steps=50)),
        (RALSTON, Fixed("midpoint", steps=50), Fixed(RALSTON, steps=50)),
        ("torchdyn:rk4", Fixed(steps=5), Fixed("torchdyn:rk4", steps=5)),
        ("bosh3", Fixed(steps=5), Adaptive("bosh3")),
        ("torchdyn:dopri5", Fixed(steps=5), Adaptive("torchdyn:dopri5")),
        ("heun", Fixed(steps=5), Fixed("heun", steps=5)),
        ("heun", Noisy(5), Noisy(5)),
        ("euler_maruyama", Noisy(5), Noisy(5, method="euler_maruyama")),
        ("euler_maruyama", Fixed(), Noisy(method="euler_maruyama")),
        ("rk4", Noisy(5), Fixed("rk4")),
        *((solver, Fixed(), solver) for solver in ALL_SOLVERS),
    ],
)
def test_numbers_and_methods_are_resolved(given, default, expected):
    assert resolve(given, default=default, verb="verb") == expected


@pytest.mark.parametrize("given", [None, [1], Fixed, {"steps": 3}])
def test_what_is_no_solver_is_refused(given):
    with pytest.raises(TypeError, match=r"verb\(\) expected `solver` to be such as .*Fixed\('rk4', steps=20\)"):
        resolve(given, default=Fixed(), verb="verb")


# --- verbs -------------------------------------------------------------------------------------------------------


def outputs_of(t, x, condition=None):
    return Outputs(-x, 0.1 * x, torch.ones(len(x), dtype=x.dtype))


def velocity(t, x, condition=None):
    return -x


@pytest.fixture(scope="module")
def models():
    """A fitted, distilled model of each kind; the flow has not seen the snapshot of day 1."""
    mlp, unet = partial(cf.networks.MLP, width=8), partial(cf.networks.UNet, width=8, multipliers=(1,), blocks=1)
    noisy = {"network": mlp, "path": BRIDGE, "stochastic": True, **QUICK}
    seen, source = CELLS[CELLS.obs["day"] != 1], torch.from_numpy(CELLS.obsm["X_pca"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what other arguments are called is tested elsewhere
        return {
            "flow": cf.SnapshotFlow(time_key="day", **noisy).fit(seen).distill(seen, steps=3),
            "translator": cf.DomainTranslator(**noisy).fit(source, source + 3).distill(source, source + 3, steps=3),
            "drugs": cf.PerturbationFlow(conditions="drug", **noisy).fit(TREATED).distill(TREATED, steps=3),
            "generator": cf.ImageGenerator(network=unet, conditional=True, **QUICK)
            .fit(IMAGES)
            .distill(IMAGES, steps=3, objective="semigroup"),
        }


def in_copy(tool, pick, **given):
    """Return what a tool writes into a copy of the cells."""
    return lambda models, **settings: pick(tool(CELLS.copy(), models["flow"], **given, copy=True, **settings))


def drawn(models, **settings):
    ax = cf.pl.trajectories(CELLS.copy(), models["flow"], n=3, **settings)
    plt.close("all")
    return np.concatenate([line.get_data() for line in ax.lines]) if ax.lines else np.zeros(1)


def repaired(part, field, objective):
    def pairs(models, **settings):
        made = part(**settings)(field, objective, X, X, turn=0, generator=cf.generator(0))
        return torch.cat(made)

    return pairs


SPAN = {"start": 0, "stop": 5}
LATE = CELLS.obs["day"] == 5
EARLY = CELLS.obs["day"] == 0
ODE, SMOOTH, SDE, ALL = (Fixed, Adaptive), (Fixed, Adaptive, Jumps), (Noisy,), (Fixed, Adaptive, Jumps, Noisy)


@dataclass(frozen=True)
class Verb:
    """Something that advances time: how it is called, its default, and what takes the solvers that it does not."""

    call: Callable[..., Any]
    default: Any
    takes: tuple[type, ...]
    instead: str | dict[type, str] = ""

    def refused(self, kind):
        return self.instead if isinstance(self.instead, str) else self.instead[kind]


HERE = {Noisy: "cf.integrate.sde", Jumps: "cf.integrate.jump"}
FLOW, TRANSLATOR = "SnapshotFlow.simulate", "DomainTranslator.simulate"


def density(models, **settings):
    return log_density(velocity, X, lambda x: -x.square().sum(1), **settings)


def diffused(models, **settings):
    return sde(outputs_of, X, sigma=0.5, generator=cf.generator(0), **settings).x


def fates(adata):
    return adata.obs["fate_spread"].dropna().to_numpy()


ALL_VERBS = {
    "integrate.ode": Verb(lambda m, **s: ode(velocity, X, **s).x, Fixed(), ODE, HERE),
    "integrate.grow": Verb(lambda m, **s: grow(outputs_of, X, **s).log_weight, Fixed(), ODE, HERE),
    "integrate.log_density": Verb(density, Fixed(), ODE, HERE),
    "integrate.sde": Verb(
        diffused, Noisy(), SDE,
        {Fixed: "cf.integrate.ode", Adaptive: "cf.integrate.ode", Jumps: "cf.integrate.jump"},
    ),
    "SnapshotFlow.transport": Verb(lambda m, **s: m["flow"].transport(X, **SPAN, **s).x, Fixed(), SMOOTH, "simulate"),
    "SnapshotFlow.simulate": Verb(lambda m, **s: m["flow"].simulate(X, **SPAN, **s).x, Noisy(), SDE, "transport"),
    "PerturbationFlow.transport": Verb(
        lambda m, **s: m["drugs"].transport(X, condition={"drug": "A"}, **s).x, Fixed("midpoint", steps=10), SMOOTH,
        "simulate",
    ),
    "PerturbationFlow.simulate": Verb(
        lambda m, **s: m["drugs"].simulate(X, condition={"drug": "A"}, **s).x, Noisy(), SDE, "transport"
    ),
    "tl.perturb": Verb(
        lambda m, **s: cf.tl.perturb(TREATED, m["drugs"], **s).obsm["X_pca"], Fixed("midpoint", steps=10), SMOOTH,
        "PerturbationFlow.simulate",
    ),
    "DomainTranslator.translate": Verb(
        lambda m, **s: m["translator"].translate(X, **s), Fixed("midpoint", steps=20), SMOOTH, "simulate"
    ),
    "DomainTranslator.simulate": Verb(
        lambda m, **s: m["translator"].simulate(X, **s), Noisy(50), SDE, "translate"
    ),
    "DomainTranslator.trajectory": Verb(
        lambda m, **s: m["translator"].trajectory(X, save=3, **s).x, Fixed("midpoint", steps=24), ALL
    ),
    "ImageGenerator.generate": Verb(
        lambda m, **s: m["generator"].generate(2, **s).images, Fixed("midpoint", steps=50), SMOOTH, TRANSLATOR
    ),
    "ImageGenerator.translate": Verb(
        lambda m, **s: m["generator"].translate(IMAGES, strength=0.5, **s).images, Fixed("midpoint", steps=50), SMOOTH,
        TRANSLATOR,
    ),
    "ImageGenerator.trajectory": Verb(
        lambda m, **s: m["generator"].trajectory(2, save=3, **s).x, Fixed("midpoint", steps=48), SMOOTH, TRANSLATOR
    ),
    "tl.interpolate": Verb(
        lambda m, **s: cf.tl.interpolate(CELLS, m["flow"], at=2, **s).obsm["X_pca"], Fixed(), SMOOTH, FLOW
    ),
    "tl.push": Verb(in_copy(cf.tl.push, lambda a: a.obs["push"].to_numpy(), cells=EARLY, at=5), Fixed(), SMOOTH, FLOW),
    "tl.pull": Verb(in_copy(cf.tl.pull, lambda a: a.obs["pull"].to_numpy(), cells=LATE, at=0), Fixed(), SMOOTH, FLOW),
    "tl.validate": Verb(in_copy(cf.tl.validate, lambda a: a.uns["validation"]["W1"].to_numpy()), Fixed(), SMOOTH, FLOW),
    "tl.trajectories": Verb(
        in_copy(cf.tl.trajectories, lambda a: a.uns["trajectories"]["x"], n=3, n_times=3), Fixed(), ALL
    ),
    "tl.trends": Verb(
        in_copy(
            cf.tl.trends, lambda a: a.uns["trends"]["mean"], genes="a", by=None, decode=DECODER, n_times=3,
            n_bootstrap=2, n_samples=2,
        ),
        Noisy(20), ALL,
    ),
    "tl.perturb_genes": Verb(
        lambda m, **s: cf.tl.perturb_genes(
            GENES, m["flow"], genes={"a": "up"}, groupby="side", n_random=2, n_samples=2, copy=True, **s
        ).obsm["perturb_genes_change"][EARLY],
        Noisy(20), ALL,
    ),
    "tl.fate": Verb(in_copy(cf.tl.fate, fates, groupby="side", cells=EARLY, n_samples=2), Noisy(20), ALL),
    "pl.trajectories": Verb(drawn, Fixed(), ALL),
    "Reflow": Verb(
        repaired(cf.training.Reflow, velocity, cf.objectives.VelocityMatching()), Fixed(steps=100), ODE,
        {Noisy: "MarkovianFitting", Jumps: "cf.integrate.jump"},
    ),
    "MarkovianFitting": Verb(
        repaired(partial(cf.training.MarkovianFitting, 0.5), outputs_of, None), Noisy(), SDE, "Reflow"
    ),
}  # fmt: skip


def same(one, two):
    return torch.equal(torch.as_tensor(one), torch.as_tensor(two))


@pytest.mark.parametrize("solver", ONE_OF_EACH, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("name", ALL_VERBS)
def test_a_verb_takes_its_solvers_and_names_the_verb_for_others(name, solver, models):
    verb = ALL_VERBS[name]
    if isinstance(solver, verb.takes):
        assert np.isfinite(np.asarray(verb.call(models, solver=solver), dtype=float)).all()
        return
    with pytest.raises(
        TypeError, match=rf"takes no {type(solver).__name__} solver.*Use `{verb.refused(type(solver))}`"
    ):
        verb.call(models, solver=solver)


@pytest.mark.parametrize("name", ALL_VERBS)
def test_a_number_is_the_default_with_so_many_steps(name, models):
    verb = ALL_VERBS[name]
    kind = type(verb.default)
    assert same(verb.call(models, solver=3), verb.call(models, solver=kind(steps=3, method=verb.default.method)))
    method = "euler" if kind is Fixed else "euler_maruyama"
    named = kind(steps=verb.default.steps, method=method)
    assert same(verb.call(models, solver=method), verb.call(models, solver=named))


@pytest.mark.parametrize("name", ALL_VERBS)
def test_the_default_of_a_verb_is_what_it_was(name, models):
    verb = ALL_VERBS[name]
    assert same(verb.call(models), verb.call(models, solver=verb.default))


FORMER = [
    ("integrate.ode", {"steps": 3}, Fixed(steps=3)),
    ("integrate.ode", {"steps": 3, "method": RALSTON}, Fixed(RALSTON, steps=3)),
    ("integrate.ode", {"method": "euler"}, Fixed("euler")),
    ("integrate.ode", {"method": "dopri5", "rtol": 1e-2}, Adaptive("dopri5", rtol=1e-2)),
    ("integrate.ode", {"method": "bosh3", "steps": None, "atol": 1e-2}, Adaptive("bosh3", atol=1e-2)),
    ("integrate.grow", {"steps": 3, "method": "midpoint"}, Fixed("midpoint", steps=3)),
    ("integrate.log_density", {"steps": 3}, Fixed(steps=3)),
    ("integrate.sde", {"steps": 3}, Noisy(3)),
    ("integrate.sde", {"method": "euler_maruyama"}, Noisy(method="euler_maruyama")),
    ("SnapshotFlow.transport", {"steps": 3, "method": "euler"}, Fixed("euler", steps=3)),
    ("SnapshotFlow.transport", {"jumps": 2}, Jumps(2)),
    ("SnapshotFlow.transport", {"jumps": None}, Fixed()),
    ("SnapshotFlow.simulate", {"steps": 3}, Noisy(3)),
    ("DomainTranslator.translate", {"steps": 3}, Fixed("midpoint", steps=3)),
    ("DomainTranslator.translate", {"steps": None, "method": "bosh3"}, Adaptive("bosh3")),
    ("DomainTranslator.translate", {"steps": 3, "jumps": 1}, Jumps(1)),
    ("DomainTranslator.simulate", {"steps": 3}, Noisy(3)),
    ("DomainTranslator.trajectory", {"steps": 3}, Fixed("midpoint", steps=3)),
    ("ImageGenerator.generate", {"method": "euler"}, Fixed("euler", steps=50)),
    ("ImageGenerator.generate", {"steps": None, "method": "rk4"}, Fixed("rk4", steps=20)),
    ("ImageGenerator.generate", {"jumps": 1}, Jumps(1)),
    ("ImageGenerator.trajectory", {"steps": 3}, Fixed("midpoint", steps=3)),
    ("tl.interpolate", {"jumps": 1}, Jumps(1)),
    ("tl.push", {"jumps": 1}, Jumps(1)),
    ("tl.pull", {"jumps": 2}, Jumps(2)),
    ("tl.trajectories", {"stochastic": True}, Noisy()),
    ("tl.trajectories", {"stochastic": False}, Fixed()),
    ("Reflow", {"steps": 3}, Fixed(steps=3)),
    ("MarkovianFitting", {"steps": 3}, Noisy(3)),
]


@pytest.mark.parametrize(("name", "old", "solver"), FORMER, ids=lambda value: value if isinstance(value, str) else "")
def test_old_keywords_warn_and_give_the_same_to_the_bit(name, old, solver, models):
    call = ALL_VERBS[name].call
    with pytest.warns(FutureWarning, match=rf"{name}\(.*is now `{name}\(solver=") as caught:
        found = call(models, **old)
    assert [warning.filename for warning in caught] == [__file__]
    assert same(found, call(models, solver=solver))


def test_a_seed_alone_used_to_ask_for_noise(models):
    translator = models["translator"]
    with pytest.warns(FutureWarning, match=r"trajectory\(solver=Noisy\(steps=24, .*\), seed=3\)"):
        found = translator.trajectory(X, seed=3)
    assert same(found.x, translator.trajectory(X, solver=Noisy(24), seed=3).x)


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ({"steps": 5, "method": "dopri5"}, "`steps` belongs to fixed-step methods"),
        ({"rtol": 1e-3}, "belong to adaptive methods"),
        ({"method": "euler", "atol": 1e-3}, "belong to adaptive methods"),
    ],
)
def test_old_keywords_that_contradict_each_other_are_refused(old, words):
    with pytest.raises(ValueError, match=words):
        ode(velocity, X, **old)


def test_old_and_new_together_are_refused():
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="Give only the solver"):
        ode(velocity, X, solver=Fixed("euler"), steps=3)


@pytest.mark.parametrize(
    "name", [name for name in ALL_VERBS if name not in ("tl.validate", "tl.fate", "pl.trajectories")]
)
def test_a_keyword_that_never_was_is_refused(name, models):
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'stepz'"):
        ALL_VERBS[name].call(models, stepz=3)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: cf.SnapshotFlow(time_key="day", **QUICK).fit(CELLS).transport(X, **SPAN, solver=Jumps()),
        lambda: cf.tl.interpolate(CELLS, cf.SnapshotFlow(time_key="day", **QUICK).fit(CELLS), at=2, solver=Jumps()),
        lambda: cf.DomainTranslator(**QUICK).fit(X, X + 1).translate(X, solver=Jumps()),
    ],
)
def test_jumps_before_there_is_a_map_say_to_distill(ask):
    with pytest.raises(NotFittedError, match="no flow map to jump with. Call `distill` first"):
        ask()


def public_functions():
    for module in ("integrate", "tl", "pl"):
        found = importlib.import_module(f"cellflow.{module}")
        yield from ((f"{module}.{name}", getattr(found, name)) for name in found.__all__)
    for estimator in (cf.SnapshotFlow, cf.DomainTranslator, cf.ImageGenerator, cf.PerturbationFlow):
        for name, method in inspect.getmembers(estimator, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{estimator.__name__}.{name}", method


def test_every_verb_that_takes_a_solver_is_crossed_here_and_none_takes_half_of_one():
    taking = set()
    for name, function in public_functions():
        if inspect.isfunction(function) and name not in ("integrate.resolve", "integrate.jump"):
            parameters = set(inspect.signature(function).parameters)
            taking |= {name} if "solver" in parameters else set()
            assert not parameters & {"method", "rtol", "atol", "jumps", "stochastic"}, name
    assert taking - {"SnapshotFlow.grow"} == set(ALL_VERBS) - {"Reflow", "MarkovianFitting"}


@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_steps_with_noise_follow_each_other_and_become_smaller_at_the_end(steps, parts, power):
    found = Noisy(steps, power=power).schedule(parts)
    starts, lengths = (np.array(column) for column in zip(*found, strict=True))
    assert np.allclose(starts[1:], starts[:-1] + lengths[:-1], rtol=1e-12)
    assert (starts[0], starts[-1] + lengths[-1]) == (0, pytest.approx(1))
    stretch = len(found) // parts
    assert np.allclose(starts[::stretch], np.arange(parts) / parts)  # where states are kept
    assert np.allclose(lengths[:-stretch], lengths[0])
    assert lengths[-1] == pytest.approx(stretch**-power / parts)
    assert (np.diff(lengths[-stretch:]) <= 1e-12).all()


@pytest.mark.parametrize("method", ["heun", "euler_maruyama"])
@pytest.mark.parametrize("backward", [False, True])
def test_brownian_motion_has_its_variance_with_any_steps(method, backward, rng):
    """All but the last of four steps, of 1/16 with a power of 2, where that has no noise."""
    start, stop = (1.0, 0.0) if backward else (0.0, 1.0)
    for power, denoise, variance in ((1.0, False, 1), (2.0, False, 1), (2.0, True, 15 / 16), (1.0, True, 3 / 4)):
        solver = Noisy(4, method, power=power, denoise=denoise)
        found = sde(still, torch.zeros(40_000, 1), sigma=2.0, solver=solver, start=start, stop=stop, generator=rng)
        assert found.x[-1].var().item() == pytest.approx(4 * variance, rel=0.03)
        assert found.evaluations == (4 if method == "euler_maruyama" else 8 - denoise)


def still(t, x, condition):
    return Outputs(torch.zeros_like(x), torch.zeros_like(x))


def test_the_last_step_leads_to_the_mean_of_what_is_expected():
    """A bridge to one point, whose drift leads there at any time."""

    def field(t, x, condition):
        drift = (3.0 - x) / (1 - t[:, None])
        return Outputs(drift / 2, drift / 2)

    x = torch.zeros(50, 1)
    ends = [
        sde(field, x, sigma=1.0, solver=Noisy(5, "heun" if denoise else "euler_maruyama", denoise=denoise),
            generator=cf.generator(0)).x[-1]
        for denoise in (True, False)
    ]  # fmt: skip
    assert torch.allclose(ends[0], torch.full_like(x, 3.0), atol=1e-5)
    assert ends[1].std() > 0.1


def test_smaller_steps_are_as_accurate_as_equal_ones(rng):
    """An Ornstein-Uhlenbeck process in equilibrium stays there."""

    def field(t, x, condition):
        return Outputs(torch.zeros_like(x), -x / 2)

    x = torch.randn(40_000, 1, generator=rng)
    for power in (1.0, 2.0):
        found = sde(field, x, sigma=1.0, solver=Noisy(20, power=power), generator=rng).x[-1]
        assert found.var().item() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"power": 0.5}, ValueError, "`power` from 1 to 3; found 0.5"),
        ({"power": float("inf")}, ValueError, "`power` from 1 to 3"),
        ({"power": True}, ValueError, "`power` from 1 to 3"),
        ({"power": "2"}, ValueError, "`power` from 1 to 3"),
        ({"denoise": 1}, TypeError, "`denoise` to be True or False"),
    ],
)
def test_settings_of_noise_that_cannot_be_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        Noisy(5, **given)
