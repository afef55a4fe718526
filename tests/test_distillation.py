"""Distilled flows: few jumps do what the solver did, for cells, images and noise; saved, loaded, and forgotten."""

import warnings
from copy import deepcopy
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import cellflow as cf
from cellflow.cli import main
from cellflow.cli.goodbye import goodbye
from cellflow.cli.image_runs import write
from cellflow.errors import CheckpointError, NotFittedError
from cellflow.integrate import Fixed, Jumps
from cellflow.report import few_steps
from cellflow.training import Recipe, trajectory_batches
from cellflow.training.distillation import OBJECTIVES

QUICK = Recipe(learning_rate=4e-3, warmup=20)
SMALL = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
SMALL_NETWORK = ["network=unet", "network.width=8", "network.multipliers=[1,2]", "network.blocks=1"]


@pytest.fixture(scope="module")
def cells():
    return cf.datasets.branching((200, 200, 200), times=(0, 1, 4), seed=0)


@pytest.fixture(scope="module")
def flow(cells):
    fitted = cf.SnapshotFlow(rep="X_latent", steps=200, batch_size=64, recipe=QUICK).fit(cells)
    return fitted.distill(cells, steps=400)


@pytest.fixture(scope="module")
def hurried(cells):
    """A flow of few steps, of which tests take copies."""
    return cf.SnapshotFlow(rep="X_latent", steps=5).fit(cells)


@pytest.fixture(scope="module")
def digits():
    return cf.datasets.digits()


@pytest.fixture(scope="module")
def generator(digits):
    model = cf.ImageGenerator(network=SMALL, conditional=True, steps=20, batch_size=16, recipe=QUICK).fit(digits)
    return model.distill(digits.take(range(64)), steps=20)


def gap(flow, x, start, stop, jumps):
    """Root mean squared distance of jumps from the solver, as a share of how far it goes."""
    true = flow.transport(x, start=start, stop=stop, solver=100).x[-1]
    found = flow.transport(x, start=start, stop=stop, solver=Jumps(jumps)).x[-1]
    return float((found - true).norm() / (true - torch.as_tensor(x)).norm())


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 0), (0.5, 3), (1, 4)])
@pytest.mark.parametrize("jumps", [1, 3])
def test_jumps_follow_the_flow_between_any_times(flow, cells, start, stop, jumps):
    x = cells.obsm["X_latent"][cells.obs["time"] == (start if start in (0, 1, 4) else 0)].astype(np.float32)
    assert gap(flow, x, start, stop, jumps) < 0.15


def test_one_euler_step_is_farther_away_than_one_jump(flow, cells):
    x = cells.obsm["X_latent"][cells.obs["time"] == 0].astype(np.float32)
    true = flow.transport(x, start=0, stop=4, solver=100).x[-1]
    euler = flow.transport(x, start=0, stop=4, solver=Fixed("euler", steps=1)).x[-1]
    jump = flow.transport(x, start=0, stop=4, solver=Jumps(1)).x[-1]
    assert (jump - true).norm() < 0.5 * (euler - true).norm()


def test_jumps_keep_as_many_states_as_asked_for(flow, cells):
    x = cells.obsm["X_latent"][:3]
    found = flow.transport(x, start=0, stop=4, save=3, solver=Jumps(1))
    assert found.evaluations == 2
    assert found.t.tolist() == [0, 2, 4]
    assert torch.equal(found.x[0], torch.as_tensor(x, dtype=torch.float32))


def test_every_sample_may_jump_between_its_own_times(flow, cells):
    x = cells.obsm["X_latent"][:2]
    start, stop = np.array([0.0, 1.0]), np.array([4.0, 0.5])
    both = flow.transport(x, start=start, stop=stop, solver=Jumps(1)).x[-1]
    for k in range(2):
        alone = flow.transport(x[k : k + 1], start=start[k], stop=stop[k], solver=Jumps(1)).x[-1]
        torch.testing.assert_close(both[k : k + 1], alone)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("teacher", [True, False])
def test_every_objective_distils(cells, hurried, objective, teacher):
    fitted = deepcopy(hurried)
    fitted.distill(cells, steps=10, objective=objective, teacher=teacher)
    assert np.isfinite(fitted.map_history_["loss"]).all()
    assert fitted.transport(cells.obsm["X_latent"][:3], start=0, stop=4, solver=Jumps(2)).x.isfinite().all()


def test_an_objective_of_your_own_is_completed(cells, hurried):
    fitted = deepcopy(hurried)
    fitted.distill(cells, steps=3, objective=cf.objectives.SemigroupMatching(split="middle", diagonal=0.5))
    assert sorted(fitted.map_history_.columns) == ["diagonal", "jump", "learning_rate", "loss"]


@pytest.mark.parametrize("heads", ["shared", pytest.param("separate", marks=pytest.mark.slow)])
def test_a_bridge_is_distilled_by_its_probability_flow(cells, heads):
    bridge = {"path": cf.paths.BrownianBridge(0.3), "stochastic": True, "heads": heads}
    fitted = cf.SnapshotFlow(rep="X_latent", steps=300, batch_size=64, recipe=QUICK, **bridge).fit(cells)
    fitted.distill(cells, steps=300)
    x = cells.obsm["X_latent"][cells.obs["time"] == 0].astype(np.float32)
    assert gap(fitted, x, 0, 4, 1) < 0.2


def test_distilling_leaves_the_fit_alone_and_a_new_fit_forgets_the_map(cells):
    fitted = cf.SnapshotFlow(rep="X_latent", steps=5).fit(cells)
    before = {name: weight.clone() for name, weight in fitted.field_.state_dict().items()}
    fitted.distill(cells, steps=5)
    assert all(torch.equal(weight, before[name]) for name, weight in fitted.field_.state_dict().items())
    assert all(weight.requires_grad for weight in fitted.field_.parameters())
    fitted.fit(cells)
    assert not fitted.distilled
    with pytest.raises(NotFittedError, match="Call `distill` first"):
        fitted.transport(cells.obsm["X_latent"][:3], start=0, stop=4, solver=Jumps(1))


def test_the_same_seed_distils_the_same_map(cells):
    maps = [
        cf.SnapshotFlow(rep="X_latent", steps=5, seed=3).fit(cells).distill(cells, steps=5).flow_map_ for _ in range(2)
    ]
    for one, other in zip(maps[0].parameters(), maps[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_map_is_saved_and_loaded_with_its_flow(flow, cells, tmp_path):
    flow.save(tmp_path)
    again = cf.SnapshotFlow.load(tmp_path)
    x = cells.obsm["X_latent"][:5]
    for solver in (Fixed(), Jumps(1)):
        torch.testing.assert_close(
            again.transport(x, start=0, stop=4, solver=solver).x,
            flow.transport(x, start=0, stop=4, solver=solver).x,
        )
    assert again.map_history_.columns == flow.map_history_.columns
    (tmp_path / "flow_map.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="flow map"):
        cf.SnapshotFlow.load(tmp_path)
    cf.SnapshotFlow(rep="X_latent", steps=1).fit(cells).save(tmp_path, overwrite=True)
    assert not cf.SnapshotFlow.load(tmp_path).distilled


def test_distilling_resumes_to_the_bit(cells, hurried, tmp_path):
    def fitted():
        return deepcopy(hurried)

    whole = fitted().distill(cells, steps=6).flow_map_.state_dict()
    first = fitted()
    torch.manual_seed(0)
    objective = "trajectories"
    first.distill(cells, steps=6, objective=objective, run=cf.Run(tmp_path))
    again = fitted().distill(cells, steps=6, run=cf.Run(tmp_path, resume=True)).flow_map_.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(CheckpointError):
        fitted().distill(cells, steps=6, objective="semigroup", run=cf.Run(tmp_path, resume=True))


def test_tools_jump(flow, cells):
    middle = cf.tl.interpolate(cells, flow, at=2, solver=Jumps(1))
    solved = cf.tl.interpolate(cells, flow, at=2)
    assert cf.metrics.wasserstein(middle.obsm["X_latent"], solved.obsm["X_latent"]) < 0.2
    first = cells.obs["time"] == 0
    cf.tl.push(cells, flow, cells=first, at=4, solver=Jumps(1))
    cf.tl.pull(cells, flow, cells=cells.obs["time"] == 4, at=0, solver=Jumps(2))
    assert cells.obs["push"].sum() == pytest.approx(1)
    assert cells.obs["pull"].sum() == pytest.approx(1)


def test_a_translator_jumps_both_ways(rng):
    x = torch.randn(200, 2, generator=rng)
    model = cf.DomainTranslator(steps=200, batch_size=64, recipe=QUICK).fit(x, 0.5 * x + 3)
    model.distill(x, 0.5 * x + 3, steps=300)
    torch.testing.assert_close(model.translate(x, solver=Jumps(1)), model.translate(x), atol=0.15, rtol=0)
    there = model.translate(x, solver=Jumps(1))
    torch.testing.assert_close(model.translate(there, solver=Jumps(1), reverse=True), x, atol=0.3, rtol=0)
    assert not model.refine(x, 0.5 * x + 3, rounds=1, steps=2).distilled


def test_images_are_generated_in_one_jump(generator):
    found = generator.generate(4, label="3", solver=Jumps(1))
    assert found.shape == (1, 8, 8)
    assert found.labels.tolist() == [3, 3, 3, 3]
    again = generator.generate(4, label="3", solver=Jumps(1), batch_size=3)
    assert torch.equal(found.images, again.images)


def test_guidance_is_built_into_a_map(digits, generator):
    with pytest.raises(ValueError, match="fixed by `distill"):
        generator.generate(4, label="3", solver=Jumps(1), guidance=2.0)
    with pytest.raises(ValueError, match="needs a model with classes"):
        cf.ImageGenerator(network=SMALL, steps=2, batch_size=4).fit(digits).distill(digits, guidance=2.0, steps=2)


def test_a_diffusion_model_is_distilled_into_a_map_of_its_own(digits):
    model = cf.ImageGenerator(
        path="variance_preserving", objective="noise", network=SMALL, steps=5, batch_size=8
    ).fit(digits)  # fmt: skip
    model.distill(digits.take(range(16)), steps=3)
    assert model.generate(2, solver=Jumps(1)).images.shape == (2, 1, 8, 8)


def test_wrong_input_is_refused(flow, cells, digits, generator):
    with pytest.raises(NotFittedError):
        cf.SnapshotFlow(rep="X_latent").distill(cells)
    with pytest.raises(ValueError, match="Expected the cells of the fit: times"):
        flow.distill(cells[cells.obs["time"] != 1])
    with pytest.raises(ValueError, match="`steps` to be a whole number >= 1; found 0"):
        flow.distill(cells, steps=0)
    with pytest.raises(ValueError, match="semigroup"):
        flow.distill(cells, objective="lagrange")
    with pytest.raises(TypeError, match="objective for flow maps"):
        flow.distill(cells, objective=cf.objectives.VelocityMatching())
    with pytest.raises(ValueError, match="teacher=False"):
        flow.distill(cells, teacher=False)
    teacher = cf.networks.MLP(dim=2, width=8)
    narrow = cf.objectives.SemigroupMatching(teacher=lambda t, x, condition: teacher(t, x, condition)[:, :1])
    with pytest.raises(ValueError, match="same space"):
        flow.distill(cells, steps=1, objective=narrow)
    with pytest.raises(ValueError, match="whole number >= 1; found 0"):
        flow.transport(cells.obsm["X_latent"][:2], start=0, stop=4, solver=Jumps(0))
    with pytest.raises(ValueError, match=r"whole number >= 1; found 1\.5"):
        flow.transport(cells.obsm["X_latent"][:2], start=0, stop=4, solver=Jumps(1.5))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        flow.transport(np.full((2, 2), np.nan), start=0, stop=4, solver=Jumps(1))
    with pytest.raises(ValueError, match="Expected the images of the fit"):
        generator.distill(cf.images.ImageSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)))


def test_errors_of_jumps_count_per_unit_of_time_either_way():
    """A field that drifts where nothing moves misses by 3 per unit of time; lengths count as halves of a unit."""
    drift = lambda t, x, condition: torch.full_like(x, 3.0)  # noqa: E731
    start, stop, x = torch.tensor([0.0, 0.75]), torch.tensor([0.25, 0.25]), torch.ones(2, 4)
    batch = cf.Batch(x, x, start, stop)
    loss = cf.objectives.TrajectoryMatching(unit=2.0)(drift, batch, generator=cf.generator(0))["loss"]
    misses = torch.tensor([0.25, 0.5]) * 3 / 2
    assert loss == pytest.approx((misses**2 / torch.tensor([0.25, 0.5])).mean().item())


def test_a_jump_of_no_length_teaches_nothing():
    drift = lambda t, x, condition: torch.full_like(x, 3.0)  # noqa: E731
    x, now = torch.ones(2, 4), torch.tensor([0.5, 0.0])
    batch = cf.Batch(x, x, now, torch.tensor([0.5, 1.0]))
    loss = cf.objectives.TrajectoryMatching()(drift, batch, generator=cf.generator(0))["loss"]
    assert loss == pytest.approx(9 / 2)


def test_trajectories_lie_on_the_flow_and_pass_through_the_given_states():
    def velocity(t, x, condition):
        return -x * condition

    rng = cf.generator(seed=0)
    x = torch.linspace(1, 2, 6)[:, None]
    rate = torch.tensor([[1.0], [2.0]]).repeat(3, 1)
    known = [x, x], [0.3, 1.0], [rate, rate]
    for both in (True, False):
        batches = trajectory_batches(velocity, *known, batch_size=500, generator=rng, both=both, n_times=9)
        batch = next(iter(batches))
        start, duration = batch.span()
        expected = batch.x0 * torch.exp(-batch.condition * duration[:, None])
        torch.testing.assert_close(batch.x1, expected, atol=1e-5, rtol=1e-4)
        assert bool((duration < 0).any()) is both
        assert duration.abs().min() > 0
        assert 0 <= start.min() <= 0.01
        # Back at its time, every trajectory is one of the given states.
        home = torch.where(batch.condition == 1, batch.x0 * start[:, None].exp(), batch.x0 * (2 * start[:, None]).exp())
        at = torch.cat([rate_x * torch.exp(r * t) for t in (0.3, 1.0) for rate_x, r in zip(x, rate, strict=True)])
        assert (home - at[None]).abs().min(dim=1).values.max() < 1e-3
    again = next(batches.iterate(0))
    assert torch.equal(again.x0, batch.x0)


def test_more_states_than_memory_holds_are_chosen_at_random(monkeypatch):
    monkeypatch.setattr("cellflow.training.distillation.NUMBERS", 100)
    monkeypatch.setattr("cellflow.training.distillation.AT_ONCE", 20)
    batches = trajectory_batches(
        lambda t, x, condition: torch.zeros_like(x),
        [torch.arange(40.0)[:, None], torch.arange(60.0)[:, None]],
        [0.0, 1.0],
        batch_size=4,
        generator=cf.generator(seed=0),
        n_times=5,
    )
    assert [part.x.shape for part in batches.trajectories] == [(5, 8, 1), (5, 12, 1)]
    with pytest.raises(ValueError, match="a time for each of one or more snapshots"):
        trajectory_batches(lambda t, x, condition: x, [], [], batch_size=4, generator=cf.generator(seed=0))


def test_a_run_of_cells_is_distilled_on_the_command_line(cells, tmp_path, capsys):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    run = tmp_path / "run"
    quick = ["progress=false", "device=cpu"]
    fitted = [f"data.path={tmp_path / 'cells.h5ad'}", "data.time_key=time", "data.rep=X_latent", "data.holdout=[1]"]
    fitted += ["report=false"]  # `distill` writes it
    assert main(["fit", *fitted, f"out={run}", "steps=30", "batch_size=32", "validate=false", *quick]) == 0
    assert main(["interpolate", f"model={run}", "at=[2]", "solver=jumps"]) == 1
    assert "Call `distill` first" in capsys.readouterr().err
    assert main(["distill", f"model={run}", "steps=20", *quick]) == 0
    table = pd.read_csv(run / "few_steps.csv")
    assert table["steps"].tolist() == [1, 2, 4, 8, 16] * 2 + [100]
    assert cf.SnapshotFlow.load(run).distilled
    assert not (run / "distilling").exists()
    page = (run / "report.html").read_text()
    assert "How many steps it takes" in page
    assert (run / "figures" / "few_steps.png").is_file()
    assert main(["interpolate", f"model={run}", "at=[2]", "solver=jumps"]) == 0
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["interpolate", f"model={run}", "at=[2]", "jumps=1", f"out={tmp_path / 'old.h5ad'}"]) == 0
    assert "warning: `jumps=1` is now `solver=jumps solver.steps=1`" in capsys.readouterr().err
    found, old = (anndata.read_h5ad(path) for path in (run / "interpolated-2.h5ad", tmp_path / "old.h5ad"))
    assert np.array_equal(found.obsm["X_latent"], old.obsm["X_latent"])
    (run / "distilling").mkdir()
    assert main(["distill", f"model={run}", "steps=20", *quick]) == 1
    assert "interrupted" in capsys.readouterr().err


QUICK_RUN = ["progress=false", "device=cpu", "steps=4", "threads=1"]
SMALL_RUN = [*SMALL_NETWORK, "batch_size=8", "solver.steps=2", "holdout=0.25"]


def test_a_translation_is_distilled_on_the_command_line(digits, tmp_path, monkeypatch):
    for name in "23":
        write(digits.only(name).take(range(12)), tmp_path / name)
    source, target = (f"{name}={tmp_path / digit}" for name, digit in (("source", "2"), ("target", "3")))
    run, out = tmp_path / "translated", tmp_path / "out"
    with monkeypatch.context() as patch:  # `distill` writes the page
        patch.setattr("cellflow.cli.translation.write_report", lambda *given, **more: None)
        assert main(["translate", source, target, f"out={run}", *QUICK_RUN, *SMALL_RUN]) == 0
    assert main(["distill", f"model={run}", *QUICK_RUN]) == 0
    page = (run / "report.html").read_text()
    assert "How many steps it takes" in page
    assert "more than 1 is grain, less is blur, which the distance may not see." in page
    table = pd.read_csv(run / "few_steps.csv")
    assert table.columns.tolist() == ["sampler", "steps", "FD-PCA8", "High frequencies", "seconds"]
    assert (table["High frequencies"] > 0).all()
    table.drop(columns="High frequencies").to_csv(run / "few_steps.csv", index=False)  # as version 0.2.0 wrote it
    assert "<th>High frequencies" not in few_steps.section(run, tmp_path)
    assert main(["translate", f"model={run}", f"input={tmp_path / '2'}", f"out={out}", "solver=jumps"]) == 0
    assert len(list(out.iterdir())) == 12


@pytest.mark.slow
def test_a_generator_is_distilled_on_the_command_line(digits, tmp_path):
    for name in "23":
        write(digits.only(name).take(range(12)), tmp_path / "data" / name)
    data, run = tmp_path / "data", tmp_path / "generated"
    assert main(["generate", f"data={data}", "labels=folder", f"out={run}", *QUICK_RUN, *SMALL_RUN]) == 0
    assert main(["distill", f"model={run}", "guidance=2", *QUICK_RUN]) == 0
    assert main(["generate", f"model={run}", "n=3", "label='2'", "solver=jumps", f"out={tmp_path / 'made'}"]) == 0
    assert len(list((tmp_path / "made").iterdir())) == 3


def test_ctrl_c_says_how_a_distillation_goes_on(cells, hurried, tmp_path):
    cfg = OmegaConf.create({"model": str(tmp_path), "resume": False})
    stop = KeyboardInterrupt("Stopped after step 3 of 9.")
    assert goodbye(stop, "distill", cfg, [f"model={tmp_path}"]) == "Stopped; nothing was saved yet."
    fitted = deepcopy(hurried)
    fitted.distill(cells, steps=2, run=cf.Run(tmp_path / "distilling"))  # what an interrupted one leaves behind
    said = goodbye(stop, "distill", cfg, [f"model={tmp_path}", "steps=9"])
    assert said.splitlines()[0] == "Stopped after step 3 of 9. On the command line:"
    assert said.splitlines()[1].strip() == f"cellflow distill model={tmp_path} steps=9 resume=true"
