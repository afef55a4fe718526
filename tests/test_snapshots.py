"""Reading AnnData: every kind of time, every kind of matrix, and a clear word for each thing that cannot be used."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cellflow.cells.snapshots import leave_out, read_rep, read_snapshots, read_times
from conftest import make_cells


def with_time(values):
    adata = make_cells()
    adata.obs["day"] = pd.Series(values(adata.obs["day"]), index=adata.obs_names)
    return adata


@pytest.mark.parametrize(
    "kind",
    [
        lambda day: day,
        lambda day: day.astype(int),
        lambda day: day.astype("float32"),
        lambda day: day.astype(str).astype("category"),
        lambda day: day.astype("category"),
        lambda day: day.astype(str),
        lambda day: pd.to_timedelta(day, unit="D"),
    ],
    ids=["float", "int", "float32", "category of strings", "category", "string", "timedelta"],
)
def test_every_kind_of_time_gives_the_same_snapshots(kind):
    expected = read_snapshots(make_cells(), time_key="day", rep="X_pca")
    found = read_snapshots(with_time(kind), time_key="day", rep="X_pca")
    assert found.clock == expected.clock
    assert (found.time == expected.time).all()


def test_cells_keep_their_order_and_none_is_lost(cells):
    found = read_snapshots(cells, time_key="day", rep="X_pca")
    assert (found.x == cells.obsm["X_pca"]).all()
    assert sum(len(cloud) for cloud in found.clouds()) == cells.n_obs
    assert [len(cloud) for cloud in found.clouds()] == [40, 60, 50]
    assert (found.clouds()[1] == cells.obsm["X_pca"][cells.obs["day"] == 1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array], ids=["dense", "csr", "csc"])
def test_every_kind_of_matrix_is_read(dtype, form):
    values = np.arange(12).reshape(4, 3).astype(dtype)
    adata = anndata.AnnData(obs=pd.DataFrame(index=list("abcd")), obsm={"rep": form(values)})
    found = read_rep(adata, "rep")
    assert found.dtype == np.float32
    assert (found == values).all()


def test_a_data_frame_is_read(cells):
    cells.obsm["frame"] = pd.DataFrame(cells.obsm["X_pca"], index=cells.obs_names, columns=["a", "b", "c"])
    assert (read_rep(cells, "frame") == cells.obsm["X_pca"]).all()


def test_views_and_backed_files_are_read(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    view = cells[::2]
    assert (read_snapshots(backed, time_key="day", rep="X_pca").x == cells.obsm["X_pca"]).all()
    assert (read_snapshots(view, time_key="day", rep="X_pca").x == cells.obsm["X_pca"][::2]).all()
    backed.file.close()


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("backed", [False, True])
def test_x_itself_can_be_the_representation(kind, backed, tmp_path):
    cells = anndata.AnnData(
        kind(np.eye(4, 3, dtype=np.float32)), obs=pd.DataFrame({"t": [0, 0, 1, 1]}, index=list("abcd"))
    )
    if backed:
        cells.write_h5ad(tmp_path / "cells.h5ad")
        cells = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert (read_rep(cells, "X") == np.eye(4, 3)).all()
    if backed:
        cells.file.close()


def set_day(adata, values):
    adata.obs["day"] = values


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda a: a.obs.rename(columns={"day": "Day"}, inplace=True), KeyError, r"No `adata.obs\['day'\]`.*'Day'"),
        (lambda a: a.obsm.pop("X_pca"), KeyError, r"No `adata.obsm\['X_pca'\]`.*sc.pp.pca"),
        (lambda a: set_day(a, 3.0), ValueError, r"one time point \(3\)"),
        (lambda a: set_day(a, [9.0] + [1.0] * 149), ValueError, "Only one cell at time 9"),
        (lambda a: set_day(a, a.obs["day"].replace(1.0, np.nan)), ValueError, "60 of 150 cells have no"),
        (lambda a: set_day(a, a.obs["day"].replace(1.0, np.inf)), ValueError, "60 of 150 cells have no"),
        (lambda a: set_day(a, "E" + a.obs["day"].astype(str) + "_1"), ValueError, "'E.*not numbers.*map"),
        (lambda a: set_day(a, a.obs["day"] > 0), ValueError, "bool, which is not a length of time"),
        (lambda a: a.obsm["X_pca"].__setitem__((3, 1), np.nan), ValueError, "1 of 150 cells have NaN.*cell3"),
        (lambda a: a.obsm["X_pca"].__setitem__((3, 1), np.inf), ValueError, "1 of 150 cells have NaN or infinite"),
        (lambda a: a.obsm.__setitem__("X_pca", np.full((150, 2), "a")), ValueError, "Expected numbers"),
        (lambda a: setattr(a, "obs_names", ["same"] * 150), ValueError, "obs_names_make_unique"),
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_bad_input_is_named_and_told_how_to_mend(cells, spoil, kind, words):
    spoil(cells)
    with pytest.raises(kind, match=words):
        read_snapshots(cells, time_key="day", rep="X_pca")


def test_integer_categories_with_gaps_get_the_clear_message(cells):
    days = cells.obs["day"].astype("Int64").where(cells.obs["day"] != 1)
    cells.obs["day"] = days.astype("category")
    with pytest.raises(ValueError, match="60 of 150 cells have no finite time"):
        read_times(cells, "day")


@pytest.mark.parametrize("spoil", [lambda x: x + 1e9, lambda x: x * 1e40], ids=["far from zero", "huge"])
def test_values_that_single_precision_cannot_hold_are_refused(cells, spoil):
    cells.obsm["X_pca"] = spoil(cells.obsm["X_pca"].astype(np.float64))
    with pytest.raises(ValueError, match="lose their differences in single precision"):
        read_rep(cells, "X_pca")


def test_emptiness_is_named():
    nobody = anndata.AnnData(np.zeros((0, 2), np.float32), obs=pd.DataFrame({"day": []}, index=pd.Index([], dtype=str)))
    with pytest.raises(ValueError, match="holds no cells"):
        read_times(nobody, "day")
    with pytest.raises(KeyError, match="`adata.X` holds nothing"):
        read_rep(anndata.AnnData(obs=pd.DataFrame(index=["a"])), "X")


def test_leaving_out_keeps_order_and_refuses_unknown_times(cells):
    rest = leave_out(cells, "day", [1.0])
    assert list(rest.obs_names) == list(cells.obs_names[cells.obs["day"] != 1])
    assert leave_out(cells, "day", []).n_obs == cells.n_obs
    with pytest.raises(ValueError, match="No cells at time 2.*Available: 0, 1, 5"):
        leave_out(cells, "day", [2.0])


def test_read_times_of_timedelta_counts_days():
    obs = pd.DataFrame({"age": pd.to_timedelta([12, 36], unit="h")}, index=["a", "b"])
    assert read_times(anndata.AnnData(np.zeros((2, 1), np.float32), obs=obs), "age").tolist() == [0.5, 1.5]
