"""The U-Net and the adapters for others' image networks: shapes, derivatives in every mode, what they react to."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import cellflow as cf
from cellflow.integrate import Fixed
from cellflow.networks import DiffusersField, Heads, UNet
from cellflow.networks.sizes import COARSEST, unet_for
from cellflow.networks.stages import Attention, Norm


def made(rng, **settings):
    """A small U-Net whose every weight is drawn: fresh ones are blind, as last layers start at zero."""
    net = UNet(settings.pop("channels", 2), **{"width": 8, "multipliers": (1, 2), "blocks": 1} | settings)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.2, generator=rng)
    return net.double()


def images(rng, n=2, channels=2, size=(8, 8)):
    return torch.randn(n, channels, *size, generator=rng, dtype=torch.float64)


def test_a_fresh_network_moves_nothing(rng):
    assert not UNet(3, width=8)(torch.rand(2), torch.randn(2, 3, 8, 12, generator=rng)).any()


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (2, 1, 3)])
@pytest.mark.parametrize("attention", [(), (0,)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_field_is_shaped_as_the_image(multipliers, attention, channels, rng):
    net = made(rng, channels=channels, multipliers=multipliers, attention=attention)
    x = images(rng, channels=channels, size=(8, 12))
    assert net(torch.rand(2).double(), x).shape == x.shape


@pytest.mark.parametrize("attention", [(), (0, 1)])
def test_the_field_depends_on_time_every_pixel_and_condition(attention, rng):
    net = made(rng, attention=attention, condition_dim=3)
    t, x, c = torch.full((1,), 0.2).double(), images(rng, n=1), torch.zeros(1, 3).double()
    base = net(t, x, c)
    corner = x.clone()
    corner[0, 0, -1, -1] += 1
    for changed in ((t + 0.5, x, c), (t, corner, c), (t, x, c + 1)):
        assert (net(*changed) - base)[0, :, 0, 0].abs().max() > 1e-6  # the far corner of the image feels it too


def test_every_sample_is_on_its_own(rng):
    """Times, images and conditions of one sample do not reach another."""
    net, x, t = made(rng, condition_dim=2), images(rng, n=3), torch.rand(3).double()
    c = torch.eye(2).double()[[0, 1, 0]]
    alone = torch.cat([net(t[k : k + 1], x[k : k + 1], c[k : k + 1]) for k in range(3)])
    assert torch.allclose(net(t, x, c), alone, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_forward_mode_derivatives_agree_with_finite_differences(layout, rng):
    """In the image and in the time together, with attention on both levels."""
    net = made(rng, attention=(0, 1), times=2)
    x, along = images(rng).to(memory_format=layout), images(rng)
    t, forth = torch.rand(2, 2).double(), torch.ones(2, 2).double()
    value, slope = torch.func.jvp(net, (t, x), (forth, along))
    step = 1e-5
    ahead, behind = (net(t + h * forth, x + h * along) for h in (step, -step))
    assert torch.allclose(value, net(t, x), atol=1e-12)
    assert torch.allclose(slope, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
    assert slope.abs().max() > 0.01


def test_gradients_of_forward_mode_derivatives_agree_with_finite_differences(rng):
    """Reverse over forward, in the weights: what flow maps are trained with."""
    net, x, along, t = made(rng), images(rng), images(rng), torch.rand(2).double()

    def bend():
        return torch.func.jvp(lambda x: net(t, x), (x,), (along,))[1].square().sum()

    weights = [net.first.weight, net.time.linear.weight, net.middle[0].attention.looks.weight, net.last.weight]
    slopes = torch.autograd.grad(bend(), weights)
    with torch.no_grad():
        for weight, slope in zip(weights, slopes, strict=True):
            change, step = torch.randn(weight.shape, generator=rng, dtype=torch.float64), 1e-6
            weight += step * change
            ahead = bend()
            weight -= 2 * step * change
            behind = bend()
            weight += step * change
            assert ((ahead - behind) / (2 * step)).item() == pytest.approx((slope * change).sum().item(), rel=1e-4)


def test_attention_written_out_is_the_fused_one(rng):
    layer, x = Attention(8, head_dim=4).double(), images(rng, channels=8)
    nn.init.normal_(layer.answer.weight, generator=rng)
    written, _ = torch.func.jvp(layer, (x,), (torch.zeros_like(x),))
    assert torch.allclose(layer(x), written, atol=1e-12)
    assert not torch.allclose(written, x, atol=1e-2)


@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (8, 2), (16, 4), (48, 8), (128, 32), (192, 32)])
def test_norms_have_groups_of_four_channels_at_least(channels, groups):
    assert Norm(channels).num_groups == groups


def test_two_heads_are_side_by_side(rng):
    found = Heads(made(rng, heads=2), score="shared")(torch.rand(2).double(), images(rng), None)
    assert found.velocity.shape == found.score_drift.shape == (2, 2, 8, 8)
    assert not torch.allclose(found.velocity, found.score_drift, atol=1e-3)


def test_one_graph_when_compiled(rng):
    net, x, t = made(rng, condition_dim=2), images(rng), torch.rand(2).double()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    c = torch.eye(2).double()
    assert torch.allclose(compiled(t, x, c), net(t, x, c), atol=1e-10)


def test_weights_survive_a_file(rng, tmp_path):
    """They are kept channels last, which safetensors does not know."""
    net = made(rng)
    cf.training.checkpoint.save_tensors(tmp_path / "net.safetensors", net.state_dict(), {})
    other = UNet(2, width=8, multipliers=(1, 2), blocks=1).double()
    other.load_state_dict(cf.training.checkpoint.load_tensors(tmp_path / "net.safetensors")[0])
    t, x = torch.rand(2).double(), images(rng)
    assert torch.equal(net(t, x), other(t, x))


def test_it_learns_a_velocity_that_depends_on_the_place(rng):
    """Left half of the image brightens, right half darkens."""
    x0 = torch.randn(64, 1, 8, 8, generator=rng)
    target = torch.ones(8, 8)
    target[:, 4:] = -1
    net = UNet(1, width=8, multipliers=(1, 2), blocks=1)
    batches = cf.pairing.paired_batches(x0, x0 + target, coupling="independent", batch_size=32, generator=rng)
    history = cf.training.fit(net, cf.objectives.VelocityMatching(), batches, steps=60, generator=rng)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    found = cf.integrate.ode(net, x0[:8], solver=Fixed("midpoint", steps=2)).x[-1] - x0[:8]
    assert found[..., :4].mean() > 0.3 > -0.3 > found[..., 4:].mean()


@pytest.mark.parametrize(
    ("x", "condition", "words"),
    [
        ((2, 3, 8, 8), None, r"images \(n, 2, height, width\); found shape \(2, 3, 8, 8\)"),
        ((2, 2, 64), None, "images"),
        ((2, 2, 8, 8), (2, 3), "condition of width 0; found 3"),
    ],
)
def test_wrong_input_is_named(x, condition, words):
    with pytest.raises(ValueError, match=words):
        UNet(2, width=8)(torch.rand(2), torch.zeros(x), None if condition is None else torch.zeros(condition))


@pytest.mark.parametrize("sides", [(7, 8), (10, 13), (1, 5)])
def test_odd_sides_are_halved_upwards(sides, rng):
    net, x = made(rng, multipliers=(1, 2, 2)), images(rng, size=sides)
    found = net(torch.rand(2, generator=rng, dtype=torch.float64), x)
    assert found.shape == x.shape
    assert (found[..., -1, -1] != 0).all()


@pytest.mark.parametrize("side", range(8, 513, 8))
def test_every_size_has_a_network_whose_coarsest_level_is_small(side):
    chosen = unet_for((1, side, side))
    levels = len(chosen.keywords["multipliers"])
    coarsest = -(-side // 2 ** (levels - 1))
    assert 3 <= coarsest <= COARSEST
    assert levels - 1 in chosen.keywords["attention"]
    with torch.device("meta"):  # shapes alone
        assert chosen(1)(torch.zeros(1), torch.zeros(1, 1, side, side)).shape == (1, 1, side, side)


def test_larger_images_have_deeper_networks_and_the_largest_none():
    levels = [len(unet_for((1, side, side)).keywords["multipliers"]) for side in (8, 64, 128, 256, 512)]
    assert levels == [2, 4, 4, 5, 6]
    with pytest.raises(ValueError, match="Cut them into tiles"):
        unet_for((1, 8, 2048))


def test_wrong_number_of_times_is_named():
    x = torch.zeros(2, 2, 8, 8)
    with pytest.raises(ValueError, match=r"Expected 1 time.*`times=2`"):
        UNet(2, width=8)(torch.rand(2, 2), x)
    with pytest.raises(ValueError, match=r"Expected 2 time.*FlowMap"):
        UNet(2, width=8, times=2)(torch.rand(2), x)


@pytest.mark.parametrize(
    "settings", [{"multipliers": ()}, {"multipliers": (1, 0)}, {"blocks": 0}, {"width": 0}, {"attention": (3,)}]
)
def test_impossible_plans_are_refused(settings):
    with pytest.raises(ValueError, match="Expected"):
        UNet(2, **{"width": 8, "multipliers": (1, 2)} | settings)


class Labelled(nn.Module):
    """Called as diffusers' networks are; answers with time and label."""

    def __init__(self, channels=1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        assert return_dict
        label = 0 if class_labels is None else class_labels[:, None, None, None]
        return SimpleNamespace(sample=(timestep[:, None, None, None] + label + 0 * sample) * self.weight)


def test_others_networks_get_scaled_times_and_whole_labels():
    field, x, t = DiffusersField(Labelled(), time_scale=100.0), torch.zeros(3, 1, 2, 2), torch.tensor([0.0, 0.5, 1.0])
    labels = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])  # the last one has no class
    assert field(t, x)[:, 0, 0, 0].tolist() == [0, 50, 100]
    assert field(t, x, labels)[:, 0, 0, 0].tolist() == [1, 50, 102]


def test_others_networks_with_other_outputs_or_two_times_are_refused():
    with pytest.raises(ValueError, match="out_channels=1"):
        DiffusersField(Labelled(channels=2))(torch.zeros(1), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="one time"):
        DiffusersField(Labelled())(torch.zeros(1, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="Labelled sees one"):
        cf.networks.FlowMap(Labelled())


def real(name):
    """A tiny network of diffusers', with two classes."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra `images`)")
    if name == "UNet2DModel":
        kinds = {
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        }
        sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "num_class_embeds": 3}
        return diffusers.UNet2DModel(sample_size=8, in_channels=2, out_channels=2, **kinds, **sizes)
    shape = {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "sample_size": 8, "patch_size": 2}
    return diffusers.DiTTransformer2DModel(
        in_channels=2, out_channels=2, num_embeds_ada_norm=2, norm_num_groups=2, **shape
    )


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize("name", ["UNet2DModel", "DiTTransformer2DModel"])
def test_diffusers_networks_are_fields_that_train(name, rng):
    field, x = DiffusersField(real(name)), torch.randn(4, 2, 8, 8, generator=rng)
    condition = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    batch = cf.Batch(x, x + 1, condition=condition)
    loss = cf.objectives.VelocityMatching()(field, batch, generator=rng)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert sum(weight.grad.abs().sum() for weight in field.parameters() if weight.grad is not None) > 0
    field.eval()
    assert cf.integrate.ode(field, x, solver=Fixed("euler", steps=2), condition=condition).x.shape == (2, 4, 2, 8, 8)
