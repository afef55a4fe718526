"""From states back to genes: loadings of X, layers and raw, functions, regression, models; and what is said of it."""

from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from scipy import sparse

import cellflow as cf
from cellflow import tl
from cellflow.cells.loadings import read_loadings
from conftest import make_cells

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


@pytest.fixture(scope="module")
def known():
    """Cells whose genes are linear in three hidden numbers, with noise, and a flow on five of their components."""
    draw = np.random.default_rng(0)
    cells = make_cells(sizes=(60, 80, 70))
    x = np.maximum(cells.obsm["X_pca"] @ draw.normal(size=(3, 12)) + 3 + 0.1 * draw.normal(size=(210, 12)), 0)
    adata = anndata.AnnData(sparse.csr_matrix(x.astype(np.float32)), obs=cells.obs)
    adata.var_names = [f"gene{k}" for k in range(12)]
    sc.pp.pca(adata, n_comps=5)
    return adata, cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(adata)


def moved(adata):
    """The same cells, with X changed after the PCA, and what it was in a layer and in raw beside another gene."""
    adata = adata.copy()
    adata.layers["log"] = adata.X.copy()
    both = sparse.hstack([sparse.csr_matrix(np.ones((adata.n_obs, 1), np.float32)), adata.X[:, ::-1]]).tocsr()
    adata.raw = anndata.AnnData(both, obs=adata.obs[[]], var=pd.DataFrame(index=["other", *adata.var_names[::-1]]))
    adata.X = adata.X.power(2)
    return adata


def test_what_components_carry_is_what_projecting_and_decoding_keeps(known):
    adata, flow = known
    x, scores = adata.X.toarray().astype(float), adata.obsm["X_pca"].astype(float)
    left = x - scores @ adata.varm["PCs"].T
    expected = 1 - left.var(axis=0).sum() / x.var(axis=0).sum()
    assert read_loadings(adata, "X_pca", genes=True).carried == pytest.approx(expected, abs=1e-5)
    assert 0.9 < expected < 1
    found = tl.interpolate(adata, flow, at=2.0)
    assert found.uns["interpolation"]["variance_carried"] == pytest.approx(expected, abs=1e-5)
    assert found.uns["interpolation"]["genes_left_out"] == 0


def test_fewer_components_carry_less(known):
    adata, _ = known
    whole, two = (read_loadings(adata, "X_pca", genes=True, width=width) for width in (None, 2))
    assert two.matrix.shape == (12, 2)
    assert two.carried < whole.carried
    means = adata.X.mean(axis=0)
    np.testing.assert_allclose(two.decode(adata.obsm["X_pca"][:, :2]).mean(axis=0), np.ravel(means), atol=1e-4)


@pytest.mark.parametrize("where", [{"layer": "log"}, {"use_raw": True}])
def test_loadings_are_those_of_the_expression_that_is_named(known, where, caplog):
    adata, flow = moved(known[0]), known[1]
    expected = tl.interpolate(known[0], flow, at=2.0)
    np.testing.assert_allclose(tl.interpolate(adata, flow, at=2.0, **where).X, expected.X, atol=1e-5)
    tl.velocity(adata, flow, genes=True, **where)
    tl.velocity(known[0], flow, genes=True)
    np.testing.assert_allclose(adata.layers["velocity"], known[0].layers.pop("velocity"), atol=1e-5)
    assert tl.interpolate(adata, flow, at=2.0).n_vars == 0  # X does not fit
    assert "pass `layer='log'`" in caplog.text
    with pytest.raises(KeyError, match="No `adata.layers"):
        tl.interpolate(adata, flow, at=2.0, layer="counts")
    with pytest.raises(KeyError, match=r"no `adata.raw`"):
        tl.interpolate(known[0], flow, at=2.0, use_raw=True)


def test_missing_expression_is_not_decoded(known, caplog):
    adata = known[0].copy()
    adata.X = adata.X.toarray() * np.nan
    assert tl.interpolate(adata, known[1], at=2.0).n_vars == 0
    assert "genes are not decoded" in caplog.text


def test_regression_on_the_expression_of_the_pca_gives_its_loadings(known):
    adata, flow = known
    decoder = cf.cells.fit_decoder(adata)
    plain = read_loadings(adata, "X_pca", genes=True)
    x = adata.obsm["X_pca"]
    np.testing.assert_allclose(decoder.decode(x), plain.decode(x), atol=1e-3)
    assert decoder.carried == pytest.approx(plain.carried, abs=1e-4)
    few = np.array([2, 7])
    np.testing.assert_allclose(decoder.some(few).carried_of, plain.some(few).carried_of, atol=1e-4)
    assert decoder.some(few).carried == pytest.approx(plain.some(few).carried, abs=1e-4)
    found = tl.interpolate(moved(adata), flow, at=2.0, decode=cf.cells.fit_decoder(moved(adata), use_raw=True))
    assert list(found.var_names) == ["other", *adata.var_names[::-1]]
    np.testing.assert_allclose(found[:, "other"].X, 1, atol=1e-4)
    np.testing.assert_allclose(found[:, adata.var_names].X, tl.interpolate(adata, flow, at=2.0).X, atol=1e-3)
    with pytest.raises(ValueError, match="more than 5 cells"):
        cf.cells.fit_decoder(adata[:4].copy())


def squares(x):
    return np.tanh(x @ np.ones((5, 12))) + np.arange(12)


def test_a_function_decodes_the_genes_of_var_names(known):
    adata, flow = known
    found = tl.interpolate(adata, flow, at=2.0, decode=squares)
    np.testing.assert_allclose(found.X, squares(found.obsm["X_pca"]), atol=1e-5)
    assert list(found.var_names) == list(adata.var_names)
    some = tl.interpolate(adata, flow, at=2.0, decode=squares, genes=["gene7", "gene2"])
    assert list(some.var_names) == ["gene2", "gene7"]
    assert (some.X == found[:, ["gene2", "gene7"]].X).all()


def test_the_velocity_of_a_function_is_its_directional_derivative(known):
    adata, flow = known[0].copy(), known[1]
    tl.velocity(adata, flow, genes=True, decode=squares)
    x, v = adata.obsm["X_pca"].astype(float), adata.obsm["velocity"].astype(float)
    exact = (1 - np.tanh(x.sum(axis=1)) ** 2) * v.sum(axis=1)
    np.testing.assert_allclose(adata.layers["velocity"], np.tile(exact[:, None], 12), atol=0.01 * np.abs(exact).max())


def test_torch_modules_are_called_as_they_evaluate_and_stay_as_they_were(known):
    adata, flow = known
    with torch.random.fork_rng(devices=[]):
        module = torch.nn.Sequential(torch.nn.Linear(5, 12), torch.nn.Dropout(0.9)).double()
    found = tl.interpolate(adata, flow, at=2.0, decode=module)
    assert module.training
    with torch.no_grad():
        expected = module[0](torch.from_numpy(found.obsm["X_pca"]).double())
    np.testing.assert_allclose(found.X, expected, atol=1e-5)
    lists = cf.cells.Decoder(lambda z: z[:, :2] ** 2, ["a", "b"], tensors=True)
    assert list(tl.interpolate(adata, flow, at=2.0, decode=lists).var_names) == ["a", "b"]


@pytest.mark.parametrize(
    ("decode", "kind", "words"),
    [
        (lambda x: x, ValueError, r"\(150, 12\).*found \(150, 5\)"),
        (lambda x: x @ np.ones((4, 12)), ValueError, "mismatch"),
        (lambda x: np.full((len(x), 12), np.nan), ValueError, "NaN or infinity for 150 of 150 states"),
        (cf.cells.Decoder(lambda x: x, ["a"], width=7), ValueError, "states of width 7; found 5"),
        (cf.cells.Decoder(lambda x: x[:, :1], ["a"]), KeyError, "No gene 'gene1'"),
        ("linear", TypeError, "Expected `decode` as a function"),
    ],
)
def test_decoders_that_do_not_fit_are_named(known, decode, kind, words):
    adata, flow = known
    genes = ["gene1"] if kind is KeyError else "auto"
    if kind is KeyError:
        words = "'gene1' cannot be decoded: it is not one of its genes"
    with pytest.raises(kind, match=words) as error:
        tl.interpolate(adata, flow, at=2.0, decode=decode, genes=genes)
    assert "mismatch" not in words or "states of shape (150, 5)" in error.value.__notes__[0]


def test_two_genes_of_one_name_are_no_decoder():
    with pytest.raises(ValueError, match="Two genes of the decoder are called 'a'"):
        cf.cells.Decoder(lambda x: x, ["a", "b", "a"])
    with pytest.raises(ValueError, match="found none"):
        cf.cells.Decoder(lambda x: x, [])


class Module(torch.nn.Module):
    """What scvi-tools calls a module, as far as a decoder needs it."""

    n_latent = 5

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(5, 12))

    def generative(self, z, library, batch_index):
        assert not self.training
        assert batch_index.shape == library.shape == (len(z), 1)
        shares = (z @ self.weight + torch.arange(12) + batch_index).softmax(dim=-1)
        return {"px": SimpleNamespace(scale=shares)}


def test_models_of_scvi_decode_what_their_batch_would_be(known):
    adata, flow = known
    registry = SimpleNamespace(categorical_mapping=np.array(["one", "two"]))
    manager = SimpleNamespace(get_state_registry=lambda key: {"batch": registry}[key])
    model = SimpleNamespace(module=Module(), adata=adata, adata_manager=manager)
    decoder = cf.cells.scvi_decoder(model, batch="two", target_sum=100)
    found = tl.interpolate(adata, flow, at=2.0, decode=decoder)
    assert model.module.training
    np.testing.assert_allclose(np.expm1(found.X).sum(axis=1), 100, rtol=1e-4)
    with pytest.raises(ValueError, match="knows no batch 'three'. There are 'one', 'two'"):
        cf.cells.scvi_decoder(model, batch="three")
    with pytest.raises(ValueError, match="width 5; found 3"):
        decoder.decode(np.zeros((2, 3), np.float32))


def test_genes_that_no_component_sees_are_told_of(known, caplog):
    adata = known[0].copy()
    adata.var["highly_variable"] = [k % 2 == 0 for k in range(12)]
    sc.pp.pca(adata, n_comps=4)
    flow = cf.SnapshotFlow(time_key="day", steps=5, device="cpu").fit(adata)
    found = tl.interpolate(adata, flow, at=2.0)
    assert found.uns["interpolation"]["genes_left_out"] == 6
    assert "6 of 12 genes are not in the result" in caplog.text
    with pytest.raises(KeyError, match="'gene1' cannot be decoded: it was not in the PCA"):
        tl.interpolate(adata, flow, at=2.0, genes=["gene1"])
    with pytest.raises(KeyError, match=r"No gene 'gene22'.*Is it 'gene2'"):
        tl.interpolate(adata, flow, at=2.0, genes=["gene22"])


def test_duplicated_names_are_refused_where_genes_are_named(known):
    adata, flow = known[0].copy(), known[1]
    adata.var_names = ["gene0", *adata.var_names[:11]]
    with pytest.raises(ValueError, match=r"2 genes in .* are called 'gene0'.*var_names_make_unique"):
        tl.interpolate(adata, flow, at=2.0, genes=["gene0"])
    assert tl.interpolate(adata, flow, at=2.0, genes=["gene5"]).n_vars == 1
    with pytest.raises(ValueError, match="are called 'gene0'"):
        cf.pl.genes(adata, tl.interpolate(known[0], flow, at=[1.0, 2.0]), genes="gene0")
    with pytest.raises(ValueError, match="are called 'gene0'"):
        cf.pl.trajectories(adata, flow=flow, color="gene0", n=3)
    adata.var_names = ["MCM5", "PCNA", "TYMS", "CDK1", "TOP2A", "BAX", "FAS", "CASP3", "CASP8", "TP53", "x", "CDK1"]
    with pytest.warns(UserWarning, match="not unique"), pytest.raises(ValueError, match="are called 'CDK1'"):
        tl.growth_prior(adata, unit="days", cell_cycle=adata.var_names[:5], apoptosis=())


def test_a_translator_gives_the_genes_of_cells_back(known):
    adata = known[0]
    control, treated = (adata[adata.obs["day"] == day].copy() for day in (0.0, 5.0))
    model = cf.DomainTranslator(steps=20, rep="X_pca", device="cpu").fit(control, treated)
    found = model.translate(control)
    assert list(found.var_names) == list(adata.var_names)
    expected = read_loadings(control, "X_pca", genes=True).decode(found.obsm["X_pca"])
    np.testing.assert_allclose(found.X, expected, atol=1e-5)
    assert found.uns["translation"]["variance_carried"] > 0.5
    assert model.translate(control, genes=False).X is None
    assert list(model.translate(control, genes=["gene3"]).var_names) == ["gene3"]
    assert (squares(found.obsm["X_pca"]).astype(np.float32) == model.translate(control, decode=squares).X).all()
    with pytest.raises(ValueError, match="only for cells"):
        model.translate(control.obsm["X_pca"], genes=True)
