"""The one door for states: every form of array, through every public method that takes states."""

import copy
import inspect
import tempfile
import warnings
from functools import cache, partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import cellflow as cf
from cellflow.cells import as_states
from cellflow.couplings import UnbalancedSinkhorn

N, DIM = 12, 3


def whole_numbers(seed=0, n=N):
    """States that every type of number below holds exactly; never below 0."""
    return np.random.default_rng(seed).integers(0, 8, size=(n, DIM)).astype(np.float32)


def on_disk(x):
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 (gone with the last reference)
    x.tofile(file.name)
    return np.memmap(file.name, dtype=x.dtype, mode="r", shape=x.shape)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def as_matrix(x):
    with warnings.catch_warnings(action="ignore"):  # numpy would rather do without, as anndata's users do not yet
        return np.asmatrix(x)


ALL_FORMS = {
    "C order": lambda x: x,
    "Fortran order": np.asfortranarray,
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "every other row and column": lambda x: np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)[::2, ::2],
    "read only": read_only,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
    "extended precision": lambda x: x.astype(np.longdouble),
    "int8": lambda x: x.astype(np.int8),
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "uint64": lambda x: x.astype(np.uint64),
    "np.matrix": as_matrix,
    "masked array": np.ma.masked_invalid,
    "memory map": on_disk,
    "nested lists": lambda x: x.tolist(),
    "objects": lambda x: x.astype(object),
    "data frame": lambda x: pd.DataFrame(x, columns=list("abc")),
    "data frame of several types": lambda x: pd.DataFrame(x, columns=list("abc")).astype({"a": int, "b": "Float64"}),
    "csr matrix": sparse.csr_matrix,
    "csc array": sparse.csc_array,
    "coo array": sparse.coo_array,
    "tensor": torch.tensor,
    "tensor with gradients": lambda x: torch.tensor(x, requires_grad=True),
    "half of a graph": lambda x: 2 * torch.tensor(x / 2, requires_grad=True),
    "float64 tensor": lambda x: torch.tensor(x).double(),
    "bfloat16 tensor": lambda x: torch.tensor(x).bfloat16(),
    "integer tensor": lambda x: torch.tensor(x).int(),
    "transposed tensor": lambda x: torch.tensor(x.T.copy()).T,
    "sparse tensor": lambda x: torch.tensor(x).to_sparse(),
}

BAD_FORMS = {
    "text": (lambda x: x.astype(str), ValueError, "Expected numbers in {}"),
    "a frame with text": (lambda x: pd.DataFrame(x).astype({0: str}), ValueError, "Expected numbers in {}"),
    "dates": (lambda x: x.astype("datetime64[s]"), ValueError, "Expected numbers in {}"),
    "complex": (lambda x: x + 1j, ValueError, "Expected real numbers in {}"),
    "complex tensor": (lambda x: torch.tensor(x) + 1j, ValueError, "Expected real numbers in {}"),
    "masked entries": (lambda x: np.ma.masked_equal(x, x[0, 0]), ValueError, "{} to be known"),
    "rows of different lengths": (lambda x: [[1.0, 2.0], [3.0]], ValueError, "rows of different lengths"),
    "NaN": (lambda x: np.where(x == x[0, 0], np.nan, x), ValueError, "Expected finite numbers in {}"),
    "infinity": (
        lambda x: torch.tensor(np.where(x == x[0, 0], -np.inf, x)),
        ValueError,
        "Expected finite numbers in {}",
    ),
    "objects": (lambda x: [[{}] * 3] * 12, ValueError, "Expected numbers in {}"),
    "a nested tensor": (
        lambda x: torch.nested.nested_tensor([torch.tensor(x)] * 2, layout=torch.jagged),
        ValueError,
        "nested",
    ),
    "on the meta device": (lambda x: torch.tensor(x).to("meta"), ValueError, "meta device"),
    "beyond single precision": (lambda x: 1e300 * x.astype(np.float64), ValueError, "at most 3.4e.38 in {}"),
    "nothing": (lambda x: None, TypeError, "Expected numbers in {}"),
    "one row": (lambda x: x[0], ValueError, "{}"),
    "too narrow": (lambda x: x[:, :2], ValueError, "{}|samples of shape|of one shape"),
}


def cells_at_three_times(seed=0):
    x = whole_numbers(seed, 3 * N)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0, 3.0], N)}, index=[f"cell{k}" for k in range(len(x))])
    return anndata.AnnData(obs=obs, obsm={"X_pca": x})


SMALL = partial(cf.networks.MLP, width=8)
FLOW = {"time_key": "day", "steps": 3, "batch_size": 4, "device": "cpu", "network": SMALL}
TRANSLATOR = {"steps": 2, "batch_size": 4, "device": "cpu", "network": SMALL}
BRIDGE = cf.paths.BrownianBridge(0.5)


@pytest.fixture(scope="module")
def fitted():
    cells, x, y = cells_at_three_times(), whole_numbers(), whole_numbers(1)
    growing = cf.SnapshotFlow(**FLOW, growth=True, coupling=UnbalancedSinkhorn(5.0, 50.0)).fit(cells)
    return {
        "bridge": cf.SnapshotFlow(**FLOW, path=BRIDGE, stochastic=True).fit(cells).distill(cells, steps=2),
        "growing": growing,
        "translator": cf.DomainTranslator(**TRANSLATOR, path=BRIDGE, stochastic=True).fit(x, y),
        "drugs": cf.PerturbationFlow(conditions="drug", **TRANSLATOR, path=BRIDGE, stochastic=True).fit(treated()),
    }


def treated():
    x = np.concatenate([whole_numbers(), whole_numbers(1)])
    obs = pd.DataFrame({"drug": np.repeat(["control", "A"], len(x) // 2)}, index=[f"cell{k}" for k in range(len(x))])
    return anndata.AnnData(obs=obs, obsm={"X_pca": x})


@cache
def fitted_translator():
    return cf.DomainTranslator(**TRANSLATOR).fit(whole_numbers(2), whole_numbers(3))


def trained(*args, method="fit", **kwargs):
    model = cf.DomainTranslator(**TRANSLATOR) if method == "fit" else copy.deepcopy(fitted_translator())
    getattr(model, method)(*args, **kwargs)
    return np.array(model.map_history_["loss"] if method == "distill" else model.history_["loss"])


OTHER = whole_numbers(4)
ROUND = {"rounds": 1, "coupling": cf.training.Reflow(solver=2)}
QUICK = {"steps": 2, "objective": "semigroup"}
# (estimator, method, argument) to a call with states of any form.
CALLS = {
    ("SnapshotFlow", "velocity", "x"): lambda m, x: m["bridge"].velocity(x, 0.5),
    ("SnapshotFlow", "transport", "x"): lambda m, x: m["bridge"].transport(x, start=0, stop=3).x,
    ("SnapshotFlow", "simulate", "x"): lambda m, x: m["bridge"].simulate(x, start=0, stop=3, solver=5).x,
    ("SnapshotFlow", "grow", "x"): lambda m, x: m["growing"].grow(x, start=0, stop=3).log_weight,
    ("SnapshotFlow", "growth_rate", "x"): lambda m, x: m["growing"].growth_rate(x, 0.5),
    ("PerturbationFlow", "transport", "x"): lambda m, x: m["drugs"].transport(x, condition={"drug": "A"}).x,
    ("PerturbationFlow", "simulate", "x"): lambda m, x: m["drugs"].simulate(x, condition={"drug": "A"}, solver=5).x,
    ("PerturbationFlow", "velocity", "x"): lambda m, x: m["drugs"].velocity(x, condition={"drug": "A"}),
    ("DomainTranslator", "translate", "x"): lambda m, x: m["translator"].translate(x),
    ("DomainTranslator", "simulate", "x"): lambda m, x: m["translator"].simulate(x),
    ("DomainTranslator", "trajectory", "x"): lambda m, x: m["translator"].trajectory(x).x,
    ("DomainTranslator", "fit", "source"): lambda m, x: trained(x, OTHER),
    ("DomainTranslator", "fit", "target"): lambda m, x: trained(OTHER, x),
    ("DomainTranslator", "fit", "features"): lambda m, x: trained(whole_numbers(5), OTHER, features=(x, OTHER)),
    ("DomainTranslator", "refine", "source"): lambda m, x: trained(x, OTHER, method="refine", **ROUND),
    ("DomainTranslator", "refine", "target"): lambda m, x: trained(OTHER, x, method="refine", **ROUND),
    ("DomainTranslator", "distill", "source"): lambda m, x: trained(x, OTHER, method="distill", **QUICK),
    ("DomainTranslator", "distill", "target"): lambda m, x: trained(OTHER, x, method="distill", **QUICK),
    ("DomainTranslator", "distill", "features"): lambda m, x: trained(
        whole_numbers(5), OTHER, method="distill", **QUICK, features=(x, OTHER)
    ),
}


def test_the_calls_below_are_all_that_take_states():
    found = {
        (estimator, name, argument)
        for estimator in ("SnapshotFlow", "DomainTranslator", "ImageGenerator", "PerturbationFlow")
        for name, method in inspect.getmembers(getattr(cf, estimator), inspect.isfunction)
        if not name.startswith("_") and method.__module__.startswith("cellflow")
        for argument in inspect.signature(method).parameters
        if argument in ("x", "source", "target", "features")
    }
    assert found == set(CALLS)


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_form_of_states_gives_the_same(call, fitted):
    x = whole_numbers()
    expected = np.asarray(CALLS[call](fitted, x), dtype=np.float64)
    for name, form in ALL_FORMS.items():
        if call[2] == "features" and name in ("float16", "bfloat16 tensor"):
            continue  # their costs are computed in the precision that is given
        found = CALLS[call](fitted, form(x))
        found = found.detach().double() if isinstance(found, torch.Tensor) else np.asarray(found, dtype=np.float64)
        tolerance = 2e-2 if isinstance(found, torch.Tensor | np.ndarray) and "16" in name else 1e-6
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("bad", BAD_FORMS)
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_what_is_no_state_is_refused_with_the_argument_named(call, bad, fitted):
    form, error, words = BAD_FORMS[bad]
    if call[2] == "features" and bad in ("one row", "too narrow", "nothing", "beyond single precision"):
        pytest.skip("features may have any width and precision, and None stands for the samples themselves")
    with pytest.raises(error, match=words.format(f"`{call[2]}`")):
        CALLS[call](fitted, form(whole_numbers()))


@pytest.mark.parametrize("name", [name for name in ALL_FORMS if "tensor" not in name and "graph" not in name])
def test_every_form_that_anndata_holds_is_fitted_and_used_alike(name):
    plain, other = cells_at_three_times(), cells_at_three_times()
    values = ALL_FORMS[name](plain.obsm["X_pca"])
    if isinstance(values, pd.DataFrame):
        values.index = other.obs_names
    if isinstance(values, list | np.matrix | np.ma.MaskedArray | sparse.coo_array):
        values = np.asarray(values) if not sparse.issparse(values) else values.tocsr()
    other.obsm["X_pca"] = values
    one, two = (cf.SnapshotFlow(**FLOW).fit(adata) for adata in (plain, other))
    torch.testing.assert_close(dict(two.field_.state_dict()), dict(one.field_.state_dict()))
    cf.tl.velocity(other, two)
    np.testing.assert_allclose(other.obsm["velocity"], one.velocity(plain.obsm["X_pca"], plain.obs["day"]), atol=1e-6)


def test_components_as_scanpy_leaves_them_are_taken():
    """The right singular vectors of scipy come with negative strides."""
    x = np.linalg.svd(whole_numbers(n=40))[0][:, :DIM][:, ::-1]
    adata = cells_at_three_times()
    flow = cf.SnapshotFlow(**FLOW).fit(adata)
    assert min(x.strides) < 0
    assert flow.velocity(x, 0.0).shape == (40, DIM)
    assert flow.velocity(x[:1][::-1], 0.0).shape == (1, DIM)  # one row, which numpy calls contiguous


@pytest.mark.parametrize(
    ("form", "kind", "dtype"),
    [
        ("C order", np.ndarray, np.float32),
        ("float64", np.ndarray, np.float64),
        ("float16", np.ndarray, np.float16),
        ("int64", np.ndarray, np.float32),
        ("csr matrix", np.ndarray, np.float32),
        ("data frame", pd.DataFrame, np.float32),
        ("float64 tensor", torch.Tensor, torch.float64),
        ("tensor with gradients", torch.Tensor, torch.float32),
    ],
)
def test_what_comes_out_has_the_form_of_what_went_in(form, kind, dtype, fitted):
    given = ALL_FORMS[form](whole_numbers())
    found = fitted["translator"].translate(given)
    assert type(found) is kind
    if kind is pd.DataFrame:
        assert (found.columns == given.columns).all()
        found = found.to_numpy()
    assert found.dtype == dtype
    assert found.shape == (N, DIM)


def test_states_that_can_be_used_as_they_are_are_not_copied():
    x = whole_numbers()
    assert as_states(x, what="`x`").data_ptr() == x.ctypes.data
    assert (as_states(np.array([[True, False]]), what="`x`").float() == torch.tensor([[1.0, 0.0]])).all()


DISTANCES = {
    "wasserstein": cf.metrics.wasserstein,
    "population_distance": lambda x, y: cf.metrics.population_distance(x, y, most=8, generator=cf.generator(0)),
    "thinned": lambda x, y: cf.metrics.thinned(x, most=8, generator=cf.generator(0))[0].double().numpy(),
    "sliced_wasserstein": lambda x, y: cf.metrics.sliced_wasserstein(x, y, generator=cf.generator(0)),
    "maximum_mean_discrepancy": cf.metrics.maximum_mean_discrepancy,
    "energy_distance": cf.metrics.energy_distance,
    "split_half_floor": lambda x, y: cf.metrics.split_half_floor(x, generator=cf.generator(0)),
}


def test_the_distances_below_are_all_that_take_clouds():
    from cellflow.metrics import distances

    assert set(DISTANCES) == {name for name in cf.metrics.__all__ if hasattr(distances, name)}


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_distances_take_every_form(distance):
    x, y = whole_numbers(), whole_numbers(1)
    expected = distance(x, y)
    for name, form in ALL_FORMS.items():
        assert distance(form(x), y) == pytest.approx(expected), name
