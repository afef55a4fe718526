"""`SnapshotFlow`: what it learns, scikit-learn's contract, units, saving, and what it refuses."""

import json
import signal
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import cellflow as cf
import cellflow.training.checkpoint as training_state
import cellflow.training.loop as loop
from cellflow.errors import CheckpointError, NotFittedError
from cellflow.integrate import Fixed
from cellflow.training.run import Interrupt
from conftest import make_cells

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
QUICK = {"time_key": "day", "steps": 20, "batch_size": 32, "device": "cpu"}


def gaussian_cells(n=2000, seed=0):
    """Two Gaussian snapshots, 4 time units apart: the optimal map is x -> 2 x + (6, -2)."""
    draw = np.random.default_rng(seed)
    x0 = draw.normal(size=(n, 2))
    x1 = 2 * draw.normal(size=(n, 2)) + [6, -2]
    adata = anndata.AnnData(np.zeros((2 * n, 0), np.float32), obsm={"X_pca": np.concatenate([x0, x1])})
    adata.obs["day"] = np.repeat([10.0, 14.0], n)
    return adata


@pytest.mark.slow
def test_gaussian_to_gaussian_gives_the_known_map_and_velocity():
    """OT-CFM between Gaussians: x_t = (1 + s) x0 + s m, velocity (x - s m) / (1 + s) + m, s the fraction of time."""
    flow = cf.SnapshotFlow(time_key="day", steps=1500, device="cpu").fit(gaussian_cells())
    x = np.random.default_rng(1).normal(size=(300, 2)).astype(np.float32)
    mean = np.array([6, -2])
    moved = flow.transport(x, start=10, stop=14).x[-1].numpy()
    assert np.abs(moved - (2 * x + mean)).mean() < 0.2
    for time, s in ((11.0, 0.25), (12.0, 0.5), (13.0, 0.75)):
        middle = (1 + s) * x + s * mean
        expected = (x + mean) / 4  # per unit of the user's time
        error = np.abs(flow.velocity(middle, time) - expected).mean()
        assert error < 0.05 * np.abs(expected).mean() + 0.03


def test_uneven_times_and_sizes_recover_the_velocity():
    """Cells that move at about 1 per unit of time, measured at 0, 1 and 5 with 50, 2000 and 300 cells."""
    adata = make_cells(sizes=(50, 2000, 300))
    flow = cf.SnapshotFlow(time_key="day", steps=400, batch_size=128, device="cpu").fit(adata)
    means = {t: adata.obsm["X_pca"][(adata.obs["day"] == t).to_numpy()].mean(0) for t in (0.0, 1.0, 5.0)}
    around = 0.3 * np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
    for before, after in ((0.0, 1.0), (1.0, 5.0)):
        middle, expected = (before + after) / 2, (means[after] - means[before]) / (after - before)
        assert expected[0] == pytest.approx(1, abs=0.1)
        found = flow.velocity(around + (means[before] + means[after]) / 2, middle).mean(0)
        assert found == pytest.approx(expected, abs=0.05)


def test_units_of_time_only_rescale_the_velocity(cells):
    days = cf.SnapshotFlow(**QUICK).fit(cells)
    hours = cells.copy()
    hours.obs["day"] = hours.obs["day"] * 24
    flow = cf.SnapshotFlow(**QUICK).fit(hours)
    x = cells.obsm["X_pca"][:5]
    assert np.allclose(days.velocity(x, 1.0), flow.velocity(x, 24.0) * 24, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("scale", "offset"), [(100.0, 7.0), (1e-4, 0.0), (1e-6, 1e-6), (1e4, -1e4)])
def test_units_of_the_representation_go_through(cells, scale, offset):
    """Cells measured in other units and from another origin: positions follow, no scale leaks."""
    settings = QUICK | {"steps": 100}
    flow = cf.SnapshotFlow(**settings).fit(cells)
    other = cells.copy()
    other.obsm["X_pca"] = cells.obsm["X_pca"].astype(np.float64) * scale + offset
    scaled = cf.SnapshotFlow(**settings).fit(other)
    x = cells.obsm["X_pca"][:5].astype(np.float64)
    moved, far = (f.transport(y, start=0, stop=5).x[-1].numpy() for f, y in ((flow, x), (scaled, x * scale + offset)))
    assert np.abs(moved - x).max() > 3
    assert np.allclose(moved, (far - offset) / scale, atol=0.05)


def test_without_standardising_the_network_sees_the_data(cells):
    flow = cf.SnapshotFlow(**QUICK, standardize=False, coupling="exact").fit(cells)
    assert isinstance(flow.field_, cf.networks.MLP)
    assert np.isfinite(flow.velocity(cells.obsm["X_pca"], 1.0)).all()


def test_backward_undoes_forward_and_each_cell_has_its_own_time(moving):
    adata, flow = moving
    x, time = adata.obsm["X_pca"][:20], adata.obs["day"].to_numpy()[:20]
    there = flow.transport(x, start=time, stop=2.5).x[-1]
    back = flow.transport(there, start=2.5, stop=time).x[-1].numpy()
    assert np.allclose(back, x, atol=1e-3)
    one = flow.transport(x[3:4], start=float(time[3]), stop=2.5).x[-1]
    assert torch.allclose(one, there[3:4], atol=1e-5)


def test_trajectories_carry_the_users_time(moving):
    adata, flow = moving
    found = flow.transport(adata.obsm["X_pca"][:3], start=0, stop=5, save=6)
    assert found.t.tolist() == pytest.approx([0, 1, 2, 3, 4, 5])
    assert found.x.shape == (6, 3, 3)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "dopri5", "torchdyn:rk4"])
def test_solvers_agree(moving, method):
    if method.startswith("torchdyn"):
        pytest.importorskip("torchdyn")
    adata, flow = moving
    x = adata.obsm["X_pca"][:10]
    solver = method if method == "dopri5" else Fixed(method, steps=400)
    found, reference = (flow.transport(x, start=0, stop=5, solver=one).x[-1] for one in (solver, "rk4"))
    assert torch.allclose(found, reference, atol=0.02)


def test_the_constructor_only_keeps_its_keywords():
    flow = cf.SnapshotFlow(time_key="t", path=cf.paths.BrownianBridge(0.3), network=partial(cf.networks.MLP, width=8))
    again = clone(flow)
    assert repr(again.get_params()) == repr(flow.get_params())
    assert again.set_params(steps=7).steps == 7
    assert "BrownianBridge(sigma=0.3)" in repr(flow)
    with pytest.raises(ValueError, match="Invalid parameter"):
        flow.set_params(width=3)
    with pytest.raises(TypeError):
        cf.SnapshotFlow("day")


def test_fit_returns_self_forgets_the_past_and_leaves_adata_alone(cells):
    before = cells.copy()
    flow = cf.SnapshotFlow(**QUICK)
    assert flow.fit(cells) is flow
    once = flow.velocity(cells.obsm["X_pca"], 1.0)
    flow.fit(cells[cells.obs["day"] < 5].copy())
    assert flow.clock_.times == (0.0, 1.0)
    assert (flow.fit(cells).velocity(cells.obsm["X_pca"], 1.0) == once).all()
    assert [(one.sizes, one.at_once) for one in flow.matching_] == [((40, 60), None), ((60, 50), None)]
    assert list(cells.obs.columns) == list(before.obs.columns)
    assert not cells.uns
    assert (cells.obsm["X_pca"] == before.obsm["X_pca"]).all()


@pytest.mark.parametrize(("coupling", "most"), [("exact", 0.1), ("auto", 0.3)])  # the latter has many pairs to draw
def test_the_order_of_cells_changes_nothing_that_matters(coupling, most):
    """The same cells in another order: the fitted means move by far less than the cells do."""
    adata = make_cells(sizes=(100, 100, 100))
    order = np.random.default_rng(3).permutation(adata.n_obs)
    settings = QUICK | {"steps": 300, "coupling": coupling}
    flows = [cf.SnapshotFlow(**settings).fit(a) for a in (adata, adata[order])]
    means = [f.transport(adata.obsm["X_pca"][:50], start=0, stop=5).x[-1].mean(0) for f in flows]
    assert torch.allclose(*means, atol=most)


@pytest.mark.parametrize(
    "coupling", ["independent", cf.couplings.Sinkhorn(0.5), cf.couplings.UnbalancedSinkhorn(0.5, 10.0)]
)
@pytest.mark.parametrize("path", ["trigonometric", cf.paths.BrownianBridge(0.2)])
def test_every_part_fits(cells, path, coupling):
    flow = cf.SnapshotFlow(**QUICK, path=path, coupling=coupling).fit(cells)
    assert np.isfinite(flow.velocity(cells.obsm["X_pca"], 1.0)).all()


@pytest.mark.parametrize("name", ["path", "coupling", "network"])
def test_unknown_parts_list_the_choices(cells, name):
    with pytest.raises(ValueError, match=f"Unknown {name} 'nonsense'. Choose from"):
        cf.SnapshotFlow(**QUICK, **{name: "nonsense"}).fit(cells)


def test_views_backed_files_and_float64_fit_alike(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    double = cells.copy()
    double.obsm["X_pca"] = cells.obsm["X_pca"].astype(np.float64)
    x = cells.obsm["X_pca"][:4]
    found = [cf.SnapshotFlow(**QUICK).fit(a).velocity(x, 1.0) for a in (cells, cells[:], backed, double)]
    assert all((other == found[0]).all() for other in found[1:])
    backed.file.close()


def test_an_interrupted_fit_resumes_exactly(cells, tmp_path, monkeypatch):
    settings = QUICK | {"steps": 40}
    whole = cf.SnapshotFlow(**settings).fit(cells)

    class Impatient(Interrupt):
        """Ctrl-C in the middle of the fifteenth step."""

        def __enter__(self):
            super().__enter__()
            real = training_state.TrainingState.advance

            def advance(state):
                real(state)
                if state.step == 15:
                    signal.raise_signal(signal.SIGINT)

            monkeypatch.setattr(training_state.TrainingState, "advance", advance)
            return self

    monkeypatch.setattr(loop, "Interrupt", Impatient)
    with pytest.raises(KeyboardInterrupt, match="step 15 of 40"):
        cf.SnapshotFlow(**settings).fit(cells, run=cf.Run(tmp_path))
    monkeypatch.undo()
    resumed = cf.SnapshotFlow(**settings).fit(cells, run=cf.Run(tmp_path, resume=True))
    x = cells.obsm["X_pca"]
    assert (resumed.velocity(x, 1.0) == whole.velocity(x, 1.0)).all()
    assert resumed.history_.columns == whole.history_.columns


def test_a_fit_resumes_only_with_its_own_data_and_settings(cells, tmp_path):
    cf.SnapshotFlow(**QUICK).fit(cells, run=cf.Run(tmp_path))
    with pytest.raises(FileExistsError, match="resume=True"):
        cf.SnapshotFlow(**QUICK).fit(cells, run=cf.Run(tmp_path))
    shifted = cells.copy()
    shifted.obsm["X_pca"] = cells.obsm["X_pca"] + 1
    fewer = cells[cells.obs["day"] < 5]
    for data, changed, words in (
        (shifted, {}, "cells"),
        (fewer, {}, "times"),
        (cells, {"coupling": "independent"}, "coupling UnbalancedSinkhorn, not Independent"),
        (cells, {"path": cf.paths.Linear(0.1)}, "path"),
        (cells, {"batch_size": 16}, "batch_size 32, not 16"),
        (cells, {"seed": 1}, "another seed"),
    ):
        with pytest.raises(CheckpointError, match=words):
            cf.SnapshotFlow(**QUICK | changed).fit(data, run=cf.Run(tmp_path, resume=True))


def test_a_saved_model_comes_back_the_same(cells, tmp_path):
    flow = cf.SnapshotFlow(
        **QUICK,
        path=cf.paths.BrownianBridge(0.3),
        coupling=cf.couplings.Exact(cost=cf.couplings.Euclidean()),
        network=partial(cf.networks.MLP, width=24),
        recipe=cf.training.Recipe(warmup=3),
    ).fit(cells)
    flow.save(tmp_path)
    back = cf.SnapshotFlow.load(tmp_path)
    assert (back.velocity(cells.obsm["X_pca"], 2.0) == flow.velocity(cells.obsm["X_pca"], 2.0)).all()
    assert back.path == flow.path
    assert back.coupling == flow.coupling
    assert back.recipe == flow.recipe
    assert back.clock_ == flow.clock_
    assert back.n_cells_ == (40, 60, 50)
    assert back.history_.columns == flow.history_.columns
    refitted = back.fit(cells)
    assert (refitted.velocity(cells.obsm["X_pca"], 2.0) == flow.velocity(cells.obsm["X_pca"], 2.0)).all()


def test_a_model_is_never_overwritten_unasked(cells, tmp_path):
    flow = cf.SnapshotFlow(**QUICK).fit(cells)
    flow.save(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        flow.save(tmp_path)
    flow.save(tmp_path, overwrite=True)


def test_numbers_of_numpy_are_numbers(cells, tmp_path):
    flow = cf.SnapshotFlow(**QUICK | {"batch_size": np.int64(8), "seed": np.int64(3)}).fit(cells)
    flow.save(tmp_path)
    assert cf.SnapshotFlow.load(tmp_path).batch_size == 8


def test_times_in_single_precision_are_the_users_times(cells):
    cells.obs["day"] = cells.obs["day"].map({0.0: 0.1, 1.0: 1.1, 5.0: 4.1}).astype(np.float32)
    flow = cf.SnapshotFlow(**QUICK).fit(cells)
    assert flow.clock_.times == (0.1, 1.1, 4.1)
    assert cf.tl.interpolate(cells, flow, at=[0.1, 4.1]).n_obs == 40 + 50


def test_long_offsets_of_time_keep_their_digits(cells):
    cells.obs["day"] = cells.obs["day"] + 1e8
    flow = cf.SnapshotFlow(**QUICK).fit(cells)
    found = flow.transport(cells.obsm["X_pca"][:2], start=1e8, stop=1e8 + 5, save=6)
    assert found.t.tolist() == pytest.approx([1e8 + k for k in range(6)], abs=1e-3)
    assert cf.tl.interpolate(cells, flow, at=[1e8 + 0.5, 1e8 + 0.6]).obs_names.is_unique


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"steps": "abc"}, ValueError, "`steps` to be a whole number >= 1; found 'abc'"),
        ({"batch_size": 2.5}, ValueError, "`batch_size` to be a whole number"),
        ({"device": "cuda:7"}, ValueError, "No GPU is available"),
        ({"path": cf.paths.Linear}, TypeError, "Expected a path such as"),
        ({"network": torch.nn.Linear(3, 3)}, TypeError, "callable that makes a network"),
        ({"recipe": {"ema": 0.9}}, TypeError, "cf.training.Recipe"),
    ],
)
def test_impossible_settings_are_named_before_anything_is_computed(cells, changed, kind, words):
    if "device" in changed and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(kind, match=words):
        cf.SnapshotFlow(**QUICK | changed).fit(cells)


def test_nothing_saved_is_a_pickle(cells, tmp_path):
    cf.SnapshotFlow(**QUICK).fit(cells, run=cf.Run(tmp_path)).save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    json.loads((tmp_path / "model.json").read_text())


def test_foreign_networks_must_be_given_again(cells, tmp_path):
    def plain(dim):
        return cf.networks.MLP(dim, width=16)

    flow = cf.SnapshotFlow(**QUICK, network=plain).fit(cells)
    flow.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"`network` of this model is not a part.*load\(folder, network"):
        cf.SnapshotFlow.load(tmp_path)
    back = cf.SnapshotFlow.load(tmp_path, network=plain)
    assert back.network is plain
    assert (back.velocity(cells.obsm["X_pca"], 2.0) == flow.velocity(cells.obsm["X_pca"], 2.0)).all()


def edit(change):
    def spoil(folder):
        about = json.loads((folder / "model.json").read_text())
        change(about)
        (folder / "model.json").write_text(json.dumps(about))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.json").unlink(), "No model in"),
        (lambda folder: (folder / "model.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "model.json").write_text("[]"), "damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "No file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 50), "truncated"),
        (edit(lambda about: about.update(estimator="ImageGenerator")), "holds a ImageGenerator"),
        (edit(lambda about: about.update(format=99)), "newer cellflow"),
        (edit(lambda about: about.update(format=[])), "damaged"),
        (edit(lambda about: about.update(format="two")), "damaged"),
        (edit(lambda about: about["learned"].update(n_features_in=9)), r"shape \(3, 9\) in `mean`; found"),
        (edit(lambda about: about["learned"].pop("times")), "does not describe"),
        (edit(lambda about: about["settings"].update(path={"part": "os.system"})), "runs no foreign code"),
        (edit(lambda about: about["settings"].update(path={"part": "Linear", "values": {"x": 1}})), "cannot be made"),
        (edit(lambda about: about["settings"].update(unheard_of=1)), "does not describe"),
    ],
)
def test_damaged_models_are_refused(cells, tmp_path, spoil, words):
    cf.SnapshotFlow(**QUICK).fit(cells).save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        cf.SnapshotFlow.load(tmp_path)


def test_using_an_unfitted_flow_says_so(cells, tmp_path):
    flow = cf.SnapshotFlow(**QUICK)
    for use in (
        lambda: flow.velocity(cells.obsm["X_pca"], 1.0),
        lambda: flow.transport(cells.obsm["X_pca"], start=0, stop=1),
        lambda: flow.save(tmp_path),
    ):
        with pytest.raises(NotFittedError, match="Call `fit"):
            use()


def test_wrong_states_and_times_are_named(moving):
    adata, flow = moving
    x = adata.obsm["X_pca"]
    with pytest.raises(ValueError, match=r"shape \(cells, 3\), as `X_pca` had in `fit`; found \(600, 2\)"):
        flow.velocity(x[:, :2], 1.0)
    with pytest.raises(ValueError, match="outside the fitted range 0 to 5"):
        flow.transport(x, start=0, stop=6)
    assert torch.isfinite(flow.transport(x, start=0, stop=6, extrapolate=True).x).all()
    with pytest.raises(ValueError, match="outside the fitted range"):
        flow.velocity(x, np.full(len(x), -1.0))


@pytest.fixture(scope="module", params=[pytest.param("separate", marks=pytest.mark.slow), "shared"])
def bridge(request):
    """Cells that move at 1 per unit of time, and a flow on them that knows its score."""
    adata = make_cells(sizes=(150, 250, 200))
    flow = cf.SnapshotFlow(
        **QUICK | {"steps": 500, "batch_size": 128},
        path=cf.paths.BrownianBridge(0.5),
        stochastic=True,
        heads=request.param,
        network=partial(cf.networks.MLP, width=64),
    )
    return adata, flow.fit(adata)


def snapshot(adata, time):
    return adata.obsm["X_pca"][(adata.obs["day"] == time).to_numpy()]


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 5.0), (5.0, 1.0), (1.0, 0.0)])
def test_noisy_courses_end_on_the_measured_cells_forward_and_backward(bridge, start, stop):
    adata, flow = bridge
    x, y = snapshot(adata, start), snapshot(adata, stop)
    noisy = flow.simulate(x, start=start, stop=stop).x[-1]
    floor = cf.metrics.split_half_floor(torch.from_numpy(y), generator=cf.generator(0))
    assert cf.metrics.wasserstein(noisy, y) < 1.6 * floor
    smooth = flow.transport(x, start=start, stop=stop).x[-1]
    assert cf.metrics.wasserstein(smooth, y) < 1.6 * floor
    assert (noisy - smooth).norm(dim=1).mean() > 0.05


def test_simulations_are_seeded_and_carry_the_users_time(bridge):
    adata, flow = bridge
    x = snapshot(adata, 0.0)[:5]
    once, again, other = (flow.simulate(x, start=0, stop=5, save=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(once.x, again.x)
    assert not torch.equal(once.x, other.x)
    assert once.t.tolist() == pytest.approx([0, 2.5, 5])


def test_a_saved_bridge_comes_back_the_same(bridge, tmp_path):
    adata, flow = bridge
    flow.save(tmp_path)
    back, x = cf.SnapshotFlow.load(tmp_path), snapshot(adata, 0.0)
    assert torch.equal(back.simulate(x, start=0, stop=5).x, flow.simulate(x, start=0, stop=5).x)
    assert (back.velocity(x, 0.0) == flow.velocity(x, 0.0)).all()


def test_noise_without_a_score_and_a_score_without_noise_are_refused(cells, moving):
    adata, flow = moving
    with pytest.raises(TypeError, match="fitted without a score"):
        flow.simulate(adata.obsm["X_pca"], start=0, stop=5)
    with pytest.raises(ValueError, match="path with noise"):
        cf.SnapshotFlow(**QUICK, stochastic=True).fit(cells)
    with pytest.raises(ValueError, match="Unknown heads 'both'. Choose from: 'shared', 'separate'"):
        cf.SnapshotFlow(**QUICK, heads="both").fit(cells)
    with pytest.raises(TypeError, match="`stochastic` to be True or False; found 'yes'"):
        cf.SnapshotFlow(**QUICK, stochastic="yes").fit(cells)


def test_a_custom_path_must_be_given_again(cells, tmp_path):
    class Curved(cf.paths.GaussianPath):
        def coefficients(self, t):
            return 1 - t**2, t**2, torch.zeros_like(t)

    cf.SnapshotFlow(**QUICK, path=Curved()).fit(cells).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"load\(folder, path=...\)"):
        cf.SnapshotFlow.load(tmp_path)
    assert isinstance(cf.SnapshotFlow.load(tmp_path, path=Curved()).path, Curved)


def test_a_network_of_one_head_is_refused_where_two_are_asked_for(cells):
    flow = cf.SnapshotFlow(
        time_key="day",
        path=cf.paths.BrownianBridge(0.3),
        stochastic=True,
        network=lambda dim: torch.nn.Linear(dim, dim),
    )
    with pytest.raises(TypeError, match='`heads=2`.*heads="separate"'):
        flow.fit(cells)


# --- inside donors ---


def of_two_donors(sizes=(40, 60, 50)):
    """Cells of donors that start at one place each and move apart: pairs across donors would cross over."""
    cells = make_cells(sizes=sizes)
    donor = np.where(np.arange(cells.n_obs) % 3 == 0, "one", "two")
    sign = np.where(donor == "one", 1, -1)
    cells.obs["donor"] = pd.Categorical(donor)
    cells.obsm["X_pca"][:, 1] += sign * (1 - cells.obs["day"].to_numpy())  # they cross on the way
    return cells, sign


def test_a_flow_is_paired_inside_donors():
    cells, sign = of_two_donors()
    flow = cf.SnapshotFlow(**QUICK, within="donor").fit(cells)
    for k, plan in enumerate(flow.plans_):
        before, after = (sign[(cells.obs["day"] == t).to_numpy()] for t in flow.clock_.times[k : k + 2])
        dense = plan.dense().numpy()
        assert dense[before[:, None] != after].sum() == 0
        assert dense.sum() == pytest.approx(1)
    apart = cf.SnapshotFlow(**QUICK).fit(cells)
    assert (apart.velocity(cells.obsm["X_pca"], 0.5) != flow.velocity(cells.obsm["X_pca"], 0.5)).any()
    flow.distill(cells, steps=2, objective="semigroup")
    assert clone(flow).within == "donor"


def test_groups_are_part_of_what_a_resumed_fit_shares(tmp_path):
    cells, _ = of_two_donors()
    flow = cf.SnapshotFlow(**QUICK, within="donor")
    flow.fit(cells, run=cf.Run(tmp_path))
    flow.fit(cells, run=cf.Run(tmp_path, resume=True))
    cells.obs["donor"] = cells.obs["donor"].to_numpy()[::-1]
    with pytest.raises(CheckpointError, match="cells"):
        flow.fit(cells, run=cf.Run(tmp_path, resume=True))
    with pytest.raises(CheckpointError, match="within|cells"):
        cf.SnapshotFlow(**QUICK).fit(cells, run=cf.Run(tmp_path, resume=True))


def test_a_donor_that_a_snapshot_lacks_is_left_out_with_a_warning():
    cells, _ = of_two_donors()
    cells = cells[~((cells.obs["day"] == 1.0) & (cells.obs["donor"] == "two"))].copy()
    with pytest.warns(UserWarning, match=r"two in 2 \(after 1\).*two in 2 \(before 3\).*left out"):
        flow = cf.SnapshotFlow(**QUICK, within="donor", curve="spline").fit(cells)
    assert np.isfinite(flow.velocity(cells.obsm["X_pca"], 1.0)).all()


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda obs: obs.drop(columns="donor"), KeyError, r"No `adata.obs\['donor'\]`. Available.*Set `within`"),
        (lambda obs: obs.assign(donor=obs["donor"].where(obs["day"] < 5)), ValueError, "50 of 150 cells have no group"),
        (lambda obs: obs.assign(donor=obs["day"]), ValueError, "no group in common"),
    ],
)
def test_donors_that_cannot_be_are_named(spoil, error, words):
    cells, _ = of_two_donors()
    cells.obs = spoil(cells.obs)
    with pytest.raises(error, match=words):
        cf.SnapshotFlow(**QUICK, within="donor").fit(cells)


def test_donors_that_outgrow_others_are_seen_by_growth():
    """Of 40 and 40 cells come 60 and 20; the population keeps its size."""
    cells = make_cells(times=(0.0, 1.0), sizes=(80, 80))
    first = cells.obs["day"] == 0
    cells.obs["donor"] = ""
    cells.obs.loc[first, "donor"] = np.where(np.arange(80) < 40, "one", "two")
    cells.obs.loc[~first, "donor"] = np.where(np.arange(80) < 60, "one", "two")
    one = (cells.obs["donor"] == "one").to_numpy()
    cells.obsm["X_pca"][:, 1] += np.where(one, 4, -4)
    flow = cf.SnapshotFlow(**QUICK | {"steps": 200}, within="donor", growth=True).fit(cells)
    rate = flow.growth_rate(cells.obsm["X_pca"], 0.5)
    assert rate[one].mean() == pytest.approx(np.log(60 / 40), abs=0.15)
    assert rate[~one].mean() == pytest.approx(np.log(20 / 40), abs=0.15)


# --- old spellings ---


@pytest.mark.parametrize(
    ("bend", "curve"),
    [
        (0.0, cf.pairing.Straight()),
        (0.5, cf.pairing.Spline(0.5)),
        (1, cf.pairing.Spline(1)),
        (cf.training.Geodesics(steps=5), cf.training.Geodesics(steps=5)),
    ],
    ids=["straight", "half", "whole", "geodesics"],
)
def test_a_bend_is_a_curve_now(bend, curve, cells):
    with pytest.warns(FutureWarning, match=r"SnapshotFlow\(bend=.*is now `SnapshotFlow\(curve="):
        flow = cf.SnapshotFlow(**QUICK, bend=bend)
    assert flow.curve == curve
    clouds = [torch.randn(120, 2, generator=cf.generator(k)) for k in range(2)]
    with pytest.warns(FutureWarning, match=r"snapshot_batches\(curve="):
        cf.pairing.snapshot_batches(clouds, [0, 1], bend=bend, generator=cf.generator(0))


@pytest.mark.parametrize("curve", ["bent", 0.5, cf.pairing.Spline])
def test_what_is_no_curve_is_refused(curve, cells):
    words = "Unknown curve 'bent'. Choose from: 'straight', 'mean', 'spline'|such as Spline"
    with pytest.raises((ValueError, TypeError), match=words):
        cf.SnapshotFlow(**QUICK, curve=curve).fit(cells)


def test_times_are_written_as_those_of_the_fit(tmp_path):
    """Labels mean the same to an estimator as to the tools, also after it was saved; others are refused."""
    adata = make_cells()
    adata.obs["stage"] = "E" + adata.obs["day"].map("{:g}".format)
    flow = cf.SnapshotFlow(**QUICK | {"time_key": "stage"}).fit(adata)
    flow.save(tmp_path)
    x = adata.obsm["X_pca"][:3]
    for known in (flow, cf.SnapshotFlow.load(tmp_path)):
        found, expected = known.transport(x, start="E0", stop="E5"), known.transport(x, start=0, stop=5)
        assert torch.equal(found.x, expected.x)
        assert torch.equal(found.t, expected.t)
        np.testing.assert_array_equal(known.velocity(x, ["E1", "E2", "E5"]), known.velocity(x, [1, 2, 5]))
        with pytest.raises(ValueError, match="written as the time column"):
            known.transport(x, start="day 0", stop="E5")
    with pytest.raises(ValueError, match="not numbers"):  # a column of numbers has no labels
        cf.SnapshotFlow(**QUICK).fit(adata).velocity(x, "E1")
