"""What a field returns: the record, the module that builds it, and what lacks is named."""

import pytest
import torch
from sklearn.base import clone
from torch import nn

import cellflow as cf
from cellflow import networks
from cellflow.fields import Outputs, VelocityOf, outputs
from cellflow.networks import MLP, Heads, UNet

X, T = torch.linspace(-1, 1, 10).reshape(5, 2), torch.linspace(0, 1, 5)


class Affine(nn.Module):
    """Returns ``factor * x`` for each factor, side by side."""

    def __init__(self, *factors):
        super().__init__()
        self.factors = factors

    def forward(self, t, x, condition=None):
        return torch.cat([factor * x for factor in self.factors], dim=1)


WAYS = {
    "shared, both": (Heads(Affine(1, 2, 3), score="shared", growth="shared"), ("score", "growth")),
    "shared score": (Heads(Affine(1, 2), score="shared"), ("score",)),
    "shared growth": (Heads(Affine(1, 3), growth="shared"), ("growth",)),
    "separate, both": (Heads(Affine(1), score=Affine(2), growth=Affine(3)), ("score", "growth")),
    "score apart": (Heads(Affine(1, 3), score=Affine(2), growth="shared"), ("score", "growth")),
    "growth apart": (Heads(Affine(1, 2), score="shared", growth=Affine(3)), ("score", "growth")),
    "velocity": (Heads(Affine(1)), ()),
    "plain": (Affine(1), ()),
}


@pytest.mark.parametrize("way", WAYS)
def test_outputs_are_cut_in_order_or_come_from_networks_of_their_own(way):
    field, beside = WAYS[way]
    found = outputs(field(T, X), **dict.fromkeys(beside, True))
    assert torch.equal(found.velocity, X)
    assert torch.equal(VelocityOf(field)(T, X), X)
    assert (found.score_drift is not None) == ("score" in beside)
    assert (found.growth is not None) == ("growth" in beside)
    if "score" in beside:
        assert torch.equal(found.score_drift, 2 * X)
    if "growth" in beside:
        assert torch.allclose(found.growth, 3 * X.mean(dim=1))


@pytest.mark.parametrize("way", WAYS)
def test_what_lacks_is_named_with_the_cure(way):
    field, beside = WAYS[way]
    for asked in (("score",), ("growth",), ("score", "growth")):
        lacking = set(asked) - set(beside)
        if lacking:
            with pytest.raises(TypeError, match=f"no {min(lacking, key=asked.index)}.*Heads.*Matching"):
                outputs(field(T, X), **dict.fromkeys(asked, True))


def test_nonsense_is_no_output():
    with pytest.raises(TypeError, match="found tuple"):
        outputs((X, X))
    with pytest.raises(ValueError, match=r"\(5,\); found shape \(5, 1\)"):
        outputs(Outputs(X, growth=X[:, :1]), growth=True)
    with pytest.raises(ValueError, match="`score` to be a module, 'shared' or None; found 'both'"):
        Heads(Affine(1), score="both")
    with pytest.raises(ValueError, match=r"3 heads, \(n, 6\); found one that returns \(5, 4\)"):
        Heads(Affine(1, 2), score="shared", growth="shared")(T, X)


def test_images_have_heads_too(rng):
    unet = UNet(3, width=8, multipliers=(1,), blocks=1, heads=3)
    nn.init.normal_(unet.last.weight, generator=rng)
    x = torch.randn(2, 3, 8, 8, generator=rng)
    found = Heads(unet, score="shared", growth="shared")(torch.rand(2), x)
    assert found.velocity.shape == found.score_drift.shape == x.shape
    assert found.growth.shape == (2,)


def test_solvers_take_the_velocity_of_a_field_with_more(rng):
    field = WAYS["shared, both"][0]
    both = (cf.integrate.ode(one, X).x[-1] for one in (field, VelocityOf(field)))
    assert torch.equal(*both)
    density = lambda one: cf.integrate.log_density(one, X, lambda x: -x.square().sum(1))  # noqa: E731
    assert torch.equal(density(field), density(VelocityOf(field)))


def test_modules_of_before_are_there_with_a_warning():
    net = MLP(2, width=16, heads=2)
    for name, inner, output in (
        ("TwoHeads", (net,), "score_drift"),
        ("GrowthHead", (net,), "growth"),
        ("TwoNetworks", (Affine(1), Affine(2)), "score_drift"),
        ("GrowthNetwork", (Affine(1), Affine(2)), "growth"),
    ):
        with pytest.warns(FutureWarning, match=rf"networks.{name}` is now `cf.networks.Heads"):
            build = getattr(networks, name)
        found = build(*inner)(T, X)
        assert getattr(found, output) is not None
    with pytest.raises(AttributeError, match="no attribute 'ThreeHeads'"):
        networks.ThreeHeads  # noqa: B018


@pytest.mark.parametrize(
    ("estimator", "old", "new"),
    [
        (cf.SnapshotFlow, {"score": "two_heads"}, {"stochastic": True, "heads": "shared"}),
        (cf.SnapshotFlow, {"score": "two_networks"}, {"stochastic": True, "heads": "separate"}),
        (cf.SnapshotFlow, {"score": None}, {"stochastic": False}),
        (cf.SnapshotFlow, {"growth": "two_heads"}, {"growth": True, "heads": "shared"}),
        (cf.SnapshotFlow, {"growth": "two_networks"}, {"growth": True, "heads": "separate"}),
        (cf.SnapshotFlow, {"growth": None}, {"growth": False}),
        (cf.DomainTranslator, {"score": "two_heads"}, {"stochastic": True, "heads": "shared"}),
        (cf.DomainTranslator, {"score": "two_networks"}, {"stochastic": True, "heads": "separate"}),
        (cf.DomainTranslator, {"score": None}, {"stochastic": False}),
    ],
)
def test_settings_of_before_become_those_of_today(estimator, old, new):
    with pytest.warns(FutureWarning, match=f"is now `{estimator.__name__}"):
        found = estimator(**old)
    assert found.get_params() == estimator(**new).get_params()
    assert clone(found).get_params() == found.get_params()
    with pytest.raises(TypeError, match="unexpected keyword argument 'scores'"):
        estimator(scores="two_heads")
