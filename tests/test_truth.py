"""What is true by another route: dual problems, closed forms and dense algebra; the whole file takes seconds."""

import math
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

import cellflow as cf
from cellflow.couplings import (
    DensePlan,
    Exact,
    Independent,
    ProductPlan,
    Sinkhorn,
    SparsePlan,
    UnbalancedSinkhorn,
    Within,
)
from cellflow.fields import Outputs
from cellflow.integrate import Noisy, log_density, ode, sde
from cellflow.objectives import GrowthMatching


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=cf.generator(seed), dtype=torch.float64)


# --- Unbalanced transport, against its dual, solved by scipy --------------------------------------------------------


def dual_plan(costs, a, b, epsilon, relaxations):
    """Maximise ``-sum_s r_s <a_s, exp(-f_s / r_s) - 1> - epsilon sum(ab^T (exp((f + g - C) / epsilon) - 1))``.

    The concave dual of the problem in `cellflow.couplings.sinkhorn`; for infinite r the first term is ``<a_s, f_s>``.
    """
    n = len(a)

    def side(f, mass, r):
        if math.isinf(r):
            return mass @ f, mass
        return -r * (mass @ np.expm1(-f / r)), mass * np.exp(-f / r)

    def negative(z):
        f, g = z[:n], z[n:]
        plan = np.outer(a, b) * np.exp((f[:, None] + g - costs) / epsilon)
        (value_f, slope_f), (value_g, slope_g) = side(f, a, relaxations[0]), side(g, b, relaxations[1])
        value = value_f + value_g - epsilon * (plan.sum() - a.sum() * b.sum())
        return -value, -np.concatenate([slope_f - plan.sum(1), slope_g - plan.sum(0)])

    found = minimize(
        negative, np.zeros(n + len(b)), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 0, "gtol": 1e-12}
    )
    f, g = found.x[:n], found.x[n:]
    return np.outer(a, b) * np.exp((f[:, None] + g - costs) / epsilon)


@pytest.mark.parametrize("relaxations", [(1.0, 1.0), (0.5, 4.0), (2.0, math.inf), (math.inf, 0.7)])
def test_unbalanced_plans_solve_the_dual(relaxations):
    x0, x1 = normals(9, 2), normals(7, 2, seed=1) + 0.7
    a, b = (torch.rand(n, generator=cf.generator(n), dtype=torch.float64) + 0.2 for n in (9, 7))
    costs = torch.cdist(x0, x1).square()
    found = UnbalancedSinkhorn(0.4, relaxations, tolerance=1e-12)(x0, x1, a, b).dense()
    expected = dual_plan(costs.numpy(), a.numpy(), b.numpy(), 0.4, relaxations)
    np.testing.assert_allclose(found, expected, atol=2e-6 * expected.max())


# --- Log density of Gaussians ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 5, 20, 50])
def test_the_log_density_of_a_gaussian_that_is_sheared_and_stretched(dim):
    """Along ``dx/dt = A x + c`` a standard normal becomes a Gaussian with covariance ``expm(A) expm(A)^T``."""
    matrix, push = 0.3 * normals(dim, dim) / math.sqrt(dim), normals(dim, seed=1)

    def field(t, x, condition):
        return x @ matrix.T + push

    flow = torch.linalg.matrix_exp(matrix)
    mean = ode(field, torch.zeros(1, dim, dtype=torch.float64)).x[-1][0]
    law = torch.distributions.MultivariateNormal(mean, flow @ flow.T)
    x = mean + normals(6, dim, seed=2) @ flow.T
    standard = torch.distributions.Normal(0.0, 1.0)
    found = log_density(field, x, lambda z: standard.log_prob(z).sum(1))
    torch.testing.assert_close(found, law.log_prob(x), atol=1e-4, rtol=1e-5)


# --- Marginals of a stochastic flow, both ways ----------------------------------------------------------------------


def bridge_field(spread0, spread1, sigma):
    """The exact field of a Brownian bridge between independent ``N(0, s0^2)`` and ``N(3, s1^2)``, in one dimension."""

    def moments(t):
        variance = (1 - t) ** 2 * spread0**2 + t**2 * spread1**2 + sigma**2 * t * (1 - t)
        slope = -2 * (1 - t) * spread0**2 + 2 * t * spread1**2 + sigma**2 * (1 - 2 * t)
        return 3 * t, variance, slope

    def field(t, x, condition):
        mean, variance, slope = (moment[:, None] for moment in moments(t))
        velocity = 3 + slope / (2 * variance) * (x - mean)
        return Outputs(velocity, score_drift=-(sigma**2) / 2 * (x - mean) / variance)

    return field


@pytest.mark.parametrize("method", ["heun", "euler_maruyama"])
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "backward"])
def test_marginals_of_a_stochastic_flow_are_those_of_the_path(method, forward):
    spread0, spread1, sigma, n = 1.0, 0.5, 0.8, 20_000
    begin, end = ((0.0, spread0), (3.0, spread1)) if forward else ((3.0, spread1), (0.0, spread0))
    x = begin[0] + begin[1] * normals(n, 1, seed=3)
    found = sde(
        bridge_field(spread0, spread1, sigma), x, sigma=sigma, generator=cf.generator(4), save=3,
        solver=Noisy(60, method), start=0.0 if forward else 1.0, stop=1.0 if forward else 0.0,
    ).x  # fmt: skip
    middle = math.sqrt((spread0**2 + spread1**2 + sigma**2) / 4)
    for states, (mean, spread) in zip(found[1:], [(1.5, middle), end], strict=True):
        assert float(states.mean()) == pytest.approx(mean, abs=5 * spread / math.sqrt(n) + 0.01)
        assert float(states.std()) == pytest.approx(spread, rel=0.03)


# --- Plans against dense algebra ------------------------------------------------------------------------------------


def all_plans():
    x0, x1 = normals(6, 2), normals(8, 2, seed=1)
    a, b = (torch.rand(n, generator=cf.generator(n), dtype=torch.float64) + 0.1 for n in (6, 8))
    yield "exact", Exact()(x0, x1, a, b), SparsePlan
    yield "sinkhorn", Sinkhorn(0.5)(x0, x1, a, b), DensePlan
    yield "unbalanced", UnbalancedSinkhorn(0.5, 1.0)(x0, x1, a, b), DensePlan
    yield "independent", Independent()(x0, x1, a, b), ProductPlan
    yield "within", Within("exact", [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1])(x0, x1), object


@pytest.mark.parametrize(("plan", "kind"), [plan[1:] for plan in all_plans()], ids=[plan[0] for plan in all_plans()])
def test_plans_push_and_pull_as_their_dense_matrix_does(plan, kind):
    assert isinstance(plan, kind)
    matrix = plan.dense()
    rows, columns = matrix.sum(1), matrix.sum(0)
    down, up = normals(6, 3, seed=5), normals(8, seed=6)
    torch.testing.assert_close(plan.push(down), (matrix / rows[:, None]).T @ down)
    torch.testing.assert_close(plan.pull(up), (matrix / columns) @ up)
    torch.testing.assert_close(plan.barycentric(up), matrix @ up / rows)
    torch.testing.assert_close(plan.origins(down), matrix.T @ down / columns[:, None])
    for found, expected in zip(plan.marginals(), (rows, columns), strict=True):
        torch.testing.assert_close(found, expected)


# --- Velocities over scales and times -------------------------------------------------------------------------------


def cells(scale=1.0, times=(0.0, 1.0, 3.0), n=16):
    """Three snapshots of a blob that travels by (2, -1) spreads in every interval; ``x`` in double precision."""
    x = np.concatenate([np.random.default_rng(0).normal((2 * k, -k), size=(n, 2)) for k in range(3)]) * scale
    obs = pd.DataFrame({"day": np.repeat(times, n)}, index=[f"c{k}" for k in range(3 * n)])
    return anndata.AnnData(obs=obs, obsm={"X_pca": x})


def velocity(scale, times, **settings):
    adata = cells(scale, times)
    settings = {
        "steps": 12,
        "batch_size": 16,
        "network": partial(cf.networks.MLP, width=32),
        "device": "cpu",
    } | settings
    flow = cf.SnapshotFlow(time_key="day", **settings).fit(adata)
    middle = (times[0] + times[1]) / 2
    return flow.velocity(adata.obsm["X_pca"][:10], middle).astype(np.float64) / scale


SETTINGS = {
    "default": lambda scale: {},
    "exact": lambda scale: {"coupling": "exact", "curve": "spline"},
    "stochastic": lambda scale: {"path": cf.paths.BrownianBridge(0.5 * scale), "stochastic": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_velocities_are_in_units_of_the_data_whatever_these_are(settings):
    expected = velocity(1.0, (0.0, 1.0, 3.0), **settings(1.0))
    for scale in (1e-20, 1e-15, 1e15):
        found = velocity(scale, (0.0, 1.0, 3.0), **settings(scale))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=f"{scale}")


@pytest.mark.parametrize("scale", [1e-40, 1e32])
def test_data_beyond_single_precision_are_refused_and_the_cure_cures(scale):
    with pytest.raises(ValueError, match=r"spread between 1e-30 and 1e\+30"):
        velocity(scale, (0.0, 1.0, 3.0))
    assert np.isfinite(velocity(scale / scale, (0.0, 1.0, 3.0))).all()


@pytest.mark.parametrize(("unit", "shift"), [(1e-12, -7.0), (1 / 24, 1e4), (1e12, -1.0)])
def test_velocities_are_per_unit_of_time_wherever_it_begins(unit, shift):
    expected = velocity(1.0, (0.0, 1.0, 3.0))
    times = tuple((time + shift) * unit for time in (0.0, 1.0, 3.0))
    np.testing.assert_allclose(velocity(1.0, times) * unit, expected, rtol=1e-3, atol=1e-3)


# --- Growth ---------------------------------------------------------------------------------------------------------


def test_of_two_clusters_one_triples_and_one_stays():
    """By weights of pairs, as `GrowthMatching` sees them, and by the field that is learned from them."""
    blob = normals(40, 2).float() * 0.3
    before = torch.cat([blob, blob + torch.tensor([9.0, 0.0])])
    after = torch.cat([blob, *[blob + torch.tensor([9.0, 0.0])] * 3])
    coupling = UnbalancedSinkhorn(0.05, (20.0, math.inf))
    rng = cf.generator(0)
    batches = cf.pairing.paired_batches(
        before, after, coupling=coupling, masses=(1.0, 2.0), batch_size=128, generator=rng
    )
    batch = next(iter(batches))
    right, rate = batch.x0[:, 0] > 4.5, batch.log_mass1 - batch.log_mass0
    assert float(rate[right].mean()) == pytest.approx(math.log(3), abs=0.1)
    assert float(rate[~right].mean()) == pytest.approx(0, abs=0.1)
    field = cf.networks.Heads(cf.networks.MLP(dim=2, width=32, heads=2), growth="shared")
    scaled = cf.networks.Standardized(field.velocity, shift=before.mean(0), scale=before.std(0), speed=torch.ones(4))
    field = cf.networks.Heads(scaled, growth="shared")
    cf.training.fit(field, GrowthMatching(), batches, steps=150, generator=rng)
    found = field(torch.full((80,), 0.5), before, None).growth.detach()
    assert float(found[40:].mean()) == pytest.approx(math.log(3), abs=0.15)
    assert float(found[:40].mean()) == pytest.approx(0, abs=0.15)
