"""Solvers against closed forms, against each other, and against their declared order."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from cellflow import integrate
from cellflow.errors import ConvergenceError, MissingDependencyError
from cellflow.integrate import TABLES, Adaptive, Fixed, Table, log_density, ode, solvers
from cellflow.integrate.solvers import ADAPTIVE
from cellflow.seeds import generator

FIXED = list(TABLES)
TORCHDYN_FIXED = ["torchdyn:euler", "torchdyn:midpoint", "torchdyn:rk4", "torchdyn:ieuler"]
TORCHDYN_ADAPTIVE = ["torchdyn:dopri5", "torchdyn:tsit5"]
ALL_METHODS = [*FIXED, *ADAPTIVE, *TORCHDYN_FIXED, *TORCHDYN_ADAPTIVE]
FIRST_ORDER = {"euler", "torchdyn:euler", "torchdyn:ieuler"}

RALSTON = Table(a=((), (2 / 3,)), b=(1 / 4, 3 / 4), c=(0.0, 2 / 3), order=2)
THREE_EIGHTHS = Table(
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    order=4,
)


def seasonal(t, x, condition):
    """Logistic growth at a rate cos(t): nonlinear, and driven by time."""
    return torch.cos(t).reshape(-1, *(1,) * (x.ndim - 1)) * x * (1 - x)


def seasonal_solution(t, x0):
    grown = x0 * math.exp(math.sin(t))
    return grown / (1 - x0 + grown)


def solver_of(method, steps=200, tolerance=1e-7):
    adaptive = method in ADAPTIVE or method in TORCHDYN_ADAPTIVE
    return Adaptive(method, rtol=tolerance, atol=tolerance) if adaptive else Fixed(method, steps=steps)


@pytest.fixture
def x0():
    return torch.rand(7, 3, generator=generator(0), dtype=torch.float64)


@pytest.mark.parametrize("table", [*TABLES.values(), RALSTON, THREE_EIGHTHS], ids=[*TABLES, "ralston", "3/8"])
def test_error_falls_with_the_declared_order(table, x0):
    steps = np.array([16, 32, 64, 128])
    truth = seasonal_solution(2.0, x0)
    errors = [(ode(seasonal, x0, solver=Fixed(table, steps=k), stop=2.0).x[-1] - truth).abs().max() for k in steps]
    slope = np.polyfit(np.log(1 / steps), np.log(np.array(errors)), 1)[0]
    assert slope == pytest.approx(table.order, abs=0.15)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_linear_field_gives_the_matrix_exponential(method, x0):
    a = torch.tensor([[-0.5, 1.0, 0.0], [-1.0, -0.5, 0.2], [0.0, 0.3, 0.4]], dtype=torch.float64)
    end = ode(lambda t, x, condition: x @ a.T, x0, solver=solver_of(method)).x[-1]
    tolerance = 1e-2 if method in FIRST_ORDER else 1e-4
    torch.testing.assert_close(end, x0 @ torch.linalg.matrix_exp(a).T, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", [*ADAPTIVE, *TORCHDYN_FIXED, *TORCHDYN_ADAPTIVE])
def test_other_packages_agree_with_our_rk4(method):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()

    def field(t, x, condition):
        return net(torch.cat([x, t.unsqueeze(1)], dim=1))

    x = torch.randn(9, 3, generator=generator(1), dtype=torch.float64)
    ours = ode(field, x, solver=200, save=3).x
    theirs = ode(field, x, solver=solver_of(method), save=3).x
    torch.testing.assert_close(theirs, ours, rtol=0, atol=5e-3 if method in FIRST_ORDER else 1e-4)


@pytest.mark.parametrize("name", ["euler", "midpoint", "rk4"])
def test_torchdyn_takes_the_same_steps(name, x0):
    ours = ode(seasonal, x0, solver=Fixed(name, steps=6), save=4, stop=2.0)
    theirs = ode(seasonal, x0, solver=Fixed(f"torchdyn:{name}", steps=6), save=4, stop=2.0)
    torch.testing.assert_close(theirs.x, ours.x, rtol=1e-12, atol=1e-12)
    assert theirs.evaluations == ours.evaluations


@pytest.mark.parametrize("method", ALL_METHODS)
def test_backwards_undoes_forwards(method, x0):
    there = ode(seasonal, x0, solver=solver_of(method), start=0.3, stop=1.7).x[-1]
    back = ode(seasonal, there, solver=solver_of(method), start=1.7, stop=0.3).x[-1]
    assert (there - x0).abs().max() > 0.05
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-2 if method in FIRST_ORDER else 1e-5)


def clocks(n):
    """Starts and stops of `n` samples: some run forwards, some backwards."""
    return torch.linspace(-1.0, 0.5, n, dtype=torch.float64), torch.linspace(1.0, 0.0, n, dtype=torch.float64)


@pytest.fixture(scope="module")
def each_alone():
    """The states of every sample, solved by itself."""
    x0 = torch.rand(7, 3, generator=generator(0), dtype=torch.float64)
    times = zip(*(side.tolist() for side in clocks(len(x0))), strict=True)
    return [
        ode(seasonal, x[None], solver=200, start=start, stop=stop, save=3).x[:, 0]
        for x, (start, stop) in zip(x0, times, strict=True)
    ]


@pytest.mark.parametrize("method", ALL_METHODS)
def test_every_sample_may_have_its_own_clock(method, x0, each_alone):
    start, stop = clocks(len(x0))
    together = ode(seasonal, x0, solver=solver_of(method), start=start, stop=stop, save=3)
    assert together.t.shape == (3, len(x0))
    assert together.x.shape == (3, *x0.shape)
    torch.testing.assert_close(together.t[1], (start + stop) / 2)
    tolerance = 1e-2 if method in FIRST_ORDER else 5e-5
    for k, alone in enumerate(each_alone):
        torch.testing.assert_close(together.x[:, k], alone, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_saved_states_lie_at_their_times(method, x0):
    trajectory = ode(seasonal, x0, solver=solver_of(method), stop=2.0, save=6)
    torch.testing.assert_close(trajectory.t, torch.linspace(0.0, 2.0, 6, dtype=x0.dtype))
    truth = torch.stack([seasonal_solution(t.item(), x0) for t in trajectory.t])
    torch.testing.assert_close(trajectory.x, truth, rtol=0, atol=1e-2 if method in FIRST_ORDER else 1e-5)
    assert torch.equal(trajectory.x[0], x0)


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 1, 5, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_follow_the_data(method, shape, dtype):
    x = torch.full(shape, 0.3, dtype=dtype)
    seen = []

    def field(t, x, condition):
        seen.append((t.shape, t.dtype, x.shape, x.dtype))
        return seasonal(t, x, condition)

    trajectory = ode(field, x, solver=solver_of(method, steps=5, tolerance=1e-3))
    assert trajectory.x.dtype == trajectory.t.dtype == dtype
    assert trajectory.x.shape == (2, *shape)
    assert trajectory.t.shape == (2,)
    assert set(seen) == {((4,), dtype, shape, dtype)}


@pytest.mark.parametrize("method", ALL_METHODS)
def test_evaluations_are_counted(method, x0):
    calls = []

    def field(t, x, condition):
        calls.append(t)
        return -x

    trajectory = ode(field, x0, solver=solver_of(method, steps=4), save=3)
    assert trajectory.evaluations == len(calls)
    if method in FIXED:
        assert trajectory.evaluations == 4 * len(TABLES[method].b)


def test_steps_are_added_until_the_saved_times_divide_them(x0):
    assert ode(seasonal, x0, solver=Fixed("euler", steps=20), save=21).evaluations == 20
    assert ode(seasonal, x0, solver=Fixed("euler", steps=20), save=8).evaluations == 21
    assert ode(seasonal, x0, solver=Fixed("euler", steps=20)).evaluations == 20


def test_the_ends_are_hit_exactly():
    x = torch.zeros(2, 1)
    times = []

    def field(t, x, condition):
        times.append(t)
        return torch.zeros_like(x)

    ode(field, x, start=0.1, stop=torch.tensor([0.7, 2.9]), solver=7)
    assert torch.equal(times[0], torch.tensor([0.1, 0.1]))
    assert torch.equal(times[-1], torch.tensor([0.7, 2.9]))


@pytest.mark.parametrize("method", ALL_METHODS)
def test_the_field_is_never_asked_beyond_the_ends(method, x0):
    times = []

    def field(t, x, condition):
        times.extend(t.tolist())
        return seasonal(t, x, condition)

    ode(field, x0, solver=solver_of(method, steps=6, tolerance=1e-4), start=0.2, stop=0.9, save=3)
    assert min(times) == pytest.approx(0.2, abs=1e-12)
    assert max(times) <= 0.9 + 1e-12


def test_condition_reaches_the_field(x0):
    target = torch.arange(7, dtype=x0.dtype).unsqueeze(1)
    end = ode(lambda t, x, condition: condition - x, x0, condition=target, solver=50).x[-1]
    torch.testing.assert_close(end, target + (x0 - target) * math.exp(-1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["rk4", "dopri5", "torchdyn:rk4", "torchdyn:dopri5"])
def test_gradient_only_when_asked_for(method):
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = torch.ones(1, 1, dtype=torch.float64)

    def field(t, x, condition):
        return rate * x

    assert not ode(field, x, solver=method).x.requires_grad
    end = ode(field, x, solver=method, gradient=True).x[-1]
    (slope,) = torch.autograd.grad(end.sum(), rate)
    assert slope.item() == pytest.approx(math.exp(0.7), rel=1e-4)
    with pytest.raises(ValueError, match="explicit method"):
        ode(field, x, solver="torchdyn:ieuler", gradient=True)


def test_inputs_and_random_state_are_left_alone(x0):
    before, state, numpy_state = x0.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for method in ALL_METHODS:
        ode(seasonal, x0, solver=solver_of(method, steps=2, tolerance=1e-3))
    log_density(seasonal, x0, lambda x: -x.sum(1), solver=2, n_probes=2, generator=generator(0))
    assert torch.equal(x0, before)
    assert not x0.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


# --- densities ---------------------------------------------------------------------------------------------------


def gaussian_flow(mean0, cov0, mean1, cov1):
    """Return the field of the affine map between two Gaussians along the straight line between them."""
    # The map x -> mean1 + m (x - mean0) with m = cov1^(1/2) cov0^(-1/2); along it x_t = (1 - t) x0 + t map(x0).
    m = torch.linalg.cholesky(cov1) @ torch.linalg.inv(torch.linalg.cholesky(cov0))
    eye = torch.eye(len(m), dtype=m.dtype)

    def field(t, x, condition):
        flat = x.reshape(len(x), -1)
        steps = eye + t[:, None, None] * (m - eye)
        mean = mean0 + t[:, None] * (mean1 - mean0)
        offset = torch.linalg.solve(steps, (flat - mean).unsqueeze(-1))
        return ((mean1 - mean0) + ((m - eye) @ offset).squeeze(-1)).reshape(x.shape)

    return field


@pytest.fixture
def gaussians():
    mean0, mean1 = torch.tensor([[0.0, 0, 0, 0], [1.0, -1, 0.5, 2]], dtype=torch.float64)
    root = torch.randn(4, 4, generator=generator(5), dtype=torch.float64)
    cov0, cov1 = torch.eye(4, dtype=torch.float64) * 2.0, root @ root.T + torch.eye(4, dtype=torch.float64)
    return MultivariateNormal(mean0, cov0), MultivariateNormal(mean1, cov1), gaussian_flow(mean0, cov0, mean1, cov1)


@pytest.mark.parametrize("method", ["midpoint", "heun", "rk4", *ADAPTIVE, "torchdyn:rk4", "torchdyn:dopri5"])
@pytest.mark.parametrize("shape", [(6, 4), (6, 1, 2, 2)])
def test_gaussian_to_gaussian_density(gaussians, method, shape):
    source, target, field = gaussians
    x = torch.randn(shape, generator=generator(2), dtype=torch.float64) * 2

    def base(x0):
        assert x0.shape == shape
        return source.log_prob(x0.reshape(len(x0), -1))

    found = log_density(field, x, base, solver=solver_of(method, steps=100, tolerance=1e-6))
    torch.testing.assert_close(found, target.log_prob(x.reshape(6, -1)), rtol=0, atol=2e-3)
    assert not found.requires_grad


def test_density_at_times_of_their_own(gaussians):
    source, _, field = gaussians
    x = torch.randn(3, 4, generator=generator(2), dtype=torch.float64)
    stop = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    together = log_density(field, x, source.log_prob, stop=stop, solver=60)
    alone = [log_density(field, x[k : k + 1], source.log_prob, stop=stop[k].item(), solver=60) for k in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(together[0], source.log_prob(x[0]))


@pytest.mark.parametrize("shape", [(5, 4), (5, 1, 2, 2)])
def test_hutchinson_is_unbiased_and_varies(gaussians, shape):
    source, target, field = gaussians
    x = torch.randn(shape, generator=generator(2), dtype=torch.float64)
    copies = x.repeat(400, *(1,) * (x.ndim - 1))  # every copy gets signs of its own

    def base(y):
        return source.log_prob(y.reshape(len(y), -1))

    draws = log_density(field, copies, base, solver=12, n_probes=1, generator=generator(3)).reshape(400, 5)
    error_of_mean = draws.std(0) / math.sqrt(400)
    assert (error_of_mean > 1e-3).all()
    assert ((draws.mean(0) - target.log_prob(x.reshape(5, -1))).abs() < 4 * error_of_mean).all()


def test_more_probes_less_noise(gaussians):
    source, _, field = gaussians
    x = torch.randn(300, 4, generator=generator(2), dtype=torch.float64)
    exact = log_density(field, x, source.log_prob, solver=8)
    one, many = (
        log_density(field, x, source.log_prob, solver=8, n_probes=k, generator=generator(4)) - exact for k in (1, 16)
    )
    assert (one.std() / many.std()).item() == pytest.approx(4.0, rel=0.2)


def test_signs_are_exact_for_independent_axes():
    x = torch.randn(8, 3, generator=generator(0), dtype=torch.float64)

    def field(t, x, condition):
        return torch.sin(x) + t.unsqueeze(1)

    def base(x):
        return -(x**2).sum(1)

    exact = log_density(field, x, base)
    torch.testing.assert_close(log_density(field, x, base, n_probes=1, generator=generator(0)), exact)


def test_density_mass_is_one():
    def field(t, x, condition):
        return torch.sin(2 * x) * torch.cos(t).unsqueeze(1) - 0.3 * x

    grid = torch.linspace(-8, 8, 2001, dtype=torch.float64).unsqueeze(1)
    base = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    density = log_density(field, grid, lambda x: base.log_prob(x).squeeze(1), solver=30).exp()
    assert torch.trapezoid(density, grid.squeeze(1)).item() == pytest.approx(1.0, abs=1e-6)


def test_density_gradient_reaches_parameters_and_inputs():
    rate = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.5], [2.0]], dtype=torch.float64, requires_grad=True)
    base = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    log_p = log_density(lambda t, x, c: rate * x, x, lambda y: base.log_prob(y).squeeze(1), gradient=True)
    by_rate, by_x = torch.autograd.grad(log_p.sum(), [rate, x])
    # At time 1 the density is Normal(0, exp(rate)): log p = -x^2 exp(-2 rate) / 2 - rate + const.
    assert by_rate.item() == pytest.approx((x**2).sum().item() * math.exp(-0.8) - 2, rel=1e-6)
    torch.testing.assert_close(by_x, -x.detach() * math.exp(-0.8), rtol=1e-6, atol=1e-6)


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rk5", "torchdyn:rk5", "torchdyn:alf", "dopri"])
def test_unknown_method_lists_the_choices(method, x0):
    with pytest.raises(ValueError, match=r"Unknown .*method .*Choose from: .*'rk4'"):
        ode(seasonal, x0, solver=method)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_a_method_of_the_other_kind_is_named(method):
    adaptive = method in ADAPTIVE or method in TORCHDYN_ADAPTIVE
    other, kind = (Fixed, "Adaptive") if adaptive else (Adaptive, "Fixed")
    with pytest.raises(ValueError, match=rf"Take `{kind}\('{method}'"):
        other(method)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"solver": 0}, "`steps` to be a whole number >= 1; found 0"),
        ({"save": 1}, "`save` must be at least 2; found 1"),
    ],
)
def test_counts_are_checked(wrong, message, x0):
    with pytest.raises(ValueError, match=message):
        ode(seasonal, x0, **wrong)


def test_states_must_be_finite_floats(x0):
    with pytest.raises(TypeError, match=r"torch\.int64"):
        ode(seasonal, torch.ones(3, 2, dtype=torch.int64))
    x0[2, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        ode(seasonal, x0)


def test_times_must_fit(x0):
    with pytest.raises(ValueError, match="7 samples"):
        ode(seasonal, x0, start=torch.zeros(3))


def test_a_velocity_of_another_shape_is_refused(x0):
    with pytest.raises(ValueError, match=r"\(7, 3\).*\(7, 1\)"):
        ode(lambda t, x, condition: x[:, :1], x0)


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5", "torchdyn:rk4", "torchdyn:dopri5"])
def test_running_away_names_the_time(method, x0):
    def field(t, x, condition):
        return torch.where((t > 0.5).unsqueeze(1), x / 0, x)

    with pytest.raises(ConvergenceError, match=r"at t = 0\.[5-9].* for 7 of 7 samples"):
        ode(field, x0, solver=method)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "torchdyn:dopri5", "torchdyn:tsit5", "rk4"])
def test_blow_up_in_finite_time_is_an_error(method, monkeypatch):
    monkeypatch.setattr(solvers, "MOST_EVALUATIONS", 3000)
    with pytest.raises(ConvergenceError):
        ode(lambda t, x, condition: x**3, torch.full((2, 1), 3.0), solver=method, stop=4.0)


@pytest.mark.parametrize("method", ["dopri5", "torchdyn:dopri5"])
def test_tolerances_below_the_dtype_end_in_an_error(method, monkeypatch):
    monkeypatch.setattr(solvers, "MOST_EVALUATIONS", 2000)
    with pytest.raises(ConvergenceError, match=r"rtol|evaluations"):
        ode(seasonal, torch.rand(5, 3, generator=generator(0)), solver=Adaptive(method, rtol=1e-14, atol=1e-14))


def test_overflow_in_the_last_step_is_noticed():
    with pytest.raises(ConvergenceError, match="t = 1"):
        ode(lambda t, x, condition: torch.full_like(x, 3e38), torch.full((2, 1), 3e38), solver=Fixed("euler", steps=1))


def test_missing_torchdyn_says_how_to_install_it(x0, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdyn.numerics", None)
    with pytest.raises(MissingDependencyError, match=r"cellflow-torch\[torchdyn\]"):
        ode(seasonal, x0, solver="torchdyn:rk4")


@pytest.mark.parametrize("given", [{"n_probes": 1}, {"generator": generator(0)}])
def test_probes_and_generator_come_together(given, x0):
    with pytest.raises(ValueError, match="belong together"):
        log_density(seasonal, x0, lambda x: x.sum(1), **given)


def test_density_refuses_what_it_cannot_know(x0):
    with pytest.raises(ValueError, match="at least 1"):
        log_density(seasonal, x0, lambda x: x.sum(1), n_probes=0, generator=generator(0))
    with pytest.raises(ValueError, match="without a graph"):
        log_density(lambda t, x, condition: torch.ones_like(x), x0, lambda x: x.sum(1))
    with pytest.raises(ValueError, match="base_log_density"):
        log_density(seasonal, x0, lambda x: x)


def test_a_table_must_be_explicit():
    with pytest.raises(ValueError, match=r"rows of length \[1\]"):
        Table(a=((1.0,),), b=(1.0,), c=(1.0,), order=1)


def test_public_names():
    assert all(hasattr(integrate, name) for name in integrate.__all__)
