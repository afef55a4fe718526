"""What random inputs have found: each is refused in a sentence that names the argument."""

import math

import pytest
import torch

import cellflow as cf

X = torch.zeros(4, 2)
BATCH = cf.Batch(X, X + 1)
RNG = cf.generator(seed=0)
FIELD = cf.networks.MLP(dim=2, width=8)
VELOCITY = cf.objectives.VelocityMatching()


def trained(**given):
    cf.training.fit(FIELD, given.pop("objective", VELOCITY), [BATCH], steps=1, generator=RNG, **given)


REFUSED = {
    "a frame as batches": (lambda: cf.training.EarlyStopping("ab", 0), TypeError, "`batches`"),
    "one batch": (lambda: cf.training.EarlyStopping(BATCH, 0), TypeError, "expected `batches`"),
    "nothing to measure on": (
        lambda: cf.training.EarlyStopping([], 0).measure(FIELD, VELOCITY), ValueError, "`batches`"
    ),
    "a learning rate that is no number": (lambda: cf.training.Recipe(learning_rate=math.nan), ValueError, "finite"),
    "noise that is no number": (lambda: cf.training.MarkovianFitting(sigma=math.nan), ValueError, "sigma > 0"),
    "times in double precision": (lambda: cf.networks.TimeEmbedding(4)(torch.zeros(1).double()), TypeError, "float32"),
    "a unit beyond single precision": (lambda: cf.objectives.VelocityMatching(unit=1e-40), ValueError, "unit"),
    "a unit in a list": (lambda: cf.objectives.VelocityMatching(unit=[1.0]), TypeError, "`unit`"),
    "a whole number beyond 64 bits": (lambda: cf.objectives.VelocityMatching(unit=10**30), TypeError, "64 bits"),
    "a class in place of a velocity": (lambda: cf.networks.Heads(int), TypeError, "`velocity`"),
    "a field that returns nothing": (
        lambda: cf.objectives.NoiseMatching()(lambda *_: None, BATCH, generator=RNG), TypeError, "returns a tensor"
    ),
    "an objective that returns nothing": (lambda: trained(objective=lambda *_, **__: None), TypeError, "'loss'"),
    "an objective without a loss": (lambda: trained(objective=lambda *_, **__: {}), TypeError, "'loss'"),
    "a class to be called at each step": (lambda: trained(on_step=dict), TypeError, "`on_step`"),
    "a class that pairs": (
        lambda: cf.training.refit(FIELD, VELOCITY, X, X, coupling=int, rounds=1, steps=1, generator=RNG),
        TypeError,
        "a coupling made by the model",
    ),
    "an empty cloud": (lambda: cf.couplings.SquaredEuclidean()(X, X[:0]), ValueError, "Expected clouds"),
    "images where states have labels": (
        lambda: cf.metrics.label_persistence(X, [0] * 4, X[..., None], [0] * 4), ValueError, "`x_next`"
    ),
    "bends that diverge": (
        lambda: cf.pairing.snapshot_batches(
            [torch.randn(9, 2, generator=cf.generator(seed=k)) for k in range(2)],
            [0.0, 1.0],
            curve=cf.training.Geodesics(centres=4, steps=1, learning_rate=1e30),
            generator=RNG,
        ),
        (cf.errors.ConvergenceError, FloatingPointError),
        "Lower `",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_random_inputs_have_found_is_refused_in_a_sentence(what):
    call, error, words = REFUSED[what]
    with pytest.raises(error, match=words):
        call()


def test_infinite_errors_of_a_flow_map_stay_infinite():
    """Weighed by 0 they would be neither."""
    flow_map = cf.networks.FlowMap(cf.networks.MLP(dim=2, width=8, times=2))
    objective = cf.objectives.EulerianMatching(unit=1e-30, adaptive=0.5)
    assert objective(flow_map, BATCH, generator=RNG)["loss"] == math.inf


def test_masses_of_pairs_may_be_in_double_precision():
    batch = BATCH._replace(log_mass0=torch.zeros(4).double(), log_mass1=torch.ones(4).double())
    field = cf.networks.Heads(cf.networks.MLP(dim=2, width=8, heads=2), growth="shared")
    found = cf.objectives.GrowthMatching()(field, batch, generator=RNG)
    assert all(term.isfinite() for term in found.values())
