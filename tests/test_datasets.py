"""Data sets: the shipped ones, the public ones against a server of our own, and the simulator against its law."""

import os
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import torch

from cellflow.datasets import (
    Branching,
    Perturbations,
    branching,
    cite,
    download,
    embryoid_body,
    hematopoiesis,
    hsmm,
    kang,
    norman,
    perturbations,
    public,
    single_cell,
)
from cellflow.datasets.public import PublicData, digest_of

requires_data = pytest.mark.skipif(not os.environ.get("CELLFLOW_DATA"), reason="needs the data sets in CELLFLOW_DATA")


# --- hsmm --------------------------------------------------------------------------------------------------------


def test_hsmm_is_the_published_time_course():
    adata = hsmm()
    assert adata.obs["hours"].value_counts().to_dict() == {0: 69, 24: 74, 48: 79, 72: 49}
    assert "GSE52529" in adata.uns["source"]
    fpkm, logged = adata.layers["fpkm"].toarray(), adata.X.toarray()
    assert fpkm.max() > 10_000
    np.testing.assert_allclose(np.expm1(logged), fpkm, rtol=1e-5)


def test_hsmm_markers_move_as_published():
    adata = hsmm()
    late, early = (adata[adata.obs["hours"] == hours] for hours in (72, 0))
    change = {gene: late[:, gene].X.mean() - early[:, gene].X.mean() for gene in ("MYOG", "MYH3", "CDK1", "ID1")}
    assert min(change["MYOG"], change["MYH3"]) > 1
    assert max(change["CDK1"], change["ID1"]) < -0.4


def test_blood_is_the_published_time_course_with_its_clones():
    adata = hematopoiesis()
    obs = adata.obs
    assert obs["day"].value_counts().to_dict() == {2: 34, 4: 316, 6: 431}
    assert obs["state"].nunique() == 12
    assert (obs.groupby("clone", observed=True)["day"].nunique() > 1).sum() == 126
    early, late = set(obs["clone"][obs["day"] == 4]), set(obs["clone"][obs["day"] == 6])
    assert obs["clone"][obs["day"] == 4].isin(early & late).sum() == 180
    assert all(word in adata.uns["source"] for word in ("Weinreb", "MIT", "Shou-Wen Wang"))
    assert {name: (x.shape[1], x.dtype) for name, x in adata.obsm.items()} == {
        "X_emb": (2, np.float32), "X_pca": (40, np.float32),
    }  # fmt: skip
    np.testing.assert_allclose(adata.layers["counts"].sum(axis=1), 1e4, rtol=1e-4)
    np.testing.assert_allclose(np.expm1(adata.X.toarray()), adata.layers["counts"].toarray(), rtol=1e-4)


def test_cells_of_a_blood_lineage_express_its_markers():
    adata = hematopoiesis()
    for state, gene in {"Neutrophil": "S100a8", "Monocyte": "Csf1r", "Baso": "Mcpt8", "Mast": "Cma1"}.items():
        inside = (adata.obs["state"] == state).to_numpy()
        level = np.asarray(adata[:, gene].X.toarray()).ravel()
        assert level[inside].mean() > level[~inside].mean() + 0.5, (state, gene)


def test_interferon_is_the_published_experiment():
    adata = kang()
    assert adata.obs["condition"].value_counts().to_dict() == {"IFN-beta": 1490, "control": 1310}
    sizes = adata.obs.groupby(["cell_type", "condition"], observed=True).size().unstack()
    assert (sizes.min(axis=1) >= 40).sum() == 9
    counts = adata.layers["counts"].toarray()
    assert (counts == counts.round()).all()
    np.testing.assert_allclose(
        np.expm1(adata.X.toarray()), counts / adata.obs["total_counts"].to_numpy()[:, None] * 1e4, rtol=1e-4, atol=1e-3
    )
    treated, untreated = (adata[adata.obs["condition"] == name] for name in ("IFN-beta", "control"))
    for gene, least in {"ISG15": 2, "IFIT3": 1, "MS4A1": -0.2}.items():
        change = treated[:, gene].X.mean() - untreated[:, gene].X.mean()
        assert change > least, gene
    assert all(word in adata.uns["source"] for word in ("GSE96583", "MIT", "Cankun Wang"))


def test_activated_genes_are_the_published_experiment():
    adata = norman()
    counts = adata.obs["perturbation"].value_counts()
    doubles = [name for name in counts.index if "+" in name]
    assert counts["control"] == 100
    assert (len(doubles), len(counts)) == (15, 34)
    assert sum(set(name.split("+")) <= set(counts.index) for name in doubles) == 5
    level = {name: adata[adata.obs["perturbation"] == name, "TMSB4X"].X.mean() for name in ("TMSB4X", "control")}
    assert level["TMSB4X"] > level["control"] + 1
    assert all(word in adata.uns["source"] for word in ("Science 365:786", "BSD-3", "Altos"))


SHIPPED = [hsmm, hematopoiesis, kang, norman]


@pytest.mark.parametrize("load", SHIPPED)
def test_what_is_shipped_is_ready_for_scanpy_and_survives_a_round_trip(load, tmp_path):
    adata = load()
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    sc.pp.pca(adata, n_comps=5)
    assert adata.obsm["X_pca"].shape == (adata.n_obs, 5)
    assert adata.uns["pca"]["variance_ratio"][0] < 0.5  # on raw counts a few genes would be all there is
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())
    assert "log1p" in again.uns


@pytest.mark.parametrize("load", SHIPPED)
def test_every_call_gives_a_new_object(load):
    first = load()
    first.X.data[:] = 0
    first.obs["seen"] = True
    assert load().X.data.any()
    assert "seen" not in load().obs


# --- public data -------------------------------------------------------------------------------------------------


class Server:
    """What the test's web server holds, and what it was asked for."""

    def __init__(self):
        self.files = {}
        self.asked = Counter()
        self.breaks_off = None


@pytest.fixture
def server(monkeypatch):
    held = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            held.asked[self.path] += 1
            if self.path not in held.files:
                self.send_error(404)
                return
            content = held.files[self.path]
            self.send_response(200)
            if held.breaks_off == "inside a chunk":
                self.send_header("Transfer-Encoding", "chunked")
                content = b"%x\r\n" % len(content) + content[:-10]
            else:
                self.send_header("Content-Length", str(len(content)))
                content = content[:-10] if held.breaks_off else content
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        held.address = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield held
        http.shutdown()
        thread.join()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLFLOW_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CELLFLOW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data" / "single_cell").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def small(server, folders):
    """A public data set of six cells, its original on the server."""
    values = np.arange(12, dtype=np.float64).reshape(6, 2)
    np.save(folders / "original.npy", values)
    server.files["/original.npy"] = (folders / "original.npy").read_bytes()
    (folders / "original.npy").unlink()
    return PublicData(
        file="small.h5ad",
        originals=(("original.npy", f"{server.address}/original.npy"),),
        convert=small_from,
        digest=digest_of(small_from(None, values)),
    )


def small_from(folder, values=None):
    values = np.load(folder / "original.npy", allow_pickle=False) if values is None else values
    return single_cell._cells("s", values, days=np.arange(6) // 2)


def left_behind(folders):
    return sorted(path.name for path in (folders / "cache").rglob("*"))


def test_download_then_cache(small, server, folders):
    first = small.load()
    assert left_behind(folders) == ["small.h5ad"]
    second = small.load()
    assert server.asked == {"/original.npy": 1}
    for adata in (first, second):
        np.testing.assert_array_equal(adata.obsm["X_pca"], np.arange(12).reshape(6, 2))
        assert adata.obs["day"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("place", ["data/single_cell", "data", "cache"])
@pytest.mark.parametrize("form", ["converted", "original"])
def test_files_of_ones_own_come_first(small, server, folders, place, form):
    (folders / place).mkdir(exist_ok=True)
    if form == "original":
        (folders / place / "original.npy").write_bytes(server.files["/original.npy"])
    else:
        small_from(None, np.arange(12).reshape(6, 2)).write_h5ad(folders / place / "small.h5ad")
    assert digest_of(small.load()) == small.digest
    assert not server.asked


def test_wrong_values_are_refused_and_not_kept(small, folders):
    with pytest.raises(ValueError, match="expected SHA-256 0000, found"):
        replace(small, digest="0000").load()
    assert left_behind(folders) == []


def test_a_server_without_the_file(small, server, folders):
    server.files.clear()
    with pytest.raises(FileNotFoundError) as caught:
        small.load()
    message = str(caught.value)
    assert "404" in message
    assert f"{server.address}/original.npy" in message
    assert str(folders / "cache") in message
    assert left_behind(folders) == []


def test_no_server_at_all(small, folders):
    closed = replace(small, originals=(("original.npy", "http://127.0.0.1:9/original.npy"),))
    with pytest.raises(FileNotFoundError, match="by hand"):
        closed.load()
    assert left_behind(folders) == []


@pytest.mark.parametrize(("where", "message"), [("early", "ended after"), ("inside a chunk", "broke off")])
def test_half_a_file_is_noticed(small, server, folders, where, message):
    server.breaks_off = where
    with pytest.raises(FileNotFoundError, match=message):
        small.load()
    assert left_behind(folders) == []


def test_an_error_page_is_not_data(small, server, folders):
    server.files["/original.npy"] = b"<html>Please sign in</html>"
    with pytest.raises(ValueError, match="error page"):
        small.load()
    assert left_behind(folders) == []


def test_ctrl_c_leaves_nothing(small, folders, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_check_length", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small.load()
    assert left_behind(folders) == []


def test_after_a_failure_the_next_try_works(small, server):
    content = server.files.pop("/original.npy")
    with pytest.raises(FileNotFoundError):
        small.load()
    server.files["/original.npy"] = content
    assert small.load().n_obs == 6


def test_foreign_files_of_the_right_name_are_refused(small, server, folders):
    path = folders / "data" / "small.h5ad"
    path.write_text("not hdf5")
    with pytest.raises(ValueError, match="cannot be read as h5ad"):
        small.load()
    ad.AnnData(np.ones((3, 2)), obs={"week": ["a", "b", "c"]}).write_h5ad(path)
    with pytest.raises(ValueError, match=r"found obsm \[\] and obs \['week'\]"):
        small.load()
    other = small_from(None, np.ones((6, 2)))
    other.write_h5ad(path)
    with pytest.raises(ValueError, match="does not hold the values"):
        small.load()
    other.obs["day"] = list("abcdef")
    other.write_h5ad(path)
    with pytest.raises(ValueError, match="not numbers"):
        small.load()
    assert not server.asked


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("CELLFLOW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert public.cache() == tmp_path / "cellflow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert public.cache() == tmp_path / ".cache" / "cellflow"


@requires_data
def test_embryoid_body():
    adata = embryoid_body()
    assert adata.obs["day"].value_counts(sort=False).to_dict() == {
        1.5: 2381, 7.5: 4163, 13.5: 3278, 19.5: 3665, 25.5: 3332,
    }  # fmt: skip
    assert adata.obsm["X_pca"].shape == (16_819, 100)
    # The scale of the published five-dimensional benchmark.
    deviations = adata.obsm["X_pca"][:, :5].astype(np.float64).std(0)
    np.testing.assert_allclose(deviations, [2.6456, 6.2780, 4.6317, 4.4981, 3.3724], atol=1e-4)


@requires_data
def test_cite():
    adata = cite()
    assert adata.obs["day"].value_counts(sort=False).to_dict() == {2: 6071, 3: 7643, 4: 8485, 7: 7195}
    assert adata.obsm["X_pca"].shape == (29_394, 100)


@requires_data
@pytest.mark.parametrize("name", ["eb", "cite"])
def test_originals_convert_to_the_same_file(name, folders, monkeypatch):
    """The published files, rebuilt in their layout from the converted ones, pass the checksum."""
    data = {"eb": single_cell.EMBRYOID_BODY, "cite": single_cell.CITE}[name]
    monkeypatch.undo()
    known = data.load()
    monkeypatch.setenv("CELLFLOW_DATA", str(folders / "data"))
    if name == "eb":
        np.savez(folders / "data" / "eb_velocity_v5.npz", pcs=known.obsm["X_pca"].astype(np.float64))
    else:
        for day, cells in known.obs.groupby("day").indices.items():
            np.save(folders / "data" / f"full_cite_pcas_100_day_{day:g}.npy", known.obsm["X_pca"][cells])
    again = data.load()
    assert not (folders / "data" / data.file).exists()
    assert again.obs.equals(known.obs)
    assert again.uns == known.uns
    np.testing.assert_array_equal(again.obsm["X_pca"], known.obsm["X_pca"])


# --- the simulator -----------------------------------------------------------------------------------------------

LAWS = [Branching(), Branching(speed=-0.5, split=0.8, spread=0.4, growth=(0.6, -0.2))]


@pytest.fixture(params=LAWS, ids=["default", "other"])
def law(request):
    return request.param


@pytest.fixture
def states():
    rng = np.random.default_rng(0)
    return np.stack([rng.normal(size=50), rng.uniform(-0.9, 0.9, 50)], axis=1)


def test_velocity_is_the_slope_of_the_flow(law, states):
    h = 1e-5
    slope = (law.flow(states, h) - law.flow(states, -h)) / (2 * h)
    np.testing.assert_allclose(law.velocity(states), slope, atol=1e-8)


def test_flow_composes_and_returns(law, states):
    np.testing.assert_allclose(law.flow(law.flow(states, 0.7), 1.1), law.flow(states, 1.8), atol=1e-10)
    np.testing.assert_allclose(law.flow(law.flow(states, 2.0), -2.0), states, atol=1e-8)


def test_growth_rate_is_the_slope_of_the_log_weight(law, states):
    h = 1e-5
    slope = (law.log_weight(states, h) - law.log_weight(states, -h)) / (2 * h)
    np.testing.assert_allclose(law.growth_rate(states), slope, atol=1e-8)
    later = law.log_weight(states, 0.9) + law.log_weight(law.flow(states, 0.9), 1.3)
    np.testing.assert_allclose(law.log_weight(states, 2.2), later, atol=1e-9)


@pytest.mark.parametrize("time", [0.0, 1.0, 3.0])
def test_snapshots_are_the_grown_population(law, time):
    """Fates and states agree with weighted founders, which are drawn and grown by another route."""
    n = 20_000
    rng = np.random.default_rng(1)
    founders = law.spread * rng.standard_normal((n, 2))
    founders[:, 1] = np.tanh(founders[:, 1])
    weight = np.exp(law.log_weight(founders, time))
    weight /= weight.sum()
    expected = law.flow(founders, time)
    drawn = law.snapshot(n, time, np.random.default_rng(2))
    assert (drawn[:, 1] > 0).mean() == pytest.approx(weight[expected[:, 1] > 0].sum(), abs=0.015)
    np.testing.assert_allclose(drawn.mean(0), weight @ expected, atol=0.02)
    np.testing.assert_allclose((drawn**2).mean(0), weight @ expected**2, atol=0.04)


def test_proportions_of_the_branches_follow_their_growth():
    """Once the branches have parted, their ratio grows by the difference of their rates."""
    law = Branching(split=4.0, growth=(0.1, 0.5))
    adata = branching(n_cells=20_000, times=(3.0, 5.0), n_genes=2, law=law)
    upper = (adata.obs["fate"] == "upper").groupby(adata.obs["time"]).mean()
    ratio = upper / (1 - upper)
    assert np.log(ratio[5.0] / ratio[3.0]) == pytest.approx(0.4 * 2.0, abs=0.06)


def test_fate_is_where_the_flow_ends():
    adata = branching(times=(0.0, 0.5), law=Branching(split=2.0))
    end = Branching(split=2.0).flow(adata.obsm["X_latent"], 8.0)[:, 1]
    assert set(np.where(end > 0, "upper", "lower") == adata.obs["fate"]) == {True}
    assert (np.abs(end) > 0.9).mean() > 0.99


def test_branching_tells_its_truth(law):
    adata = branching(n_cells=(60, 80, 120, 30), times=(0, 1, 2, 4), held_out=(2,), law=law, noise=0.0)
    latent = adata.obsm["X_latent"]
    assert adata.obs["time"].value_counts().to_dict() == {0.0: 60, 1.0: 80, 2.0: 120, 4.0: 30}
    assert (adata.obs["held_out"] == (adata.obs["time"] == 2)).all()
    np.testing.assert_allclose(adata.obsm["velocity_true"], law.velocity(latent))
    np.testing.assert_allclose(adata.obs["growth_rate"], law.growth_rate(latent))

    # Genes move as their layer says: the flow, decoded, in a finite difference.
    def decode(x):
        return adata.var["mean_true"].to_numpy() + x @ adata.varm["loadings_true"].T

    np.testing.assert_allclose(adata.X, decode(latent), rtol=1e-5, atol=1e-5)
    slope = (decode(law.flow(latent, 1e-5)) - decode(law.flow(latent, -1e-5))) / 2e-5
    np.testing.assert_allclose(adata.layers["velocity_true"], slope, rtol=1e-4, atol=1e-4)


def test_principal_components_find_the_latent_plane():
    adata = branching(n_cells=300, noise=0.05)
    sc.pp.pca(adata, n_comps=2)
    decoded = adata.obsm["X_pca"] @ adata.varm["PCs"].T + adata.X.mean(0)
    clean = adata.var["mean_true"].to_numpy() + adata.obsm["X_latent"] @ adata.varm["loadings_true"].T
    assert np.sqrt(((decoded - clean) ** 2).mean()) < 0.02
    assert np.sqrt(((adata.X - clean) ** 2).mean()) == pytest.approx(0.05, rel=0.05)


def test_same_seed_same_data_and_no_global_state():
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = (branching(n_cells=20, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.X, again.X)
    assert not np.array_equal(first.X, other.X)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_branching_survives_a_round_trip(tmp_path):
    adata = branching(n_cells=30, held_out=(1.0,))
    adata.write_h5ad(tmp_path / "b.h5ad")
    again = ad.read_h5ad(Path(tmp_path, "b.h5ad"))
    assert again.obs.equals(adata.obs)
    assert again.uns["branching"]["growth"].tolist() == [0.0, 0.5]
    for key in ("X_latent", "velocity_true"):
        np.testing.assert_array_equal(again.obsm[key], adata.obsm[key])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_cells": (10, 10)}, "each of 4 times"),
        ({"n_cells": 0}, "positive number of cells"),
        ({"times": (0, 1, 1)}, "distinct times"),
        ({"times": (-1, 1)}, "of 0 or more"),
        ({"times": ()}, "each of 0 times"),
        ({"held_out": (3,)}, r"\[3\] are not among them"),
        ({"n_genes": 1}, "at least 2 genes"),
    ],
)
def test_branching_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        branching(**wrong)


def test_a_law_must_branch():
    with pytest.raises(ValueError, match="positive"):
        Branching(split=0.0)


# --- simulated treatments ----------------------------------------------------------------------------------------


def test_simulated_treatments_shift_cells_as_their_law_says():
    """Means within sampling error of the law, for every donor, dose and combination; spreads as well."""
    law = Perturbations(n_donors=2, sensitivity=0.3, n_genes=20, seed=1)
    adata = perturbations(400, treatments=["A", "B", "A+B"], doses=[0.5, 2.0], law=law)
    for (drug, dose, donor), rows in adata.obs.groupby(["drug", "dose", "donor"], observed=True).indices.items():
        x, k = np.asarray(adata.X)[rows], int(donor.removeprefix("donor"))
        expected = law.mean(k) + law.shift(drug, dose, k)
        assert np.abs(x.mean(axis=0) - expected).max() < 4 * law.spread / np.sqrt(400)
        assert x.std(axis=0).mean() == pytest.approx(law.spread, rel=0.03)
    assert law.shift("A", 2.0, 0) == pytest.approx(4 * law.shift("A", 0.5, 0))
    assert law.shift("A+B", 1.0, 1) == pytest.approx(law.shift("A", 1.0, 1) + law.shift("B", 1.0, 1))
    assert law.shift("A", 1.0, 1) != pytest.approx(law.shift("A", 1.0, 0))  # donors respond differently
    alike = Perturbations(strength=2.0)
    assert perturbations(1, law=alike).var["effect_B"].to_numpy() == pytest.approx(alike.shift("B"))
    assert np.linalg.norm(alike.shift("B")) == pytest.approx(2)
    assert np.abs(Perturbations(strength=0.0).shift("A")).max() == 0


def test_simulated_treatments_survive_a_round_trip_and_follow_their_seed(tmp_path):
    adata, again, other = (perturbations(3, seed=seed) for seed in (0, 0, 1))
    assert (adata.X == again.X).all()
    assert not (adata.X == other.X).any()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert list(ad.read_h5ad(tmp_path / "cells.h5ad").uns["perturbations"]["drugs"]) == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: perturbations(treatments=["A+D"]), "D"),
        (lambda: perturbations(doses=[0.0]), "above 0"),
        (lambda: perturbations(treatments=[]), "Expected treatments"),
        (lambda: perturbations(0), "n_cells >= 1"),
        (lambda: Perturbations(drugs=("A", "A")), "different names"),
        (lambda: Perturbations(strength=-1.0), ">= 0"),
        (lambda: Perturbations(n_donors=0), "n_donors"),
        (lambda: Perturbations().shift("A", 1.0, 9), "from 0 to 3"),
    ],
)
def test_simulated_treatments_refuse(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
