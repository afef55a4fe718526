"""Networks: shapes, what they react to, how they start, and what the standardising wrapper promises."""

import pytest
import torch

import cellflow as cf
from cellflow.networks import MLP, Standardized, TimeEmbedding


def test_a_fresh_network_moves_nothing(rng):
    assert not MLP(dim=4)(torch.rand(6), torch.randn(6, 4, generator=rng)).any()


def test_the_field_depends_on_time_state_and_condition(rng):
    net = MLP(dim=2, width=32, condition_dim=1)
    torch.nn.init.normal_(net.last.weight, generator=rng)
    t, x, c = torch.full((1,), 0.2), torch.zeros(1, 2), torch.zeros(1, 1)
    base = net(t, x, c)
    for changed in ((t + 0.5, x, c), (t, x + 1, c), (t, x, c + 1)):
        assert not torch.allclose(base, net(*changed), atol=1e-4)


def test_forward_mode_derivatives_agree_with_finite_differences(rng):
    net = MLP(dim=3, width=16).double()
    torch.nn.init.normal_(net.last.weight, generator=rng)
    t, x, direction = torch.tensor([0.3]).double(), torch.randn(1, 3).double(), torch.randn(1, 3).double()
    _, slope = torch.func.jvp(lambda y: net(t, y), (x,), (direction,))
    step = 1e-6
    assert torch.allclose(slope, (net(t, x + step * direction) - net(t, x - step * direction)) / (2 * step), atol=1e-6)


def test_time_embedding_tells_times_apart():
    found = TimeEmbedding(8)(torch.linspace(0, 1, 20))
    assert torch.pdist(found).min() > 1e-3


@pytest.mark.parametrize(
    ("x", "condition", "words"),
    [((5, 3), None, "states of width 2"), ((5, 2), (5, 1), "condition of width 0; found 1")],
)
def test_wrong_widths_are_named(x, condition, words):
    with pytest.raises(ValueError, match=words):
        MLP(dim=2)(torch.rand(5), torch.zeros(x), None if condition is None else torch.zeros(condition))


def test_a_forgotten_condition_is_named():
    with pytest.raises(ValueError, match="condition of width 4; found 0"):
        MLP(dim=2, condition_dim=4)(torch.rand(5), torch.zeros(5, 2))


def test_standardising_is_invisible_from_outside(rng):
    """Rescaling data and wrapper together rescales the field: no scale leaks."""
    inner = MLP(dim=2, width=16)
    torch.nn.init.normal_(inner.last.weight, generator=rng)
    shift, scale = torch.tensor([3.0, -1.0]), torch.tensor([2.0, 5.0])
    t, x = torch.rand(7, generator=rng), torch.randn(7, 2, generator=rng)
    plain = Standardized(inner, shift=torch.zeros(2), scale=torch.ones(2), speed=torch.ones(2))
    scaled = Standardized(inner, shift=shift, scale=scale, speed=scale)
    assert torch.allclose(scaled(t, x * scale + shift), plain(t, x) * scale, rtol=1e-4, atol=1e-5)


def test_a_constant_dimension_does_not_divide_by_zero():
    field = Standardized(MLP(dim=2), shift=torch.zeros(2), scale=torch.tensor([0.0, 1.0]), speed=torch.zeros(2))
    assert torch.isfinite(field(torch.zeros(1), torch.ones(1, 2))).all()


def test_standardized_refuses_another_width():
    field = Standardized(MLP(dim=2), shift=torch.zeros(2), scale=torch.ones(2), speed=torch.ones(2))
    with pytest.raises(ValueError, match="width 2; found 3"):
        field(torch.zeros(1), torch.ones(1, 3))


def test_unknown_network_lists_the_choices():
    with pytest.raises(ValueError, match="'mlp'"):
        cf.networks.resolve("transformer")
