"""Entropic potentials that begin with the kernels of flash-sinkhorn; what they compute is written here in torch."""

import sys
from types import ModuleType

import pytest
import torch

import cellflow as cf
from cellflow.couplings import PotentialsPlan, Sinkhorn, UnbalancedSinkhorn, flash, sinkhorn, streamed

COUPLINGS = [Sinkhorn(1.0, tolerance=1e-7), UnbalancedSinkhorn(1.0, relaxation=5.0, tolerance=1e-7)]
MODULE = "flash_sinkhorn.kernels.sinkhorn_flashstyle_sqeuclid"


def clouds(n=300, m=360, *, device="cpu"):
    rng = cf.generator(seed=0)
    x0, x1 = (torch.randn(size, 3, generator=rng) for size in (n, m))
    return x0.to(device), (1.2 * x1 + 0.5).to(device)


@pytest.fixture
def kernels(monkeypatch):
    """The contract of the package, as its documentation has it; returns the arguments of all calls."""
    calls = []

    def flashsinkhorn_lse(x, y, bias, eps, *, cost_scale=1.0, damping=1.0, allow_tf32=True):
        assert {x.dtype, y.dtype, bias.dtype} == {torch.float32}
        assert bias.shape == (len(y),)
        assert not allow_tf32
        calls.append((len(x), len(y)))
        return -eps * damping * torch.logsumexp(2 * cost_scale * x @ y.T / eps + bias, dim=1)

    for name in ("flash_sinkhorn", "flash_sinkhorn.kernels", MODULE):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[MODULE], "flashsinkhorn_lse", flashsinkhorn_lse, raising=False)
    monkeypatch.setattr(flash, "usable", lambda x0, cost: True)
    monkeypatch.setattr(sinkhorn, "MOST_BYTES", 8)
    monkeypatch.setattr(streamed, "SUBSAMPLE", 20)
    return calls


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_start_leaves_nearly_nothing_to_do_and_the_plan_is_that_of_all_pairs(coupling, kernels, monkeypatch):
    x0, x1 = clouds()
    found = coupling(x0, x1)
    monkeypatch.setattr(flash, "usable", lambda x0, cost: False)
    without = coupling(x0, x1)
    monkeypatch.undo()
    dense = coupling(x0, x1).dense()
    assert set(kernels) == {(300, 360), (360, 300)}
    assert isinstance(found, PotentialsPlan)
    assert found.iterations < without.iterations / 2
    assert torch.allclose(found.dense(), dense, rtol=0, atol=1e-5 * float(dense.max()))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_points_without_weight_are_left_out_of_the_kernels(coupling, kernels):
    x0, x1 = clouds()
    a, b = torch.ones(300), torch.ones(360)
    a[:20] = b[5:9] = 0
    found = coupling(x0, x1, a, b)
    assert set(kernels) == {(280, 356), (356, 280)}
    assert not found.marginals()[0][:20].any()


def test_numbers_beyond_single_precision_are_not_handed_to_it(kernels):
    x0, x1 = clouds()
    found = Sinkhorn(1.0 * 3000**2)(3000 * x0, 3000 * x1)
    kept = Sinkhorn(1e-2)(x0 / 100 + 10, x1 / 100 + 10)  # far from the origin, near each other
    assert kernels
    kernels.clear()
    hard = Sinkhorn(1e-2, tolerance=1e-2)(x0, x1)
    assert not kernels
    assert all(plan.mass == pytest.approx(1, rel=1e-6) for plan in (found, kept, hard))


def test_a_start_that_is_no_number_is_not_taken(kernels, monkeypatch):
    monkeypatch.setattr(sys.modules[MODULE], "flashsinkhorn_lse", lambda x, *_, **__: torch.full((len(x),), torch.nan))
    assert Sinkhorn(1.0)(*clouds()).mass == pytest.approx(1)


def test_it_serves_squared_distances_on_a_gpu_alone():
    assert not flash.usable(torch.zeros(2, 1), cf.couplings.SquaredEuclidean())


@pytest.mark.gpu
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_plans_on_a_gpu_are_those_of_the_processor(coupling, monkeypatch):
    pytest.importorskip("flash_sinkhorn", reason="flash-sinkhorn is not installed")
    monkeypatch.setattr(sinkhorn, "MOST_BYTES", 8)
    found, wanted = (coupling(*clouds(device=device)).dense().cpu() for device in ("cuda", "cpu"))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-3 * float(wanted.max()))
