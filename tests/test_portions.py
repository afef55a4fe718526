"""States are carried some at a time: the same numbers as all at once, in memory that does not grow with them."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch

import cellflow as cf
from cellflow.estimators import portions
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy
from cellflow.seeds import generator_at
from conftest import make_cells, make_treated

QUICK = {"steps": 2, "batch_size": 16, "device": "cpu"}
BRIDGE = {"path": cf.paths.BrownianBridge(0.5), "stochastic": True}
GROWING = {"coupling": cf.couplings.UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0), "growth": True}
SETTINGS = {
    "plain": {},
    "noisy": BRIDGE,
    "growing": GROWING,
    "growing, noisy": BRIDGE | GROWING,
    "conditions": {"conditions": "kind"},
}
N, FEW = 50, 16
WITHOUT_NOISE = {"fixed": Fixed(steps=3), "adaptive": Adaptive(), "jumps": Jumps(2)}


def stirred(flow):
    """The flow with weights that are not those of a start, where velocities are nearly 0."""
    draw = cf.generator(seed=1)
    with torch.no_grad():
        for weight in flow.field_.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=draw)
    return flow


@pytest.fixture(scope="module")
def flows():
    adata = make_cells()
    adata.obs["kind"] = np.resize(["control", "A", "B"], adata.n_obs)
    found = {name: cf.SnapshotFlow(time_key="day", **QUICK, **given).fit(adata) for name, given in SETTINGS.items()}
    for flow in found.values():
        stirred(flow).distill(adata, steps=2)
    return adata, found


@pytest.fixture(scope="module")
def perturbing():
    adata = make_treated()
    flow = stirred(cf.PerturbationFlow(conditions="drug", **QUICK, **BRIDGE).fit(adata)).distill(adata, steps=2)
    return adata.obsm["X_pca"][:N], flow


@contextmanager
def few_at_a_time(monkeypatch, *networks, rows=FEW):
    """Within, portions have few states; yields how many states the networks were given, one number a call."""
    sizes = []
    hooks = [one.register_forward_hook(lambda _, given, __: sizes.append(len(given[1]))) for one in networks]
    with monkeypatch.context() as patch:
        patch.setattr(portions, "MOST_ROWS", rows)
        yield sizes
    for hook in hooks:
        hook.remove()


def asked(adata, flow):
    """States, times of their own and conditions, as the verbs take them."""
    states = flow.read(adata)
    return states.x[:N], states.time[:N], None if states.condition is None else states.condition[:N]


def the_same(found, known):
    np.testing.assert_array_equal(found.t, known.t)
    assert found.x.dtype == known.x.dtype
    assert found.evaluations == known.evaluations
    np.testing.assert_allclose(found.x, known.x, atol=1e-6, rtol=1e-6)
    assert (found.log_weight is None) == (known.log_weight is None)
    if known.log_weight is not None:
        np.testing.assert_allclose(found.log_weight, known.log_weight, atol=2e-6)
        np.testing.assert_allclose(found.mass(), known.mass(), rtol=5e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_rates_are_those_of_all_states_at_once(flows, name, monkeypatch):
    adata, flow = flows[0], flows[1][name]
    x, time, condition = asked(adata, flow)
    for verb in (flow.velocity, flow.growth_rate) if flow.growth_ else (flow.velocity,):
        whole = verb(x, time, condition=condition)
        assert np.abs(whole).max() > 0.01
        with few_at_a_time(monkeypatch, flow.field_) as sizes:
            parts = verb(x, time, condition=condition)
        assert parts.dtype == whole.dtype == np.float32
        np.testing.assert_allclose(parts, whole, atol=1e-6, rtol=1e-6)
        assert max(sizes) == FEW
        assert sum(sizes) == N


@pytest.mark.parametrize("solver", WITHOUT_NOISE.values(), ids=WITHOUT_NOISE)
@pytest.mark.parametrize("name", SETTINGS)
def test_states_are_carried_as_all_at_once(flows, name, solver, monkeypatch):
    adata, flow = flows[0], flows[1][name]
    x, time, condition = asked(adata, flow)
    given = {"start": time, "stop": 5.0, "save": 3, "condition": condition, "solver": solver}
    whole = flow.transport(x, **given)
    with few_at_a_time(monkeypatch, flow.field_, flow.flow_map_) as sizes:
        the_same(flow.transport(x, **given), whole)
        if flow.growth_:
            the_same(flow.grow(x, **given), whole)
    assert max(sizes) == (N if isinstance(solver, Adaptive) else FEW)  # of which the steps are those of all


@pytest.mark.parametrize("name", [name for name in SETTINGS if "noisy" in name])
def test_noise_belongs_to_the_row_of_a_state(flows, name, monkeypatch):
    """Of each portion it is that of a seed of its own, whatever the others are; of the first that of the seed."""
    adata, flow = flows[0], flows[1][name]
    x, time, _ = asked(adata, flow)
    given = {"stop": 0.0, "save": 3, "solver": Noisy(4)}
    with few_at_a_time(monkeypatch, flow.field_) as sizes:
        found = flow.simulate(x, start=time, seed=3, **given)
    assert max(sizes) == FEW
    for number, first in enumerate(range(0, N, FEW)):
        some, seed = slice(first, first + FEW), 3 if number == 0 else generator_at(3, number).initial_seed()
        alone = flow.simulate(x[some], start=time[some], seed=seed, **given)
        np.testing.assert_allclose(found.x[:, some], alone.x, atol=1e-6)
        if flow.growth_:  # a state weighs a share of all, not of its portion
            weight = alone.log_weight + np.log(len(x[some]) / N)
            np.testing.assert_allclose(found.log_weight[:, some], weight, atol=2e-6)
    assert not np.allclose(found.x[-1, :FEW] - found.x[0, :FEW], found.x[-1, FEW : 2 * FEW] - found.x[0, FEW : 2 * FEW])


@pytest.mark.parametrize("solver", WITHOUT_NOISE.values(), ids=WITHOUT_NOISE)
def test_treated_cells_are_those_of_all_at_once(perturbing, solver, monkeypatch):
    x, flow = perturbing
    given = {"condition": {"drug": np.resize(["A", "B", "A+B"], N)}}
    whole, rates = flow.transport(x, solver=solver, save=3, **given), flow.velocity(x, t=0.3, **given)
    with few_at_a_time(monkeypatch, flow.field_, flow.flow_map_) as sizes:
        the_same(flow.transport(x, solver=solver, save=3, **given), whole)
        np.testing.assert_allclose(flow.velocity(x, t=0.3, **given), rates, atol=1e-6)
    assert max(sizes) == (N if isinstance(solver, Adaptive) else FEW)


def test_noise_of_treated_cells_belongs_to_their_row(perturbing, monkeypatch):
    x, flow = perturbing
    with few_at_a_time(monkeypatch, flow.field_):
        found = flow.simulate(x, condition={"drug": "A"}, seed=3, solver=2).x[-1]
    for number, first in enumerate(range(FEW, N, FEW), start=1):
        seed = generator_at(3, number).initial_seed()
        alone = flow.simulate(x[first : first + FEW], condition={"drug": "A"}, seed=seed, solver=2).x[-1]
        np.testing.assert_allclose(found[first : first + FEW], alone, atol=1e-6)


def test_a_wide_network_sees_fewer_states_at_a_time():
    sizes = []

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(2**10, 2)

        def forward(self, t, x, condition=None):
            sizes.append(len(x))
            return cf.fields.Outputs(x + t[:, None], growth=t)

    t, x = torch.rand(1000), torch.rand(1000, 2)
    found = portions.few_at_once(Wide(), 2)(t, x, None)
    assert max(sizes) == portions.IN_A_CACHE // 2**10
    assert torch.equal(found.velocity, x + t[:, None])
    assert torch.equal(found.growth, t)
    assert found.score_drift is None


def test_small_data_is_one_portion():
    """Noise, and so the numbers of a seed, depend on where portions begin."""
    for n, dim in ((65_536, 2), (65_536, 256), (8000, 2000)):
        assert len(portions.rows_of(n, dim)) == 1
    covered = np.concatenate([np.arange(200_000)[rows] for rows in portions.rows_of(200_000, 50)])
    assert np.array_equal(covered, np.arange(200_000))


def test_a_bar_shows_how_many_cells_are_carried(flows, monkeypatch, capsys):
    adata, flow = flows[0], flows[1]["plain"]
    monkeypatch.setattr(flow, "progress", True)
    cf.tl.velocity(adata, flow)
    assert capsys.readouterr().err == ""  # all are one portion
    with few_at_a_time(monkeypatch):
        cf.tl.velocity(adata, flow)
        assert "carrying cells" in capsys.readouterr().err
        adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
        cf.tl.fate(adata, flow, groupby="half", progress=True)
        said = capsys.readouterr().err
        assert "fates" in said
        assert "carrying cells" not in said  # one bar at a time
        cf.tl.fate(adata, flow, groupby="half", progress=False)
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", SETTINGS)
def test_what_tools_write_does_not_depend_on_portions(flows, name, monkeypatch):
    original, flow = flows[0], flows[1][name]
    original.obs["half"] = np.where(original.obsm["X_pca"][:, 1] > 0, "a", "b")
    first = (original.obs["day"] == 0).to_numpy()

    def written():
        adata = original.copy()
        cf.tl.velocity(adata, flow)
        cf.tl.push(adata, flow, cells=first, at=5)
        cf.tl.pull(adata, flow, cells=adata.obs["day"] == 5, at=0)
        cf.tl.fate(adata, flow, groupby="half", solver=Fixed(steps=3), at=5)
        cf.tl.trajectories(adata, flow, cells=first, n_times=3)
        if flow.growth_:
            cf.tl.growth(adata, flow, sensitivity=False)
        middle = cf.tl.interpolate(adata, flow, at=3)
        numbers = adata.obs.select_dtypes("number").drop(columns="day")
        fates, states = adata.obsm["fate"].to_numpy(), adata.uns["trajectories"]["x"]
        yield from (numbers, adata.obsm["velocity"], fates, states, middle.obsm["X_pca"], middle.obs["weight"])

    whole = list(written())
    with few_at_a_time(monkeypatch):
        parts = list(written())
    for found, known in zip(parts, whole, strict=True):
        np.testing.assert_allclose(found, known, atol=1e-5)


UNET = {"network": partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)} | QUICK
VERBS = {
    "translate": lambda model, digits, **size: model.translate(digits, solver=2, **size).images,
    "generate": lambda model, digits, **size: model.generate(len(digits), solver=2, **size).images,
    "trajectory": lambda model, digits, **size: model.trajectory(len(digits), solver=2, save=2, **size).x,
}


@pytest.fixture(scope="module")
def of_images():
    digits = cf.datasets.digits().take(range(10))
    translator = cf.DomainTranslator(**UNET).fit(digits, cf.datasets.digits().take(range(10, 20)))
    return digits, [stirred(model) for model in (translator, cf.ImageGenerator(**UNET).fit(digits))]


@pytest.mark.parametrize(("which", "verb"), [(0, "translate"), (1, "translate"), (1, "generate"), (1, "trajectory")])
def test_images_are_carried_a_cache_full_at_a_time(of_images, which, verb, monkeypatch):
    """The samples are the same to the rounding of a sum in another order."""
    digits, models = of_images
    model, field, sizes = models[which], type(models[which].field_), []
    forward = field.forward

    def seen(self, t, x, condition=None):
        sizes.append(len(x))
        return forward(self, t, x, condition)

    whole = VERBS[verb](model, digits, batch_size=10)
    monkeypatch.setattr(field, "forward", seen)
    monkeypatch.setattr(portions, "PIXELS_IN_A_CACHE", 4 * 8 * 8)
    parts = VERBS[verb](model, digits)
    assert list(dict.fromkeys(sizes)) == [4, 2]
    assert torch.allclose(parts.float(), whole.float(), atol=1e-4 if verb == "trajectory" else 1)
    with pytest.raises(ValueError, match="batch_size. to be a whole number >= 1"):
        VERBS[verb](model, digits, batch_size=0)
