"""Bent pairs: against scipy's splines, against a known curve, and what may not be asked of them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from parts import ALL_CURVES
from scipy.interpolate import CubicHermiteSpline, CubicSpline

import cellflow as cf
from cellflow.objectives import FlowMapObjective, SemigroupMatching, VelocityMatching
from cellflow.pairing import Spline, Straight
from cellflow.pairing.curves import tangents
from cellflow.paths import Linear
from conftest import make_cells

TIMES = [0.0, 0.25, 1.0]


def three_points():
    """One cell per snapshot: who goes where is certain."""
    return [torch.tensor([[x]], dtype=torch.float64) for x in (0.0, 1.0, -2.0)]


def batches_of(clouds, rng, **settings):
    return cf.pairing.snapshot_batches(clouds, TIMES, batch_size=1, generator=rng, **settings)


@pytest.mark.parametrize("bend0", [None, 2.0])
@pytest.mark.parametrize("bend1", [None, -3.0])
def test_a_bent_pair_is_a_cubic_hermite_spline(bend0, bend1, rng):
    s = torch.linspace(0, 1, 7, dtype=torch.float64)
    column = lambda value: torch.full((7, 1), value, dtype=torch.float64)  # noqa: E731
    bends = {name: column(v) for name, v in (("bend0", bend0), ("bend1", bend1)) if v is not None}
    point = Linear().between(cf.Batch(column(0.5), column(2.0), **bends), s, generator=rng)
    slopes = [1.5 + (bend0 or 0), 1.5 + (bend1 or 0)]
    spline = CubicHermiteSpline([0, 1], [0.5, 2.0], slopes)
    np.testing.assert_allclose(point.x[:, 0], spline(s), atol=1e-12)
    np.testing.assert_allclose(point.velocity[:, 0], spline.derivative()(s), atol=1e-12)


def test_pairs_of_three_snapshots_join_smoothly_and_leave_the_ends_without_curvature(rng):
    batch = next(iter(batches_of(three_points(), rng, curve="spline")))
    _, duration = batch.span()
    ends = [Linear().between(batch, torch.full((2,), s, dtype=torch.float64), generator=rng) for s in (0.0, 1.0)]
    begin, end = (point.velocity[:, 0] / duration for point in ends)
    assert end[0].item() == pytest.approx(begin[1].item())  # the velocity is continuous
    assert (end[0] - (1.0 / 0.25)).abs().item() > 0.5  # and not that of the straight line
    step = 1e-4
    for row, s in ((0, 0.0), (1, 1.0 - step)):
        near = [
            Linear().between(batch, torch.full((2,), s + k * step, dtype=torch.float64), generator=rng).velocity[row, 0]
            for k in (0, 1)
        ]
        assert abs((near[1] - near[0]).item() / step) < 0.01


def test_the_whole_bend_follows_a_quadratic_exactly(rng):
    """Cells on a parabola in time: its slope is that of the parabola through three of its points."""
    clouds = [torch.tensor([[3 * t**2 - t]], dtype=torch.float64) for t in TIMES]
    plans = [cf.couplings.Exact()(a, b) for a, b in pairwise(clouds)]
    slope = tangents(clouds, TIMES, plans)[1]
    assert slope.item() == pytest.approx(6 * TIMES[1] - 1)
    natural = CubicSpline(TIMES, [c.item() for c in clouds], bc_type="natural")
    assert abs(slope.item() - natural(TIMES[1], 1)) < 1.5  # near the natural spline's, which is no parabola


def test_half_a_bend_is_half_and_none_is_none(rng):
    clouds = three_points()
    whole, half, none = (next(iter(batches_of(clouds, rng, curve=Spline(bend)))) for bend in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half.bend0, whole.bend0 / 2)
    torch.testing.assert_close(half.bend1, whole.bend1 / 2)
    assert none.bend0 is None


def test_two_snapshots_have_nothing_to_bend_towards(rng):
    x = torch.randn(5, 2, generator=rng)
    batch = next(iter(cf.pairing.snapshot_batches([x, x + 1], [0.0, 1.0], batch_size=4, generator=rng, curve="spline")))
    assert (batch.bend0 == 0).all()
    assert (batch.bend1 == 0).all()


@pytest.mark.parametrize("objective", [VelocityMatching(), SemigroupMatching(adaptive=1.0)], ids=["flow", "map"])
@pytest.mark.slow
def test_a_flow_trained_on_bent_pairs_follows_the_curve(objective, rng):
    """A cloud carried rigidly along a parabola, seen three times: straight lines miss it halfway, bent ones do not."""
    times, shape = [0.0, 0.5, 1.0], 0.05 * torch.randn(200, 1, generator=rng)
    clouds = [shape + 4 * t * (1 - t) for t in times]

    def halfway(curve):
        batches = cf.pairing.snapshot_batches(clouds, times, batch_size=128, generator=rng, curve=curve)
        field = cf.networks.MLP(dim=1, width=32)
        if isinstance(objective, FlowMapObjective):  # without a teacher, which would follow the curve anyway
            field = cf.networks.FlowMap(cf.networks.MLP(dim=1, width=32, times=2))
        cf.training.fit(field, objective, batches, steps=600, generator=rng)
        return cf.integrate.ode(field, clouds[0], stop=0.25, solver=20).x[-1].mean().item()

    # The curve has 0.75 there; the spline with free ends 0.6875; straight lines 0.5.
    assert halfway("spline") == pytest.approx(0.6875, abs=0.03)
    assert halfway("straight") == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("curve", ALL_CURVES, ids=repr)
@pytest.mark.usefixtures("global_state_is_untouched")
def test_every_curve_joins_the_same_ends_at_the_same_times(curve):
    clouds = [torch.randn(n, 2, generator=cf.generator(seed=n)) + n for n in (12, 15, 10)]
    straight, bent, again = (
        next(iter(cf.pairing.snapshot_batches(clouds, TIMES, curve=c, batch_size=6, generator=cf.generator(seed=0))))
        for c in ("straight", curve, curve)
    )
    for field in ("x0", "x1", "start", "stop"):
        assert torch.equal(getattr(bent, field), getattr(straight, field))
    for s, end in ((0.0, bent.x0), (1.0, bent.x1)):
        torch.testing.assert_close(Linear().between(bent, torch.full((12,), s), generator=cf.generator(seed=0)).x, end)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(bent, again, strict=True))
    assert (bent.bend0 is None) == (curve == Straight())


@pytest.mark.parametrize("curve", ALL_CURVES, ids=repr)
def test_a_flow_along_every_curve_is_saved_and_loaded(curve, tmp_path):
    settings = {"time_key": "day", "steps": 3, "batch_size": 8, "device": "cpu"}
    cells = make_cells(sizes=(20, 25, 30))
    flow = cf.SnapshotFlow(curve=curve, **settings).fit(cells)
    flow.save(tmp_path)
    loaded, x = cf.SnapshotFlow.load(tmp_path, device="cpu"), cells.obsm["X_pca"][:4]
    assert loaded.curve == curve
    np.testing.assert_array_equal(loaded.velocity(x, 1.0), flow.velocity(x, 1.0))


def test_impossible_bends_are_refused(rng):
    clouds = [torch.randn(20, 2, generator=rng) for _ in TIMES]
    with pytest.raises(ValueError, match="0 <= bend <= 1"):
        Spline(1.5)
    with pytest.raises(ValueError, match="ot_batch_size='whole'"):
        batches_of(clouds, rng, curve=Spline(0.5), ot_batch_size=4)
