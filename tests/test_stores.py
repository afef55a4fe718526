"""Cells in files: whatever form they lie in, they are the cells that they are in memory."""

import re
import shutil
import sys
import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

import cellflow as cf
from cellflow.cells.loadings import read_loadings
from cellflow.cells.single import read_single
from cellflow.cells.snapshots import read_rep
from cellflow.cells.store_columns import concatenated
from cellflow.cells.store_files import elements
from cellflow.cells.store_results import results_of
from cellflow.cells.stores import FROM_FILE, digests_of_files, read_stores
from cellflow.errors import CheckpointError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data"),  # anndata and zarr about themselves
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding"),
    pytest.mark.filterwarnings("ignore:Observation names are not unique"),
]
QUICK = {"time_key": "day", "steps": 12, "coupling": "exact", "regularize": False, "seed": 3}


def cells_of(n=60, seed=0, x=np.asarray, genes=5):
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {"day": np.repeat([2, 4], n // 2), "donor": pd.Categorical(rng.choice(["a", "b"], n))},
        index=[f"cell{k}" for k in range(n)],
    )
    adata = anndata.AnnData(x(rng.poisson(1.0, (n, genes)).astype("float32")), obs=obs)
    adata.obsm["X_pca"] = rng.normal(size=(n, 3)) + obs["day"].to_numpy()[:, None]
    return adata


def write(adata, path, form):
    """Write cells as HDF5, or as zarr of a version; sharded, as those who have many cells write it."""
    path = Path(f"{path}.{'h5ad' if form == 'h5ad' else 'zarr'}")
    if form == "h5ad":
        adata.write_h5ad(path)
        return path
    with anndata.settings.override(zarr_write_format=2 if form == "zarr2" else 3):
        adata.write_zarr(path)
    if form == "sharded":
        group, values = zarr.open_group(path, mode="r+")["obsm"], np.asarray(adata.obsm["X_pca"])
        attributes = dict(group["X_pca"].attrs)
        del group["X_pca"]
        group.create_array("X_pca", data=values, chunks=(10, 3), shards=(20, 3), attributes=attributes)
        zarr.consolidate_metadata(path)
    return path


FORMS = ["h5ad", "zarr2", "zarr3", "sharded"]


@pytest.fixture(scope="module")
def known():
    """Cells, and the weights of a flow that was fitted to them in memory."""
    adata = cells_of()
    return adata, weights(cf.SnapshotFlow(**QUICK).fit(adata))


def weights(flow):
    return np.concatenate([weight.detach().numpy().ravel() for weight in flow.field_.parameters()])


@pytest.mark.parametrize("form", ["backed", "glob", "mapped", *FORMS])
def test_a_fit_to_files_is_the_fit_to_the_same_cells_in_memory(known, form, tmp_path):
    adata, expected = known
    if form == "backed":
        given = anndata.read_h5ad(write(adata, tmp_path / "a", "h5ad"), backed="r")
    elif form == "mapped":
        np.save(tmp_path / "x.npy", adata.obsm["X_pca"].astype("float32"))
        given = adata.copy()
        given.obsm["X_pca"] = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif form == "glob":
        for day, kind in ((2, "h5ad"), (4, "zarr3")):
            write(adata[adata.obs["day"] == day], tmp_path / f"day{day}", kind)
        given = tmp_path / "day*"
    else:
        given = str(write(adata, tmp_path / "a", form))
    assert (weights(cf.SnapshotFlow(**QUICK).fit(given)) == expected).all()


def test_of_several_files_columns_are_joined_and_names_told_apart(tmp_path):
    one, two = cells_of(), cells_of(seed=1)
    two.obs["donor"] = pd.Categorical(["c"] * len(two))
    files = [write(one, tmp_path / "one", "h5ad"), write(two, tmp_path / "two", "zarr3")]
    found = read_stores(files)
    assert found.obs_names.is_unique
    assert list(found.obs_names[[0, -1]]) == ["cell0-one.h5ad", "cell59-two.zarr"]
    assert list(found.obs["donor"].cat.categories) == ["a", "b", "c"]
    assert found.obs[FROM_FILE].value_counts().tolist() == [60, 60]
    assert np.allclose(found.obsm["X_pca"], np.concatenate([one.obsm["X_pca"], two.obsm["X_pca"]]), atol=1e-6)
    assert read_stores(files, columns=["day"]).obs.columns.tolist() == ["day", FROM_FILE]


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (pd.Categorical([2, None]), [4, 6], [2.0, np.nan, 4.0, 6.0]),
        (pd.Categorical([2, 3]), pd.Categorical([4.5, None]), [2.0, 3.0, 4.5, np.nan]),
        ([1.5, 2.0], None, [1.5, 2.0, np.nan, np.nan]),
        (None, [1, 2], [np.nan, np.nan, 1.0, 2.0]),
        (None, [True, False], pd.array([None, None, True, False], dtype="boolean")),
        (pd.Categorical(["a", "b"]), None, pd.Categorical(["a", "b", None, None])),
    ],
)
def test_what_is_missing_in_a_file_keeps_the_kind_of_its_column(one, two, expected, tmp_path):
    """Such that the cells can be written again."""
    tables = [pd.DataFrame({} if part is None else {"x": part}, index=["a", "b"]) for part in (one, two)]
    found = concatenated(tables, ["one", "two"])
    pd.testing.assert_series_equal(found["x"], pd.Series(expected, index=found.index, name="x"))
    anndata.AnnData(obs=found).write_h5ad(tmp_path / "a.h5ad")


def test_a_folder_of_data_sets_is_a_list_of_them(tmp_path):
    """As annbatch writes collections: the eleventh comes after the second."""
    zarr.open_group(tmp_path / "all.zarr", mode="w")
    for k in (0, 2, 10):
        write(cells_of(seed=k, n=4), tmp_path / "all.zarr" / "dataset", "zarr3").rename(
            tmp_path / "all.zarr" / f"dataset_{k}"
        )
    assert list(read_stores(tmp_path / "all.zarr").obs[FROM_FILE].cat.categories) == [
        f"dataset_{k}" for k in (0, 2, 10)
    ]


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_x_is_read_sparse_dense_and_both(kind, tmp_path):
    one, two = cells_of(x=kind), cells_of(seed=1)
    files = [write(one, tmp_path / "one", "h5ad"), write(two, tmp_path / "two", "zarr3")]
    dense = one.X.toarray() if sparse.issparse(one.X) else one.X
    assert np.array_equal(read_stores(files, rep="X").X, np.concatenate([dense, two.X]))


@pytest.mark.parametrize("form", ["h5ad", "zarr3"])
def test_a_representation_that_is_not_there_comes_from_the_loadings(form, tmp_path):
    import scanpy as sc

    adata = cells_of(x=sparse.csr_matrix, genes=30)
    sc.pp.pca(adata, n_comps=4)
    expected = adata.obsm.pop("X_pca")
    half = [write(adata[some].copy(), tmp_path / f"{k}", form) for k, some in enumerate((slice(25), slice(25, 60)))]
    assert np.allclose(read_stores(half).obsm["X_pca"], expected, atol=1e-4)


@pytest.mark.parametrize("form", ["h5ad", "zarr3"])
def test_the_expression_of_one_file_stays_there_until_it_is_asked_for(form, tmp_path):
    adata = cells_of(x=sparse.csr_matrix)
    found = read_stores(write(adata, tmp_path / "a", form))
    assert not isinstance(found._X, np.ndarray)
    assert (found[found.obs["day"] == 4].X.toarray() == adata.X[30:].toarray()).all()


def spoiled(folder, spoil):
    """Return two files, of which the second is spoiled."""
    one, two = cells_of(), cells_of(seed=1)
    spoil(two)
    return [write(one, folder / "one", "h5ad"), write(two, folder / "two", "zarr3")]


def as_text(adata):
    adata.obs["day"] = pd.Categorical(["day " + str(day) for day in adata.obs["day"]])


def renamed_with_nan(adata):
    adata.obs_names, adata.obsm["X_pca"][3, 1] = [f"q{k}" for k in range(60)], np.nan


def other_loadings(adata):
    adata.varm["PCs"] = np.ones((5, 3))


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (
            lambda a: a.obsm.pop("X_pca"),
            KeyError,
            r"No `obsm\['X_pca'\]` in two.zarr. Available in every file: \['X'\]",
        ),
        (
            lambda a: a.obsm.__setitem__("X_pca", np.ones((60, 4))),
            ValueError,
            "3 columns in one.h5ad and 4 in two",
        ),
        (lambda a: a.obs.pop("day"), KeyError, r"No `obs\['day'\]` in two.zarr. Available: \['donor'\]"),
        (as_text, ValueError, r"`obs\['day'\]` holds numbers in one.h5ad and text in two.zarr"),
        (lambda a: a.obsm["X_pca"].__setitem__((3, 1), np.nan), ValueError, "1 of 120 cells have NaN.*cell3-two.zarr"),
        (renamed_with_nan, ValueError, r"for example q3 \(two.zarr\)"),
        (lambda a: a._inplace_subset_obs(np.zeros(60, dtype=bool)), ValueError, "two.zarr holds no cells"),
    ],
)
def test_files_that_do_not_fit_together_are_named(spoil, kind, words, tmp_path):
    files = spoiled(tmp_path, spoil)
    with pytest.raises(kind, match=words):
        cf.SnapshotFlow(**QUICK).fit(files)


def test_files_with_a_pca_each_are_refused(tmp_path):
    files = [cells_of(), cells_of(seed=1)]
    for k, adata in enumerate(files):
        adata.varm["PCs"] = np.eye(5, 3)[:, :: 1 - 2 * k]
    named = [write(adata, tmp_path / f"{k}", "h5ad") for k, adata in enumerate(files)]
    with pytest.raises(ValueError, match=r"1.h5ad differ from those of 0.h5ad: each file has a PCA of its own"):
        read_stores(named)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ("nowhere.h5ad", FileNotFoundError, "No file .*nowhere.h5ad"),
        ("day*.zarr", FileNotFoundError, r"No file matches .*day\*.zarr"),
        (["a.h5ad", "./a.h5ad"], ValueError, "a.h5ad is named twice"),
        ("folder", ValueError, "folder that holds no zarr"),
        ("text.h5ad", ValueError, "Expected the cells of an AnnData in .*text.h5ad; it is damaged"),
        ([], ValueError, "found an empty list"),
        (3, TypeError, "Expected an AnnData, the path of an .h5ad file or a zarr folder, or a list of paths; found 3"),
        ([3], TypeError, r"found \[3\]"),
    ],
)
def test_what_is_no_file_of_cells_is_refused(data, kind, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(cells_of(), Path("a"), "h5ad")
    Path("folder").mkdir()
    Path("text.h5ad").write_text("cells")
    with pytest.raises(kind, match=words):
        cf.SnapshotFlow(**QUICK).fit(data)


@pytest.mark.parametrize("form", ["h5ad", "zarr2", "zarr3", "sharded"])
def test_a_truncated_file_is_refused(form, tmp_path):
    """In zarr a chunk that is not there reads as zeros; here it does not."""
    path = write(cells_of(n=2000), tmp_path / "a", form)
    if form == "h5ad":
        path.write_bytes(path.read_bytes()[:-40_000])
        words = "a.h5ad; it is damaged"
    else:
        inside = path / "obsm" / "X_pca"
        chunks = [each for each in inside.rglob("*") if each.is_file() and not each.name.startswith((".z", "zarr"))]
        chunk = max(chunks, key=lambda each: each.stat().st_size)
        chunk.unlink()
        words = "'X_pca' in a.zarr is truncated: .* of its .* chunks are missing"
    with pytest.raises(ValueError, match=words):
        read_stores(path)


def test_a_chunk_that_is_cut_short_is_refused(tmp_path):
    path = write(cells_of(n=2000), tmp_path / "a", "zarr3")
    chunk = max((each for each in (path / "obsm/X_pca/c").rglob("*") if each.is_file()), key=lambda e: e.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(ValueError, match="a.zarr; it is damaged"):
        read_stores(path)


def test_a_training_goes_on_with_the_same_files_only(tmp_path):
    """Wherever they are: a file is known by its contents."""
    adata = cells_of()
    files = [write(adata[adata.obs["day"] == day], tmp_path / f"day{day}", "h5ad") for day in (2, 4)]
    flow, folder = cf.SnapshotFlow(**QUICK), tmp_path / "run"
    flow.fit(files, run=cf.Run(folder))
    (tmp_path / "moved").mkdir()
    moved = [shutil.copy(file, tmp_path / "moved") for file in files]
    again = cf.SnapshotFlow(**QUICK).fit(moved, run=cf.Run(folder, resume=True))
    assert (weights(again) == weights(flow)).all()
    with h5py.File(moved[1], "r+") as file:
        file["obsm/X_pca"][0, 0] += 1
    with pytest.raises(CheckpointError, match=r"trained with files\.day4\.h5ad '"):
        cf.SnapshotFlow(**QUICK).fit(moved, run=cf.Run(folder, resume=True))


def test_digests_do_not_depend_on_how_cells_are_arranged(tmp_path):
    cells = read_stores([write(cells_of(seed=k), tmp_path / f"{k}", "h5ad") for k in (0, 1)])
    x = cells.obsm["X_pca"]
    mixed = np.argsort(np.tile(np.arange(60), 2), kind="stable")
    assert digests_of_files(cells, x) == digests_of_files(cells[mixed], x[mixed])


@pytest.mark.parametrize("form", ["h5ad", "sharded", "memory"])
def test_reading_takes_little_more_than_the_representation(form, tmp_path, monkeypatch):
    """As numpy counts it: of 8 MB in double precision, 4 MB are kept."""
    monkeypatch.setattr("cellflow.cells.single.AT_ONCE", 2**15)
    x = np.random.default_rng(0).normal(size=(20_000, 50))
    if form == "h5ad":
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["x"] = x
        part = h5py.File(tmp_path / "x.h5", "r")["x"]
    elif form == "sharded":
        part = zarr.create_array(tmp_path / "x.zarr", data=x, chunks=(250, 50), shards=(500, 50))
    else:
        part = x
    tracemalloc.start()
    with zarr.config.set({"async.concurrency": 1}):  # of so small an array, what is in flight would count
        found = read_single([part], rep="X_pca", names=range(len(x)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found == x.astype("float32")).all()
    assert found.nbytes <= peak <= 1.5 * found.nbytes


def test_a_mapped_representation_stays_in_its_file(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1000, 100), dtype="float32"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    found = read_single([mapped], rep="X_pca", names=range(1000))
    assert tracemalloc.get_traced_memory()[0] < found.nbytes / 4
    tracemalloc.stop()
    found[:] = 2.0  # nothing of this gets there
    assert (np.load(tmp_path / "x.npy") == 1).all()


def test_what_was_read_for_a_fit_is_not_copied(tmp_path):
    cells = read_stores(write(cells_of(), tmp_path / "a", "zarr3"))
    assert np.shares_memory(read_rep(cells, "X_pca"), cells.obsm["X_pca"])
    adata = cells_of()
    adata.obsm["X_pca"] = adata.obsm["X_pca"].astype("float32")
    assert not np.shares_memory(read_rep(adata, "X_pca"), adata.obsm["X_pca"])


@pytest.mark.parametrize("form", ["h5ad", "zarr2", "zarr3"])
def test_results_go_into_the_files_and_x_stays_as_it_was(form, tmp_path):
    whole = cells_of(x=sparse.csr_matrix)
    whole.obs_names = [f"cell{k % 30}" for k in range(60)]  # the same in both files
    files = [write(whole[whole.obs["day"] == day].copy(), tmp_path / f"day{day}", form) for day in (2, 4)]
    for again in (1.0, 2.0):  # new, and in the place of what is there
        with results_of(files, rep="X_pca") as cells:
            cells.obsm["velocity"] = again * cells.obsm["X_pca"]
            cells.obs["rate"] = again * np.arange(60.0)
            cells.uns["velocity"] = {"rep": "X_pca", "again": again}
            cells.obsm["fate"] = pd.DataFrame({"left": again * np.arange(60.0)}, index=cells.obs_names)
        for k, file in enumerate(files):
            found = anndata.read_h5ad(file) if form == "h5ad" else anndata.read_zarr(file)
            half = whole[whole.obs["day"] == 2 * k + 2]
            assert np.allclose(found.obsm["velocity"], again * half.obsm["X_pca"], atol=1e-5)
            assert found.obs["rate"].tolist() == (again * np.arange(60.0)[30 * k : 30 * k + 30]).tolist()
            assert found.obsm["fate"]["left"].tolist() == found.obs["rate"].tolist()
            assert found.uns["velocity"] == {"rep": "X_pca", "again": again}
            assert list(found.obs) == ["day", "donor", "rate"]
            assert (found.X != half.X).nnz == 0
    with results_of(files, rep="X_pca", beside=["velocity"]) as cells:
        del cells.obs["rate"], cells.obsm["velocity"]
    found = read_stores(files, beside=None)
    assert (list(found.obs), list(found.obsm)) == (["day", "donor", FROM_FILE], ["fate", "X_pca"])
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(each.name for each in files)


@pytest.mark.parametrize("form", ["h5ad", "zarr2", "zarr3"])
def test_a_file_is_what_it_was_when_writing_fails(form, tmp_path, monkeypatch):
    """The second file cannot be written: neither is changed."""
    files = [write(cells_of(seed=k), tmp_path / f"{k}", form) for k in range(2)]
    before = digest_of(tmp_path)
    count = iter(range(9))
    true = elements().write_elem

    def fails(group, key, value, **more):
        if next(count) == 3:
            raise OSError(28, "No space left on device")
        return true(group, key, value, **more)

    monkeypatch.setattr(elements(), "write_elem", fails)
    with (
        pytest.raises(OSError, match="1[.].* could not be written: No space left"),
        results_of(files, rep="X_pca") as cells,
    ):
        cells.obsm["velocity"], cells.obs["rate"] = cells.obsm["X_pca"] + 1, 1.0
    assert digest_of(tmp_path) == before


@pytest.mark.parametrize("form", ["zarr2", "zarr3"])
def test_a_link_to_a_folder_is_followed_and_what_is_half_moved_is_moved_back(form, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    path, link = write(cells_of(), tmp_path / "disk" / "a", form), tmp_path / "link.zarr"
    link.symlink_to(path)
    true, moved = Path.rename, []

    def rename(here, there):
        moved.append(here)
        if fails and there.name == "rate":
            fails.pop()
            raise OSError(28, "No space left on device")
        return true(here, there)

    monkeypatch.setattr(Path, "rename", rename)
    for factor, fails in ((1.0, []), (2.0, ["once"])):
        with (
            pytest.raises(OSError, match="No space left") if fails else nullcontext(),
            results_of(link, rep="X_pca") as a,
        ):
            a.obsm["twice"], a.obs["rate"] = factor * a.obsm["X_pca"], factor
    assert moved
    assert all(here.is_relative_to(tmp_path / "disk") for here in moved)  # another disk takes copies only
    found = anndata.read_zarr(path)
    assert found.obs["rate"].eq(1.0).all()
    assert np.allclose(found.obsm["twice"], found.obsm["X_pca"], atol=1e-6)
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.zarr"]


@pytest.mark.parametrize(("number", "words"), [(11, "another program is writing to it"), (24, "no more open files")])
def test_a_file_that_cannot_be_opened_now_is_not_called_damaged(number, words, tmp_path, monkeypatch):
    path = write(cells_of(), tmp_path / "a", "h5ad")

    def busy(*_):
        raise OSError(number, "HDF5 could not")

    monkeypatch.setattr(h5py, "File", busy)
    with pytest.raises(OSError, match=f"a.h5ad cannot be read: .*{words}"):
        read_stores(path)


def test_genes_of_several_files_are_refused_with_the_reason(tmp_path):
    files = []
    for k in range(2):
        adata = cells_of(seed=k)
        adata.varm["PCs"] = np.ones((5, 3))
        files.append(write(adata, tmp_path / str(k), "h5ad"))
    with pytest.raises(KeyError, match="of several files no expression is read"):
        read_loadings(read_stores(files), "X_pca", genes=True)


def digest_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("form", ["h5ad", "zarr3"])
@pytest.mark.parametrize("key", ["obs", "obsm", "uns"])
def test_what_is_of_another_kind_is_not_replaced(form, key, tmp_path):
    adata = cells_of()
    getattr(adata, key)["velocity"] = {
        "obs": ["north"] * 60, "uns": 3.0, "obsm": pd.DataFrame({"north": np.ones(60)}, index=adata.obs_names),
    }[key]  # fmt: skip
    path = write(adata, tmp_path / "a", form)
    before = digest_of(tmp_path)
    given = {"obs": np.ones(60), "uns": {"rep": "X_pca"}, "obsm": np.ones((60, 2))}[key]
    with (
        pytest.raises(ValueError, match=rf"`{key}\['velocity'\]` of a\..* holds .* already"),
        results_of(path, rep="X_pca") as cells,
    ):
        getattr(cells, key)["velocity"] = given
    assert digest_of(tmp_path) == before


@pytest.mark.parametrize("form", ["h5ad", "zarr3"])
def test_a_file_that_is_read_only_is_refused_before_anything_is_computed(form, tmp_path, monkeypatch):
    path = write(cells_of(), tmp_path / "a", form)
    monkeypatch.setattr("cellflow.cells.store_results.os.access", lambda where, how: Path(where) != path)
    with pytest.raises(PermissionError, match="is read-only"), results_of(path, rep="X_pca"):
        pytest.fail("it was computed")


def test_the_page_on_cells_in_files_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "large_data.md").read_text()
    names: dict = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
    assert {len(cf.cells.read_stores(path, rep="velocity")) for path in Path().glob("*.h5ad")} == {69, 74, 79, 49}
    assert "velocity" in names["cells"].obsm
    assert names["middle"].n_obs > 0


class Fetched(list):
    """annbatch's `Loader`, as far as it is used: rows in order, in batches of whole chunks but for the last."""

    seen: ClassVar[list] = []

    def __init__(self, *, chunk_size, preload_nchunks, batch_size, shuffle, preload_to_gpu, to_torch):
        assert batch_size == chunk_size * preload_nchunks
        assert [shuffle, preload_to_gpu, to_torch] == [False] * 3
        self.step = batch_size

    def add_dataset(self, dataset):
        self.seen.append(dataset.shape)
        return self + [{"X": dataset[k : k + self.step]} for k in range(0, dataset.shape[0], self.step)]


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_annbatch_fetches_zarr_where_it_is_installed(kind, tmp_path, monkeypatch):
    import cellflow.cells.store_rows as rows

    adata = cells_of(n=700, x=kind)
    monkeypatch.setattr(rows, "find_spec", lambda name: name == "annbatch" or None)
    monkeypatch.setitem(sys.modules, "annbatch", SimpleNamespace(Loader=Fetched))
    monkeypatch.setattr("cellflow.cells.single.AT_ONCE", 2**11)
    x = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
    assert np.array_equal(read_stores(write(adata, tmp_path / "a", "zarr3"), rep="X").X, x)
    assert Fetched.seen.pop() == (700, 5)
    assert np.array_equal(read_stores(write(adata, tmp_path / "a", "h5ad"), rep="X").X, x)
    assert not Fetched.seen
