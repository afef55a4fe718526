"""Numbers that are none, of other types, or of extreme sizes: they work, or are refused in a sentence; nothing is NaN.

Crossed over every call below the estimators that takes states, times, weights or sizes; for the verbs of estimators see
`test_states.py` too. What counts as a sentence is what `tests/fuzz/judge.py` says.
"""

import math
import warnings
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import cellflow as cf
from cellflow.couplings import DensePlan, Exact, Given, Independent, ProductPlan, Sinkhorn, UnbalancedSinkhorn, Within
from cellflow.errors import ConvergenceError
from cellflow.fields import Outputs
from cellflow.integrate import Fixed
from cellflow.objectives import BridgeMatching, GrowthMatching, VelocityMatching
from tests.fuzz.judge import fault_of, holds_nan

N, DIM = 5, 3
X = torch.randn(2 * N, DIM, generator=cf.generator(seed=0))
SOURCE, TARGET = X[:N], X[N:]


def rng():
    return cf.generator(seed=0)


def spoiled(value):
    x = SOURCE.clone()
    x[1, 1] = value
    return x


def quantised():
    with warnings.catch_warnings(action="ignore"):  # torch will do without, one day
        return torch.quantize_per_tensor(SOURCE, 0.1, 0, torch.quint8)


BAD_TENSORS = {
    "nan": spoiled(math.nan),
    "infinity": spoiled(math.inf),
    "empty": SOURCE[:0],
    "no axis": torch.tensor(1.0),
    "complex": SOURCE + 1j,
    "sparse": SOURCE.to_sparse(),
    "nested": torch.nested.nested_tensor([SOURCE[:2], SOURCE[:3]], layout=torch.jagged),
    "quantised": quantised(),
    "meta": SOURCE.to("meta"),
    "array of text": SOURCE.numpy().astype(str),
    "nothing": None,
    "sparse array": sparse.csr_matrix(SOURCE.numpy()),
    "an AnnData": anndata.AnnData(SOURCE.numpy()),
    "objects": np.array([[object()] * DIM] * N),
    "beyond double precision": torch.full((N, DIM), 1e300, dtype=torch.float64),
}
GOOD_TENSORS = {
    "whole numbers": (10 * SOURCE).long(),
    "bytes": (10 * SOURCE).abs().to(torch.uint8),
    "truth values": SOURCE > 0,
    "double precision": SOURCE.double(),
    "half precision": SOURCE.half(),
    "bfloat16": SOURCE.bfloat16(),
    "with gradients": SOURCE.clone().requires_grad_(),
    "other strides": SOURCE.T.contiguous().T,
    "one row": SOURCE[:1],
}


def decay(t, x, condition):
    return -x


def all_heads(t, x, condition):
    return Outputs(-x, -x, -x.flatten(1).sum(1))


def metric_at_zero(x):
    metric = cf.pairing.rbf_metric(x, centres=2, generator=rng())
    return metric(torch.zeros(2, DIM, dtype=metric.centres.dtype))


def log_normal(x):
    return torch.distributions.Normal(0.0, 1.0).log_prob(x).flatten(1).sum(1)


COUPLINGS = {
    "exact": Exact(),
    "auto": UnbalancedSinkhorn(),
    "sinkhorn": Sinkhorn(2.0),
    "independent": Independent(),
    "given": Given(),
    "within": Within("exact", [0] * N, [0] * N),
}
FIRST = {
    "paired_batches x0": lambda x: next(iter(cf.pairing.paired_batches(x, TARGET, batch_size=4, generator=rng()))),
    "paired_batches x1": lambda x: next(iter(cf.pairing.paired_batches(TARGET, x, batch_size=4, generator=rng()))),
    "snapshot_batches": lambda x: next(
        iter(cf.pairing.snapshot_batches([TARGET, x, TARGET], [0, 1, 2], curve="mean", batch_size=4, generator=rng()))
    ),
    "rbf_metric": metric_at_zero,
    **{
        f"coupling {name} x0": partial(lambda coupling, x: coupling(x, TARGET).dense(), c)
        for name, c in COUPLINGS.items()
    },
    **{
        f"coupling {name} x1": partial(lambda coupling, x: coupling(TARGET, x).dense(), c)
        for name, c in COUPLINGS.items()
    },
}
FLOATING = {
    "ode": lambda x: cf.integrate.ode(decay, x, solver=3).x,
    "sde": lambda x: cf.integrate.sde(all_heads, x, sigma=1.0, generator=rng(), solver=3).x,
    "weighted sde": lambda x: cf.integrate.sde(all_heads, x, sigma=1.0, generator=rng(), solver=3, growth=True),
    "grow": lambda x: cf.integrate.grow(all_heads, x, solver=3),
    "jump": lambda x: cf.integrate.jump(decay, x).x,
    "log_density": lambda x: cf.integrate.log_density(decay, x, log_normal, solver=3),
}
CALLS = FIRST | FLOATING
BLIND = [f"coupling {kind} {side}" for kind in ("independent", "given") for side in ("x0", "x1")]
HARMLESS = {  # nothing can be moved nowhere, blind couplings need no finite costs, and a metric reads any layout
    ("sparse", "rbf_metric"),
    ("empty", "ode"), ("empty", "sde"), ("empty", "jump"),
    *(("beyond double precision", name) for name in FLOATING),
    *(("beyond double precision", name) for name in BLIND),
}  # fmt: skip


def refused(call, *args):
    """Return the error of a call, which must be a sentence of ours."""
    with pytest.raises(Exception) as found:  # noqa: PT011 (its kind and origin are what `fault_of` looks at)
        call(*args)
    assert fault_of(found.value) is None
    return found.value


@pytest.mark.parametrize("bad", BAD_TENSORS)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_cloud_of_known_real_numbers_is_refused(call, bad):
    if (bad, call) in HARMLESS:
        assert not holds_nan(CALLS[call](BAD_TENSORS[bad]))
    else:
        refused(CALLS[call], BAD_TENSORS[bad])


@pytest.mark.parametrize("good", GOOD_TENSORS)
@pytest.mark.parametrize("call", CALLS)
def test_clouds_of_any_type_of_number_work(call, good):
    x = GOOD_TENSORS[good]
    if call in FLOATING and not x.is_floating_point():
        assert "x.float()" in str(refused(CALLS[call], x))
    elif good == "one row" and ("given" in call or "within" in call or call == "rbf_metric"):
        refused(CALLS[call], x)
    else:
        assert not holds_nan(CALLS[call](x))


TRAINED = {"velocity": VelocityMatching(), "growth": GrowthMatching(), "bridge": BridgeMatching(growth_weight=1.0)}
KINDS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]


def trained(x0, x1, objective, *, as_list, default=torch.float32):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        generator, inner = rng(), cf.networks.MLP(dim=DIM, width=8, heads=3)
        field = cf.networks.Heads(inner, score="shared", growth="shared")
        batches = cf.pairing.paired_batches(x0, x1, batch_size=4, masses=(1.0, 2.0), generator=generator)
        if as_list:
            batches = [cf.Batch(x0, x1, log_mass0=torch.zeros(N), log_mass1=torch.ones(N))]
        history = cf.training.fit(field, TRAINED[objective], batches, steps=2, generator=generator)
        assert all(math.isfinite(loss) for loss in history["loss"])
        return {weight.dtype for weight in field.parameters()}
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("objective", TRAINED)
@pytest.mark.parametrize("as_list", [False, True], ids=["paired", "listed"])
def test_every_type_of_number_is_trained_on_in_the_precision_of_the_field(objective, as_list):
    for kind in KINDS:
        for other in {torch.float32, kind} if not as_list or kind != torch.bool else ():
            kinds = trained((10 * SOURCE).abs().to(kind), TARGET.to(other), objective, as_list=as_list)
            assert kinds == {torch.float32}, (kind, other)
    for default in (torch.float64, torch.float32):
        assert trained(SOURCE, TARGET, objective, as_list=as_list, default=default) == {default}
    refused(partial(trained, as_list=as_list), SOURCE + 1j, TARGET, objective)


# --- Estimators, whatever modes and defaults of torch are on around -------------------------------------------------

SMALL = partial(cf.networks.MLP, width=8)
CELLS = anndata.AnnData(
    obs=pd.DataFrame({"day": np.repeat([0.0, 1.0, 3.0], 12)}, index=[f"cell{k}" for k in range(36)]),
    obsm={"X_pca": np.random.default_rng(0).normal(size=(36, DIM)).astype(np.float32)},
)
SETTINGS = {"steps": 2, "batch_size": 4, "device": "cpu", "network": SMALL}
IMAGES = torch.randint(0, 255, (8, 1, 4, 4), generator=cf.generator(seed=1)).to(torch.uint8)


def of_snapshots():
    flow = cf.SnapshotFlow(time_key="day", path=cf.paths.BrownianBridge(0.5), stochastic=True, **SETTINGS).fit(CELLS)
    flow.distill(CELLS, steps=1)
    x, span = CELLS.obsm["X_pca"][:3], {"start": 0, "stop": 3}
    found = [flow.transport(x, **span, solver=solver).x[-1].numpy() for solver in (2, cf.integrate.Jumps())]
    growth = [flow.growth_rate(x, 1.0)] if flow.growth_ else []
    return [flow.velocity(x, 1.0), flow.simulate(x, **span, solver=2).x.numpy(), flow.score(CELLS), *found, *growth]


def of_geodesics():
    flow = cf.SnapshotFlow(time_key="day", curve=cf.training.Geodesics(steps=2), coupling="exact", **SETTINGS)
    return [flow.fit(CELLS).velocity(CELLS.obsm["X_pca"][:3], 1.0)]


def of_domains():
    model = cf.DomainTranslator(**SETTINGS).fit(SOURCE.numpy(), TARGET.numpy())
    return [model.translate(SOURCE.numpy()), model.trajectory(SOURCE.numpy()).x.numpy()]


def of_images():
    model = cf.ImageGenerator(steps=1, batch_size=2, device="cpu").fit(cf.images.ImageSet(IMAGES))
    return [model.generate(2, solver=1).images.numpy()]


def with_default(dtype, make):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return make()
    finally:
        torch.set_default_dtype(before)


def within_mode(mode, make):
    with mode():
        return make()


AROUND = {
    "double precision by default": partial(with_default, torch.float64),
    "half precision by default": partial(with_default, torch.float16),
    "no gradients": partial(within_mode, torch.no_grad),
    "inference mode": partial(within_mode, torch.inference_mode),
    "autocast": partial(within_mode, partial(torch.autocast, "cpu", torch.bfloat16)),
}
MAKERS = {"snapshots": of_snapshots, "geodesics": of_geodesics, "domains": of_domains, "images": of_images}


@pytest.mark.parametrize("maker", MAKERS)
def test_modes_and_defaults_of_torch_around_an_estimator_change_nothing(maker):
    expected = MAKERS[maker]()
    around = dict(AROUND)
    if maker in ("snapshots", "geodesics"):  # the others are given tensors, which would be on that device
        around["the meta device by default"] = partial(within_mode, partial(torch.device, "meta"))
    for name, under in around.items():
        for one, other in zip(expected, under(MAKERS[maker]), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
            assert np.asarray(one).dtype == np.asarray(other).dtype, name


def test_a_field_that_cannot_be_trained_is_refused_before_the_first_step():
    batches = [cf.Batch(SOURCE, TARGET)]
    frozen, broken = cf.networks.MLP(dim=DIM, width=8).requires_grad_(False), cf.networks.MLP(dim=DIM, width=8)
    torch.nn.init.constant_(broken.last.bias, math.nan)
    with torch.inference_mode():
        inferred = cf.networks.MLP(dim=DIM, width=8)
    fields = {
        "has none": torch.nn.Identity(),
        "are frozen": frozen,
        "hold NaN or infinity, in `last.bias`": broken,
        "meta device": cf.networks.MLP(dim=DIM, width=8).to("meta"),
        "inference_mode": inferred,
    }
    for words, field in fields.items():
        error = refused(partial(cf.training.fit, steps=1, generator=rng()), field, VelocityMatching(), batches)
        assert words in str(error)


def test_states_in_another_precision_than_the_network_are_named():
    field = cf.networks.MLP(dim=DIM, width=8)
    for x in (SOURCE.double(), SOURCE.half()):
        assert "as the weights of the network" in str(refused(cf.integrate.ode, field, x))
    assert cf.integrate.ode(field.double(), SOURCE.double(), solver=2).x.dtype == torch.float64


# --- Times, weights, sizes ------------------------------------------------------------------------------------------

BAD_TIMES = {
    "nan": math.nan, "infinity": math.inf, "text": "abc", "nothing": None, "some nan": torch.full((N,), math.nan),
    "two axes": torch.zeros(N, 1), "too few": torch.zeros(N - 1), "complex": 1j, "empty": torch.zeros(0),
    "beyond single precision": 1e300, "meta": torch.zeros(N, device="meta"),
}  # fmt: skip
TIMED = {
    "ode": lambda t: cf.integrate.ode(decay, SOURCE, stop=t, solver=2),
    "sde": lambda t: cf.integrate.sde(all_heads, SOURCE, sigma=1.0, generator=rng(), solver=2, stop=t),
    "grow": lambda t: cf.integrate.grow(all_heads, SOURCE, start=t, solver=2),
    "jump": lambda t: cf.integrate.jump(decay, SOURCE, stop=t),
    "log_density": lambda t: cf.integrate.log_density(decay, SOURCE, log_normal, stop=t, solver=2),
}


@pytest.mark.parametrize("bad", BAD_TIMES)
@pytest.mark.parametrize("call", TIMED)
def test_times_that_are_none_are_refused(call, bad):
    refused(TIMED[call], BAD_TIMES[bad])


def test_log_weights_are_known_numbers():
    for log_weight in (torch.full((N,), math.nan), torch.full((N,), math.inf), torch.zeros(N - 1), torch.zeros(N, 1)):
        refused(partial(cf.integrate.grow, all_heads, SOURCE, log_weight=log_weight))
        refused(partial(cf.integrate.jump, all_heads, SOURCE, log_weight=log_weight))
        sample = partial(cf.integrate.sde, all_heads, SOURCE, sigma=1.0, generator=rng(), growth=True)
        refused(partial(sample, log_weight=log_weight))


WEIGHTS = {
    "a list": [1, 2, 3, 4, 5],
    "a Series": pd.Series([1.0, 2, 3, 4, 5], index=list("edcba")),
    "whole numbers": np.arange(1, 6),
    "a tensor of whole numbers": torch.arange(1, 6),
    "with gradients": torch.arange(1.0, 6.0).requires_grad_(),
}
BAD_WEIGHTS = {
    "negative": [-1.0, 1, 1, 1, 1], "nan": [math.nan, 1, 1, 1, 1], "infinity": [math.inf, 1, 1, 1, 1],
    "zero": [0.0] * 5, "too few": [1.0] * 4, "text": ["a"] * 5, "nothing": [None] * 5, "a number": 1.0,
    "two axes": torch.ones(5, 1), "complex": [1j] * 5, "a mapping": {0: 1.0}, "objects": [object()] * 5,
    "whose sum is no number": [1e308] * 5,
}  # fmt: skip
WEIGHED = {
    **{name: partial(lambda c, w: c(SOURCE, TARGET, w, w).dense(), c) for name, c in COUPLINGS.items()},
    "weights": lambda w: next(
        iter(cf.pairing.snapshot_batches([SOURCE, TARGET], [0, 1], weights=[w, w], batch_size=4, generator=rng()))
    ),
    "wasserstein": lambda w: cf.metrics.wasserstein(SOURCE, TARGET, weights_x=w, weights_y=w),
    "product plan": lambda w: ProductPlan(w, w).dense(),
}
EXACT_SUMS = {("whose sum is no number", "product plan"), ("too few", "product plan")}


@pytest.mark.parametrize("call", WEIGHED)
def test_weights_of_any_form_are_read_alike(call):
    expected = WEIGHED[call](torch.arange(1.0, 6.0, dtype=torch.float64))
    for name, weights in WEIGHTS.items():
        if call == "product plan" and not isinstance(weights, torch.Tensor):
            continue  # plans are made of tensors
        torch.testing.assert_close(WEIGHED[call](weights), expected, msg=name)


@pytest.mark.parametrize("bad", BAD_WEIGHTS)
@pytest.mark.parametrize("call", WEIGHED)
def test_weights_that_are_none_are_refused(call, bad):
    if (bad, call) not in EXACT_SUMS:
        refused(WEIGHED[call], BAD_WEIGHTS[bad])


SIZES = {"a list": [1, 2], "a Series": pd.Series([1.0, 2.0], index=["a", "b"]), "an array": np.array([1, 2])}
BAD_SIZES = {
    "negative": (-1, 1), "nan": (math.nan, 1), "zero": (0, 0), "too few": (1,), "text": ["a", "b"], "a number": 1.0,
    "a mapping": {0: 1.0, 1: 2.0}, "two axes": [[1], [2]], "infinity": (1, math.inf), "complex": (1j, 1),
    "too far apart": (1e-300, 1e300),
}  # fmt: skip


@pytest.mark.parametrize("name", ["masses", "times"])
def test_sizes_and_times_of_snapshots_are_finite_numbers(name):
    def batches(values):
        given = {"times": [0.0, 1.0], name: values}
        return next(iter(cf.pairing.snapshot_batches([SOURCE, TARGET], **given, batch_size=4, generator=rng())))

    expected = batches([1.0, 2.0])
    for form, values in SIZES.items():
        torch.testing.assert_close(batches(values), expected, msg=form)
    for bad, values in BAD_SIZES.items():
        if name == "times" and bad in ("negative", "too far apart"):
            continue
        error = refused(batches, values)
        assert name in str(error), bad


def test_rates_groups_and_conditions_are_read_at_the_door():
    make = partial(cf.pairing.snapshot_batches, [SOURCE, TARGET], [0, 1], batch_size=4, generator=rng())
    for bad in (["a"] * N, [math.nan] * N, [None] * N, [1.0] * (N - 1), 1.0):
        refused(partial(make, rates=[bad, bad], masses=(1, 1)))
    for bad in ([None] * N, [object()] * N, [math.nan] * N, [0] * (N - 1), 1.0, torch.zeros(N, 1)):
        refused(partial(make, within=[bad, bad]))
    torch.testing.assert_close(next(iter(make(within=[list("aabbb")] * 2))).x0.shape, torch.Size([4, DIM]))
    pair = partial(cf.pairing.paired_batches, SOURCE, TARGET, batch_size=4, generator=rng())
    for bad in (spoiled(math.nan), spoiled(math.inf), SOURCE + 1j, SOURCE[:2], SOURCE.to("meta")):
        refused(partial(pair, condition=bad))


def test_plans_carry_known_numbers_only():
    plan = Sinkhorn(2.0)(SOURCE, TARGET)
    for bad in (torch.full((N,), math.nan), torch.full((N, 2), math.inf), torch.ones(N, 2) + 1j, torch.ones(N + 1)):
        for verb in (plan.push, plan.pull, plan.barycentric, plan.origins, DensePlan):
            refused(verb, bad)


# --- Columns of other scales ----------------------------------------------------------------------------------------


def scaled_cells(scales, n=12):
    x = np.random.default_rng(0).normal(size=(3 * n, len(scales))) * scales
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0, 3.0], n)}, index=[f"cell{k}" for k in range(3 * n)])
    return anndata.AnnData(obs=obs, obsm={"X_pca": x})


FITS = {
    "snapshots": lambda adata: cf.SnapshotFlow(time_key="day", **SETTINGS).fit(adata),
    "domains": lambda adata: cf.DomainTranslator(**SETTINGS).fit(adata.obsm["X_pca"][:12], adata.obsm["X_pca"][12:]),
}


@pytest.mark.parametrize("fit", FITS)
def test_columns_that_have_no_say_are_named_where_fit_is_called(fit):
    with pytest.warns(
        UserWarning, match=r"Columns 1, 3 of the representation .* no effect in the loss nor in the coup"
    ) as found:
        FITS[fit](scaled_cells([1.0, 1e-6, 0.02, 5e-4]))
    assert found[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        FITS[fit](scaled_cells([50.0, 10.0, 1.0, 0.1]))  # as principal components are, and more
        FITS[fit](scaled_cells([1.0, 0.0, 1.0]))  # a column that is constant has nothing to say
        FITS[fit](scaled_cells([1e-12, 2e-12]))


def test_a_standardised_loss_lets_narrow_columns_learn():
    """Two columns that move alike, one of them a millionth as far."""
    x = np.concatenate([np.random.default_rng(0).normal([2 * k, 2 * k], size=(24, 2)) for k in range(2)])
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], 24)}, index=[f"cell{k}" for k in range(48)])
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": x * [1.0, 1e-6]})
    found = {}
    for standardize in (True, "loss"):
        flow = cf.SnapshotFlow(
            time_key="day", coupling="independent", standardize=standardize, steps=120, batch_size=32, device="cpu",
            network=SMALL, recipe=cf.training.Recipe(warmup=0, learning_rate=1e-2, ema=0.0),
        )  # fmt: skip
        words = (
            "no effect in the coupling: the" if standardize == "loss" else "no effect in the loss nor in the coupling"
        )
        with pytest.warns(UserWarning, match=words):
            flow.fit(adata)
        found[standardize] = flow.velocity(adata.obsm["X_pca"], 0.5).mean(axis=0) / [1.0, 1e-6]
    (wide, narrow), (alone, lost) = found["loss"], found[True]
    assert narrow == pytest.approx(wide, rel=0.3)
    assert min(wide, alone) > 0.3
    assert abs(lost) < 0.2 * alone
    assert cf.SnapshotFlow(standardize="loss").get_params()["standardize"] == "loss"
    with pytest.raises(ValueError, match="True, False or 'loss'; found 'all'"):
        cf.SnapshotFlow(time_key="day", standardize="all", **SETTINGS).fit(CELLS)


def test_units_may_be_one_for_each_dimension():
    batch = cf.Batch(SOURCE, TARGET)
    field = cf.networks.MLP(dim=DIM, width=8)
    for objective in (VelocityMatching, GrowthMatching, BridgeMatching):
        extra = {"log_mass0": torch.zeros(N), "log_mass1": torch.ones(N)} if objective is GrowthMatching else {}
        heads = cf.networks.Heads(cf.networks.MLP(dim=DIM, width=8, heads=2), score="shared")
        growing = cf.networks.Heads(cf.networks.MLP(dim=DIM, width=8, heads=2), growth="shared")
        known = {VelocityMatching: field, GrowthMatching: growing, BridgeMatching: heads}[objective]
        one, three = (
            objective(unit=unit)(known, batch._replace(**extra), generator=rng())["loss"]
            for unit in (2.0, (2.0,) * DIM)
        )
        torch.testing.assert_close(one, three)
    with pytest.raises(ValueError, match="finite unit > 0"):
        VelocityMatching(unit=(1.0, 0.0))


def test_the_cure_of_narrow_columns_cures():
    adata = scaled_cells([1.0, 1e-6])
    adata.obsm["X_pca"] /= adata.obsm["X_pca"].std(axis=0)
    with warnings.catch_warnings(action="error"):
        FITS["snapshots"](adata)


def test_states_that_a_network_cannot_see_are_warned_of():
    with pytest.warns(UserWarning, match="with `standardize=False` the network sees them as they are"):
        cf.SnapshotFlow(time_key="day", standardize=False, **SETTINGS).fit(scaled_cells([1e-6, 2e-6]))


# --- Hints that cure ------------------------------------------------------------------------------------------------


def test_a_field_with_broken_weights_is_blamed_not_the_steps():
    field = cf.networks.MLP(dim=DIM, width=8)
    torch.nn.init.constant_(field.last.bias, math.nan)
    heads = cf.networks.Heads(cf.networks.MLP(dim=DIM, width=8, heads=3), score="shared", growth="shared")
    torch.nn.init.constant_(heads.velocity.last.bias, math.nan)
    calls = {
        "ode": partial(cf.integrate.ode, field, SOURCE),
        "log_density": partial(cf.integrate.log_density, field, SOURCE, log_normal),
        "sde": partial(cf.integrate.sde, heads, SOURCE, sigma=1.0, generator=rng()),
        "grow": partial(cf.integrate.grow, heads, SOURCE),
        "jump": partial(cf.integrate.jump, cf.networks.FlowMap.of(field), SOURCE),
    }
    for name, call in calls.items():
        error = refused(call)
        assert "weights of the field hold NaN or infinity, in `" in str(error), name
        assert "steps" not in str(error), name


def test_steps_that_are_too_long_are_blamed_and_more_of_them_cure():
    def stiff(t, x, condition):
        return -400 * x

    with pytest.raises(ConvergenceError, match="after states had grown from .* Take more `steps`"):
        cf.integrate.ode(stiff, SOURCE.float(), solver=Fixed("euler", steps=40))
    for solver in (Fixed("euler", steps=400), cf.integrate.Adaptive()):
        assert not holds_nan(cf.integrate.ode(stiff, SOURCE, solver=solver).x)


def test_a_field_that_returns_nan_where_states_are_ordinary_is_blamed():
    for value in (math.nan, math.inf):
        with pytest.raises(ConvergenceError, match="The field returned NaN or infinity .* not a matter of steps"):
            cf.integrate.ode(lambda t, x, c, value=value: torch.full_like(x, value), SOURCE)


def losing(batches, *, field=None, steps=40, **recipe):
    field = field or cf.networks.MLP(dim=DIM, width=8)
    recipe = cf.training.Recipe(warmup=0, **recipe)
    return cf.training.fit(field, VelocityMatching(), batches, steps=steps, generator=rng(), recipe=recipe)


def test_the_cause_of_a_loss_that_is_not_finite_is_named_and_the_cure_cures():
    pairs = cf.Batch(SOURCE, TARGET)
    with pytest.raises(FloatingPointError, match="at step 1: its batch holds NaN or infinity"):
        losing([cf.Batch(spoiled(math.nan), TARGET)])
    huge = cf.Batch(1e30 * SOURCE, 1e30 * TARGET)
    with pytest.raises(FloatingPointError, match=r"beyond .* Divide the data by .* double precision") as found:
        losing([huge])
    assert "learning_rate" not in str(found.value)
    losing([cf.Batch(huge.x0 / 1e30, huge.x1 / 1e30)])
    losing([cf.Batch(huge.x0.double(), huge.x1.double())], precision=64)
    with pytest.raises(FloatingPointError, match=r"diverged. Lower `Recipe.learning_rate` \(now 1e\+20\), or set `R"):
        losing([pairs], learning_rate=1e20, clip=None)
    with pytest.raises(FloatingPointError, match=r"\(now 1e\+20\)\.$"):
        losing([pairs], learning_rate=1e20)
    losing([pairs], learning_rate=1e-3)

    class Broken(torch.nn.Linear):
        def forward(self, t, x, condition=None):
            return super().forward(x) / 0

    with pytest.raises(FloatingPointError, match="at step 1, before anything was learned: the optimiser is not"):
        losing([pairs], field=Broken(DIM, DIM))


def test_sinkhorn_names_a_cure_that_cures():
    x0, x1 = SOURCE.double(), TARGET.double() + 30
    with pytest.raises(ConvergenceError, match="Choose a larger epsilon") as found:
        Sinkhorn(0.01, max_iterations=5)(x0, x1)
    assert "raise max_iterations" in str(found.value)
    Sinkhorn(100.0, max_iterations=5)(x0, x1)
    Sinkhorn(0.01, max_iterations=100_000)(x0, x1)
    for coupling in (Sinkhorn(1e-300), Sinkhorn(1e-320), UnbalancedSinkhorn(1e-11, 10.0)):
        assert "Expected an epsilon of at least 3e-09" in str(refused(coupling, x0, x1))
    assert Exact()(x0, x1).mass == pytest.approx(1)


def test_points_that_a_plan_loses_are_kept_with_the_relaxation_that_is_asked_for():
    far = torch.cat([SOURCE, SOURCE + 3000])
    pair = partial(cf.pairing.paired_batches, far, TARGET, masses=(1.0, 1.0), batch_size=4, generator=rng())
    with pytest.raises(ValueError, match="Raise `relaxation`"):
        pair(coupling=UnbalancedSinkhorn(1.0, 10.0))
    assert not holds_nan(next(iter(pair(coupling=UnbalancedSinkhorn(1.0, 1e6)))))


def test_adaptive_solvers_name_tolerances_that_can_be_met(monkeypatch):
    monkeypatch.setattr("cellflow.integrate.solvers.MOST_EVALUATIONS", 3000)  # of which those that end need hundreds
    field = lambda t, x, condition: torch.sin(50 * x)  # noqa: E731
    with pytest.raises(ConvergenceError, match="loosen `rtol` and `atol`, use float64, or take a fixed-step method"):
        cf.integrate.ode(field, 100 * SOURCE, solver=cf.integrate.Adaptive(rtol=1e-14, atol=1e-14))
    for x, solver in (
        (100 * SOURCE, cf.integrate.Adaptive(rtol=1e-3, atol=1e-3)),
        (100 * SOURCE.double(), cf.integrate.Adaptive(rtol=1e-11, atol=1e-11)),
        (100 * SOURCE, Fixed("rk4", steps=50)),
    ):
        assert not holds_nan(cf.integrate.ode(field, x, solver=solver).x)


@pytest.mark.parametrize(
    ("values", "cure"),
    [
        (lambda x: x * 1e300, lambda x: x / 1e300),
        (lambda x: x.astype(np.float64) + 1e12, lambda x: x - x.mean(axis=0)),
    ],
    ids=["huge", "far from zero"],
)
def test_representations_that_lose_their_digits_name_a_cure_that_cures(values, cure):
    adata = scaled_cells([1.0, 2.0])
    adata.obsm["X_pca"] = values(adata.obsm["X_pca"])
    with pytest.raises(ValueError, match="Subtract their mean, or rescale them, first"):
        FITS["snapshots"](adata)
    adata.obsm["X_pca"] = cure(adata.obsm["X_pca"])
    FITS["snapshots"](adata)
