"""Apple's GPUs know no float64: what runs where the field is must make none. A stand-in for such tensors refuses it."""

import pytest
import torch

import cellflow as cf
from cellflow.objectives import BridgeMatching, GrowthMatching, NoiseMatching, VelocityMatching
from cellflow.training.confirmed import Leg, confirmed_share


class OnApple(torch.Tensor):
    """A tensor as on Apple's GPUs: what is computed from it is one too, until it comes to the CPU; never float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu or (func is torch.Tensor.to and str(args[1:2]) in ("('cpu',)", f"({CPU!r},)")):
            return found.as_subclass(torch.Tensor)
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, OnApple) and one.dtype == torch.float64:
                raise RuntimeError(f"Cannot convert a MPS Tensor to float64 dtype, in {func}")
        return found


CPU = torch.device("cpu")


def on_apple(*shape, seed=0):
    return torch.randn(*shape, generator=cf.generator(seed)).as_subclass(OnApple)


class Grows(torch.nn.Linear):
    def forward(self, t, x, condition=None):
        return cf.fields.Outputs(super().forward(x), score_drift=-x, growth=x.mean(dim=1))


def field():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Grows(2, 2).requires_grad_(False)


def test_the_stand_in_refuses_what_apple_does():
    with pytest.raises(RuntimeError, match="float64"):
        on_apple(3).double()
    with pytest.raises(RuntimeError, match="float64"):
        on_apple(3) * torch.ones(3, dtype=torch.float64)
    assert type(on_apple(3).cpu().double()) is torch.Tensor


@pytest.mark.parametrize("solver", [cf.integrate.Fixed(), cf.integrate.Fixed("midpoint", 3), cf.integrate.Adaptive()])
def test_states_are_carried_in_single_precision(solver, monkeypatch):
    monkeypatch.setattr("cellflow.integrate.solvers.precise_device", lambda device: torch.device("meta"))  # another
    found = cf.integrate.ode(field(), on_apple(5, 2), solver=solver)
    assert (type(found.x), found.x.dtype) == (OnApple, torch.float32)


def test_noise_and_growth_are_carried_in_single_precision():
    path = cf.paths.BrownianBridge(0.5)
    noisy = cf.integrate.sde(
        field(), on_apple(5, 2), sigma=path.sigma, solver=cf.integrate.Noisy(3), generator=cf.generator(0)
    )
    grown = cf.integrate.grow(field(), on_apple(5, 2), solver=cf.integrate.Fixed("midpoint", 3))
    assert {noisy.x.dtype, grown.x.dtype, grown.log_weight.dtype} == {torch.float32}
    assert confirmed_share(field(), [Leg(on_apple(9, 2), on_apple(9, 2, seed=1), 0.0, 1.0)]) >= 0


@pytest.mark.parametrize(
    "objective",
    [
        VelocityMatching(),
        VelocityMatching(cf.paths.BrownianBridge(0.3)),
        NoiseMatching(cf.paths.VariancePreserving()),
        BridgeMatching(cf.paths.BrownianBridge(0.3), growth_weight=1.0),
        GrowthMatching(),
    ],
    ids=lambda objective: repr(objective)[:40],
)
def test_losses_are_in_single_precision(objective):
    masses = (
        {}
        if objective.__class__ in (VelocityMatching, NoiseMatching)
        else dict.fromkeys(("log_mass0", "log_mass1"), on_apple(8))
    )
    batch = cf.batch.Batch(on_apple(8, 2), on_apple(8, 2, seed=1), **masses)
    own = field() if masses else cf.networks.MLP(2, width=8)
    loss = objective(own, batch, generator=cf.generator(0))["loss"]
    assert (type(loss), loss.dtype) == (OnApple, torch.float32)


def test_plans_are_solved_where_there_is_double_precision():
    """An Apple GPU is asked for; there is none here, so that nothing of the pairs can have been put on it."""
    flow = cf.SnapshotFlow(rep="X_latent", batch_size=8)
    snapshots = flow._snapshots(cf.datasets.branching(seed=0))
    rng = cf.generator(seed=0)
    batches = flow._pair(snapshots, cf.couplings.Exact(), rng, None, torch.device("mps"), curve="straight")
    assert next(iter(batches)).x0.device == CPU
