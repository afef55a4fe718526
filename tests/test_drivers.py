"""Genes that go with a fate: planted ones are found, and what is said of them holds; and genes set to other amounts."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import cellflow as cf
from cellflow.cells.expression import Expression
from cellflow.pl.drivers import read_drivers
from cellflow.tl.association import associate
from cellflow.tl.fate_table import write_fate
from cellflow.tl.gene_changes import half_width, table_of_changes
from conftest import Known

QUICK = {"coupling": "independent", "growth": False, "steps": 1, "batch_size": 8, "device": "cpu", "regularize": False}


def give_fates(adata, upper, flow, groupby="kind", key="fate"):
    """Write fates as `cf.tl.fate` does."""
    early = np.flatnonzero(adata.obs[flow.time_key] < flow.clock_.times[-1])
    shares = np.stack([1 - upper, upper], axis=1)[early]
    about = {"at": flow.clock_.times[-1], "groupby": groupby, "rep": flow.rep, "time_key": flow.time_key, "unit": ""}
    write_fate(adata, key, early, {"": shares}, ["lower", "upper"], about)


@pytest.fixture(scope="module")
def planted():
    """Cells among whose genes drivers are planted, and fates that are known as well as their state tells them."""
    adata = cf.datasets.planted_drivers(seed=0)
    flow = cf.SnapshotFlow(rep="X_latent", **QUICK).fit(adata)
    give_fates(adata, 1 / (1 + np.exp(-4 * adata.obsm["X_latent"][:, 1].astype(float))), flow)
    return adata, flow


def kinds(adata, table, n=20):
    return adata.var["kind"].to_numpy()[adata.var_names.get_indexer(table["gene"][:n])]


def test_planted_drivers_are_found_with_default_settings(planted):
    adata, flow = planted
    cf.tl.drivers(adata, flow, fate="upper")
    table = adata.uns["drivers"]
    assert (kinds(adata, table) == "driver").mean() >= 0.9
    by_correlation = table.sort_values("correlation", ascending=False)
    assert (kinds(adata, by_correlation) == "time").mean() > 0.3  # which go with the fate only by time
    named = table[table["q_value"] < 0.05]
    assert len(named) >= 15
    assert (kinds(adata, named, len(named)) != "driver").sum() <= 2
    lower = cf.tl.drivers(adata, flow, fate="lower", copy=True).uns["drivers"]
    np.testing.assert_allclose(lower["partial"], -table["partial"][::-1], atol=1e-9)


def test_what_was_planted_has_the_correlation_that_was_asked_for():
    adata = cf.datasets.planted_drivers(3000, n_genes=60, n_drivers=30, dropout=0.0, times=(0.0, 1.0))
    fate = (adata.obs["fate"] == "upper").to_numpy(float)
    x = adata.X.toarray()
    for time in (0.0, 1.0):
        here = (adata.obs["time"] == time).to_numpy()
        found = [np.corrcoef(x[here, gene], fate[here])[0, 1] for gene in np.flatnonzero(adata.var["kind"] == "driver")]
        assert np.mean(found) == pytest.approx(0.3, abs=0.015)  # what is cut off at 0 takes little
    dropped = cf.datasets.planted_drivers(500, n_genes=20, n_drivers=0).X
    assert np.mean(dropped.toarray() == 0) == pytest.approx(0.6 + 0.4 * stats.norm.cdf(-1.5), abs=0.02)


def associated(values, y, given=None, x=None, weight=None, **how):
    n = len(y)
    genes = Expression(values, pd.Index([f"g{k}" for k in range(values.shape[1])]), "adata.X")
    given = np.zeros((n, 0)) if given is None else given
    x = np.random.default_rng(9).normal(size=(n, 3)) if x is None else x
    weight = np.ones(n) if weight is None else weight
    return associate(genes, np.arange(n), y, given, x, weight=weight, rng=np.random.default_rng(0), **how)


def test_partial_correlations_are_those_of_residuals_of_any_matrix():
    rng = np.random.default_rng(0)
    given, y, values = rng.normal(size=(300, 2)), rng.normal(size=300), rng.poisson(1.0, size=(300, 7)).astype("f4")
    y = y + given[:, 0]
    found = associated(values, y, given)
    design = np.column_stack([np.ones(300), given])

    def left(one):
        return one - design @ np.linalg.lstsq(design, one, rcond=None)[0]

    expected = [np.corrcoef(left(gene.astype(float)), left(y))[0, 1] for gene in values.T]
    np.testing.assert_allclose(found.partial, expected, atol=1e-10)
    np.testing.assert_allclose(found.correlation, [np.corrcoef(gene, y)[0, 1] for gene in values.T], atol=1e-10)
    for other in (sparse.csr_matrix(values), sparse.csc_array(values)):
        for one, two in zip(found, associated(other, y, given), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-10)


def test_a_cell_of_weight_two_is_as_two_cells():
    rng = np.random.default_rng(1)
    y, values, weight = rng.normal(size=60), rng.normal(size=(60, 4)), rng.integers(1, 3, 60)
    twice = np.repeat(np.arange(60), weight)
    found = associated(values, y, weight=weight.astype(float))
    np.testing.assert_allclose(found.partial, associated(values[twice], y[twice]).partial, atol=1e-10)
    assert found.n_effective.max() < 60  # but not in how sure it is


def test_p_values_of_independent_cells_are_those_of_pearson():
    rng = np.random.default_rng(2)
    y, values = rng.normal(size=400), rng.normal(size=(400, 200))
    found = associated(values, y)
    expected = np.array([stats.pearsonr(gene, y).pvalue for gene in values.T])
    whole = found.n_effective > 399
    assert whole.mean() > 0.3
    np.testing.assert_allclose(found.p_value[whole], expected[whole], rtol=0.1, atol=0.01)
    assert (found.p_value < 0.05).mean() < 0.08
    np.testing.assert_allclose(found.q_value, stats.false_discovery_control(found.p_value))


def test_genes_that_follow_the_state_are_worth_fewer_cells():
    """Null: the fate and the genes are smooth random functions of the state that know nothing of each other."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, 2))

    def smooth(n):
        return np.cos(x @ rng.normal(0, 1.5, (2, n)) + rng.uniform(0, 2 * np.pi, n))

    plain = found = n = 0
    for _ in range(6):
        y, values = smooth(1)[:, 0], smooth(80) + 0.7 * rng.normal(size=(600, 80))
        one = associated(values, y, x=x)
        every = 2 * stats.norm.sf(np.abs(np.arctanh(one.partial)) * np.sqrt(600 - 3))
        plain, found, n = plain + (every < 0.05).sum(), found + (one.p_value < 0.05).sum(), n + 80
    assert plain / n > 0.3
    assert found / n < 0.16


def test_no_gene_is_named_of_random_directions_of_the_state():
    """Null: each gene, and the fate, goes along a direction of its own; the rate at p < 0.05 is held over seeds."""
    rng = np.random.default_rng(7)
    named, rate, plain = [], [], []
    for _ in range(10):
        x = rng.normal(size=(400, 8))
        y = 1 / (1 + np.exp(-x @ rng.normal(size=8)))
        values = x[:, rng.integers(8, size=100)] + rng.normal(size=(400, 100))
        found = associated(values, y, x=x)
        named.append((found.q_value < 0.05).any())
        rate.append((found.p_value < 0.05).mean())
        plain.append((2 * stats.norm.sf(np.abs(np.arctanh(found.partial)) * np.sqrt(397)) < 0.05).mean())
    assert np.mean(plain) > 0.5
    assert sum(named) <= 1
    assert np.mean(rate) < 0.08


def test_genes_that_do_not_vary_come_last_and_what_is_not_finite_is_refused():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(50, 3))
    values[:, 1] = 2.0
    found = associated(values, rng.normal(size=50))
    for one in found:
        assert np.isnan(one).tolist() == [False, True, False]
    values[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"finite expression in `adata.X`.*'g2'"):
        associated(values, rng.normal(size=50))


@pytest.fixture
def known(knowing):
    """A flow whose cells move at (1, 0.5, 0) per day, on principal components of 30 genes with names."""
    import scanpy as sc

    rng = np.random.default_rng(5)
    day = np.repeat([0.0, 1.0, 3.0], 60)
    states = rng.normal(size=(180, 3)) * (4, 2, 1) + day[:, None] * (1, 0.5, 0)
    x = states @ rng.normal(size=(3, 30)) / 5 + 0.05 * rng.normal(size=(180, 30)) + 3
    obs = pd.DataFrame({"day": day, "phase": rng.choice(["a", "b"], 180), "counts": rng.random(180)})
    obs["kind"] = np.where(states[:, 0] > day.mean(), "upper", "lower")
    obs["clone"] = [f"c{k % 11}" for k in range(180)]
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(x.astype("f4"), obs=obs, var=pd.DataFrame(index=[f"gene{k}" for k in range(30)]))
    sc.pp.pca(adata, n_comps=3)
    flow = knowing(lambda _: Known([3.0, 1.5, 0.0])).fit(adata)  # per model time, which is three days
    give_fates(adata, 1 / (1 + np.exp(-adata.obsm["X_pca"][:, 0].astype(float))), flow)
    return adata, flow


def test_velocity_of_genes_is_that_of_the_components_through_the_loadings(known):
    adata, flow = known
    cf.tl.drivers(adata, flow, fate="upper", given=["phase", "counts"])
    table = adata.uns["drivers"].set_index("gene").loc[adata.var_names]
    np.testing.assert_allclose(table["velocity"], adata.varm["PCs"] @ [1.0, 0.5, 0.0], atol=1e-5)
    raw = adata.copy()
    raw.raw = adata[:, ::-1].copy()
    raw.layers["same"] = sparse.csr_matrix(raw.X)
    raw.X = raw.X * np.linspace(1, 2, 180)[:, None]  # which the loadings do not fit any more
    for how in ({"layer": "same"}, {"use_raw": True}):
        other = cf.tl.drivers(raw, flow, fate="upper", given=["phase", "counts"], copy=True, **how).uns["drivers"]
        other = other.set_index("gene").loc[adata.var_names]
        np.testing.assert_allclose(other["partial"], table["partial"], atol=1e-6)
        assert other["velocity"].isna().all()


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_drivers_survive_files(known, tmp_path):
    adata, flow = known
    cf.tl.drivers(adata, flow, fate="upper", time=[0.0, 1.0])
    cf.tl.perturb_genes(adata, flow, genes={"gene1": "up"}, n_random=3, lineage_key="clone")
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for again in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        for name in ("drivers", "perturb_genes"):
            pd.testing.assert_frame_equal(again.uns[name], adata.uns[name], check_dtype=False, check_column_type=False)
            assert set(again.uns[f"{name}_about"]) == set(adata.uns[f"{name}_about"])
        np.testing.assert_array_equal(again.obsm["perturb_genes"], adata.obsm["perturb_genes"])
        assert len(cf.pl.drivers(again).axes) == 2


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"fate": "uper"}, KeyError, "'upper'"),
        ({"time": 3.0}, ValueError, "before that of the fates, 3; found 3"),
        ({"time": 0.5}, ValueError, "No cells with a fate at time 0.5. Choose from: 0, 1"),
        ({"layer": "nothing"}, KeyError, r"adata.layers\['nothing'\]"),
        ({"use_raw": True}, KeyError, "no `adata.raw`"),
        ({"layer": "x", "use_raw": True}, ValueError, "Choose one"),
        ({"key": "other"}, KeyError, "Run `cf.tl.fate"),
        ({"given": ["age"]}, KeyError, "'age'"),
        ({"given": ["many"]}, ValueError, "too few to account for"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
    ],
)
def test_what_is_not_there_is_named(known, given, error, match):
    adata, flow = known
    adata.obs["many"] = [f"m{k}" for k in range(180)]
    with pytest.raises(error, match=match):
        cf.tl.drivers(adata, flow, **({"fate": "upper"} | given))
    assert "drivers" not in adata.uns


def test_fates_that_do_not_differ_or_of_few_cells_are_refused(known):
    adata, flow = known
    give_fates(adata, np.ones(180), flow)
    with pytest.raises(ValueError, match="same share of 'upper', 1"):
        cf.tl.drivers(adata, flow, fate="upper")
    adata.obsm["fate"].iloc[9:] = np.nan
    with pytest.raises(ValueError, match="Expected 10 cells or more with a fate"):
        cf.tl.drivers(adata, flow, fate="upper")


def test_fates_that_differ_by_rounding_or_by_time_alone_are_refused(known):
    adata, flow = known[0].copy(), known[1]
    draw = np.random.default_rng(0)
    rounding = 2 / 3 + 1e-16 * draw.integers(0, 3, adata.n_obs)
    give_fates(adata, rounding, flow)
    with pytest.raises(ValueError, match="same share of 'upper', 0.667: no gene"):
        cf.tl.drivers(adata, flow, fate="upper")
    time = adata.obs[flow.time_key].to_numpy(float)
    give_fates(adata, 0.1 + 0.5 * (time > time.min()), flow)
    with pytest.raises(ValueError, match="same share of 'upper', "):
        cf.tl.drivers(adata, flow, fate="upper")


def test_what_varies_by_rounding_has_no_correlation():
    draw = np.random.default_rng(0)
    group, cells = np.repeat([0.0, 1.0], 100), np.arange(200)
    genes = Expression(np.stack([draw.normal(size=200), group, 1 / 3 + 0 * group], axis=1), pd.Index(list("abc")), "X")
    x = draw.normal(size=(200, 2))
    found = associate(genes, cells, group / 3, group[:, None], x, weight=np.full(200, 0.1), rng=draw)
    assert np.isnan(found.partial).all()
    assert np.isnan(found.q_value).all()
    assert found.correlation[1] == pytest.approx(1)
    assert abs(found.correlation[1]) <= 1
    assert np.isnan(found.correlation[2])


def test_drawn_drivers_name_genes_and_say_what_they_are(known):
    adata, flow = known
    with pytest.raises(KeyError, match="Run `cf.tl.drivers"):
        cf.pl.drivers(adata)
    cf.tl.drivers(adata, flow, fate="upper")
    left, right = cf.pl.drivers(adata, n_genes=9).axes
    table, _ = read_drivers(adata)
    shown = [text.get_text() for text in left.get_yticklabels()]
    assert shown == [*table["gene"][:6], *table["gene"][-3:]]
    assert right.get_ylabel() == "velocity toward the fate, per day"
    assert {text.get_text() for text in right.texts} <= set(table["gene"])
    assert len(right.texts) >= 3
    adata.uns["drivers"]["velocity"] = np.nan
    assert "without accounting for time" in cf.pl.drivers(adata).axes[1].get_ylabel()
    with pytest.raises(ValueError, match="n_genes >= 1"):
        cf.pl.drivers(adata, n_genes=0)


def test_genes_are_set_to_amounts_through_the_loadings(known):
    adata, flow = known
    adata.X = sparse.csr_matrix(adata.X)
    values, loadings = adata.X.toarray()[:60], adata.varm["PCs"]
    for amount, aim in (("down", np.quantile(adata.X.toarray()[:, 4], 0.05)), (2.5, 2.5)):
        cf.tl.perturb_genes(adata, flow, genes={"gene4": amount, "gene7": "up"}, n_random=0)
        high = np.quantile(adata.X.toarray()[:, 7], 0.95)
        expected = np.outer(aim - values[:, 4], loadings[4]) + np.outer(high - values[:, 7], loadings[7])
        np.testing.assert_allclose(adata.obsm["perturb_genes"][:60], expected, rtol=1e-4, atol=1e-5)
        assert np.isnan(adata.obsm["perturb_genes"][60:]).all()
    # All move alike, so that the shift is kept, and shares change as the nearest cells at the end are others.
    table = adata.uns["perturb_genes"].set_index("group")
    np.testing.assert_allclose(table["after"].sum(), 1)
    changed = adata.obsm["perturb_genes_change"][:60].mean(axis=0)
    np.testing.assert_allclose(table.loc[["lower", "upper"], "change"], changed, atol=1e-6)


def test_the_gene_that_decides_is_told_from_random_ones(known):
    adata, flow = known
    best = adata.var_names[np.argmax(np.abs(adata.varm["PCs"][:, 0]))]
    sign = "up" if adata.varm["PCs"][adata.var_names.get_loc(best), 0] > 0 else "down"
    adata.obs["kind"] = np.where(adata.obsm["X_pca"][:, 0] > 0, "upper", "lower")
    cf.tl.perturb_genes(adata, flow, genes={best: sign}, groupby="kind", n_random=20, cells=adata.obs["day"] < 3)
    table = adata.uns["perturb_genes"].set_index("group")
    assert table.loc["upper", "change"] > 0
    assert table.loc["upper", "low"] < table.loc["upper", "change"] < table.loc["upper", "high"]
    assert table.loc["upper", "rank"] <= 8
    np.testing.assert_allclose(table["p_random"], table["rank"] / 21)
    about = adata.uns["perturb_genes_about"]
    assert (about["n_cells"], about["n_random"], list(about["genes"])) == (120, 20, [best])


def test_genes_are_changed_under_a_condition_that_is_asked_for():
    """The same as for cells that are under it: they are shifted by their own expression, and go where it takes them."""
    x = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    x -= x.mean(axis=0)
    loadings = np.linalg.svd(x, full_matrices=False)[2][:2].T
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], 45), "kind": np.where(x[:, 0] > 0, "a", "b")}).set_index(
        np.array([f"c{k}" for k in range(90)])
    )
    obs["drug"] = np.where(obs["day"] == 1, "A", np.resize(["control", "A", "B"], 90))
    adata = anndata.AnnData(x, obs=obs, obsm={"X_pca": x @ loadings}, varm={"PCs": loadings})
    flow = cf.SnapshotFlow(time_key="day", conditions="drug", **QUICK | {"steps": 60}).fit(adata)
    given = {"genes": {"4": "up"}, "groupby": "kind", "n_random": 0, "n_neighbors": 5}
    alike = adata.copy()
    alike.obs["drug"] = "A"
    cf.tl.perturb_genes(alike, flow, **given)
    asked, own = (cf.tl.perturb_genes(adata, flow, condition=one, copy=True, **given) for one in ({"drug": "A"}, None))
    for name in ("perturb_genes", "perturb_genes_change"):
        np.testing.assert_array_equal(asked.obsm[name], alike.obsm[name])
    np.testing.assert_array_equal(own.obsm["perturb_genes"], asked.obsm["perturb_genes"])
    assert not np.array_equal(own.uns["perturb_genes"]["before"], asked.uns["perturb_genes"]["before"])


def test_a_change_to_what_is_there_changes_nothing(known, caplog):
    adata, flow = known
    adata.X[:, 2] = 1.0
    adata.varm["PCs"][2] = 0.0
    value = float(adata.X[0, 3])
    adata.X[:, 3] = value
    adata.varm["PCs"][3] = 1e-9
    adata.obsm["X_pca"] = (adata.X - adata.X.mean(axis=0)) @ adata.varm["PCs"]
    with pytest.raises(KeyError, match="do not include 'gene2'"):
        cf.tl.perturb_genes(adata, flow, genes={"gene2": "up"}, n_random=0)
    cf.tl.perturb_genes(adata, flow, genes={"gene3": value}, n_random=5)
    assert (adata.uns["perturb_genes"]["change"] == 0).all()
    assert adata.uns["perturb_genes_about"]["shift"] == 0
    assert "of the distance to their nearest neighbour" in caplog.text
    assert "not specific to gene3" in caplog.text


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"genes": {"gen4": "up"}}, KeyError, "No gene 'gen4'.*Is it 'gene4'"),
        ({"genes": {"gene4": "off"}}, ValueError, "'down', 'up' or a finite number"),
        ({"genes": {"gene4": np.nan}}, ValueError, "finite number"),
        ({"genes": {}}, TypeError, "mapping from genes to amounts"),
        ({"genes": ["gene4"]}, TypeError, "mapping from genes to amounts"),
        ({"groupby": "type"}, KeyError, "'type'"),
        ({"at": 0.0}, ValueError, "all before time 0"),
        ({"key": "other", "groupby": None}, KeyError, "Run `cf.tl.fate"),
        ({"layer": "counts"}, KeyError, "'counts'"),
        ({"quantiles": (0.9, 0.1)}, ValueError, "the lower first"),
        ({"n_random": -1}, ValueError, "n_random >= 0"),
        ({"confidence": 1.5}, ValueError, "0 < confidence < 1"),
    ],
)
def test_perturbations_that_cannot_be_are_refused(known, given, error, match):
    adata, flow = known
    with pytest.raises(error, match=match):
        cf.tl.perturb_genes(adata, flow, **({"genes": {"gene4": "up"}, "groupby": "kind"} | given))
    assert "perturb_genes" not in adata.obsm


def test_genes_of_one_name_are_refused(known):
    adata, flow = known
    adata.var_names = ["twice", "twice", *adata.var_names[2:]]
    with pytest.raises(ValueError, match="2 genes in `adata.X` are called 'twice'"):
        cf.tl.perturb_genes(adata, flow, genes={"twice": "up"}, groupby="kind")
    cf.tl.drivers(adata, flow, fate="upper")  # a table has room for both
    assert (adata.uns["drivers"]["gene"] == "twice").sum() == 2
    np.testing.assert_allclose(
        np.sort(adata.uns["drivers"]["velocity"]), np.sort(adata.varm["PCs"] @ [1.0, 0.5, 0.0]), atol=1e-5
    )


def test_intervals_over_clones_are_wider_where_cells_of_a_clone_change_together():
    rng = np.random.default_rng(6)
    clone = np.repeat(np.arange(20), 10)
    change = (rng.normal(size=20)[clone] + 0.1 * rng.normal(size=200))[:, None]
    weight = np.full(200, 1 / 200)
    cells, clones = (half_width(change, weight, units, 0.9)[0] for units in (np.arange(200), clone))
    expected = stats.t.ppf(0.95, 199) * change.std(ddof=1) / np.sqrt(200)
    assert cells == pytest.approx(expected)
    assert clones == pytest.approx(np.sqrt(10) * cells, rel=0.1)


def test_ranks_count_what_is_as_large():
    random = np.array([[0.3], [-0.1], [0.05], [-0.4]])
    table = table_of_changes(["a"], np.array([0.5]), np.array([-0.3]), np.array([0.1]), random)
    assert table.loc["0", ["rank", "p_random"]].tolist() == [3.0, 0.6]


def test_members_widen_the_interval(known):
    adata, flow = known
    asked = {"genes": {"gene1": "up"}, "groupby": "kind", "n_random": 0, "copy": True}
    alone = cf.tl.perturb_genes(adata, flow, **asked).uns["perturb_genes"]
    flow.members_ = tuple(type(flow)(time_key="day", device="cpu").fit(adata) for _ in range(2))
    flow.members_[0].field_ = Known(lambda x: -6 * x)
    both = cf.tl.perturb_genes(adata, flow, **asked).uns["perturb_genes"]
    assert (both["high"] - both["low"] > alone["high"] - alone["low"]).all()
    np.testing.assert_allclose(both["change"], alone["change"])


MARKERS = {
    "Neutrophil": ["S100a8", "S100a9", "Ngp", "Camp", "Ltf", "Elane", "Cebpe", "Gfi1", "Fcnb"],
    "Monocyte": ["Csf1r", "Ms4a6c", "Lyz2", "Ctss", "Mpeg1", "Psap", "Tgfbi", "Vcan", "F13a1", "Ly86"],
    "Meg": ["Pf4", "Itga2b", "Gp1ba", "Mpl", "Ppbp", "Treml1", "Itgb3"],
    "Baso": ["Prss34", "Mcpt8", "Gata2", "Cpa3", "Ms4a2", "Hdc"],
}
"""Known marker genes of blood lineages."""


@pytest.mark.slow
def test_known_markers_of_blood_go_with_their_fates():
    adata = cf.datasets.hematopoiesis()
    flow = cf.SnapshotFlow(time_key="day", steps=300, batch_size=128).fit(adata)
    cf.tl.fate(adata, flow, groupby="state")
    for fate, names in MARKERS.items():
        cf.tl.drivers(adata, flow, fate=fate)
        order = adata.uns["drivers"]["gene"].tolist()
        there = [order.index(name) for name in names if name in order]
        assert len(there) >= 5, fate
        assert np.median(there) < 40, (fate, there)  # of 2,481


@pytest.mark.slow
def test_planted_drivers_are_found_by_the_fates_of_a_flow():
    adata = cf.datasets.planted_drivers(seed=1)
    flow = cf.SnapshotFlow(rep="X_latent", steps=300, seed=1).fit(adata)
    cf.tl.fate(adata, flow, groupby="fate")
    cf.tl.drivers(adata, flow, fate="upper")
    assert (kinds(adata, adata.uns["drivers"]) == "driver").mean() >= 0.9
