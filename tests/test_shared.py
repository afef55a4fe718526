"""Several processes that train together: one history, one folder, one end. They are started once for all tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared_trainings import fixed, halfway, write_data
from test_training import QUICK, run, weights

import cellflow as cf
from cellflow.cli import main
from cellflow.lock import locked
from cellflow.processes import Started, accelerator, joined, started
from cellflow.training import Recipe, Run
from cellflow.training.checkpoint import STATE, load_tensors

STEPS = 25


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found under torchrun, of which another process holds one folder."""
    folder = tmp_path_factory.mktemp("shared")
    write_data(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with locked(folder / "held"):
        done = subprocess.run(
            [*command, str(Path(__file__).with_name("shared_trainings.py")), str(folder)],
            capture_output=True,
            text=True,
            timeout=900,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    assert all((folder / f"{rank}.pt").exists() for rank in range(2)), done.stderr
    assert done.returncode != 0  # the second one dies in the end
    return [torch.load(folder / f"{rank}.pt") | {"folder": folder} for rank in range(2)]


def test_the_history_is_the_mean_over_processes_and_the_same_in_all(both):
    first, second = both
    assert first["history"] == second["history"]
    assert first["own"] != second["own"]
    mean = [(a + b) / 2 for a, b in zip(first["own"], second["own"], strict=True)]
    assert first["history"]["loss"] == pytest.approx(mean, rel=1e-6)
    assert len(first["history"]["learning_rate"]) == STEPS
    assert (first["told"], second["told"]) == (first["history"]["loss"], [])
    assert torch.equal(first["weights"], second["weights"])


def test_held_out_losses_are_the_same_in_all(both):
    first, second = (found["stopping"] for found in both)
    assert len(first["validation"]) == 60
    assert torch.equal(*(torch.tensor(each["validation"]).nan_to_num() for each in (first, second)))
    assert not torch.tensor(first["validation"]).isnan().all()


@pytest.mark.parametrize("sender", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_same_step_which_is_saved(both, sender):
    for found in both:
        said, saved = found[f"signal {sender}"]
        assert said.startswith(f"Stopped after step 10 of {STEPS}. Saved in ")
        assert saved
        again, history = found[f"resumed {sender}"]
        assert torch.equal(again, both[0]["weights"])
        assert history == both[0]["history"]


def test_a_loss_that_is_not_finite_in_one_process_stops_all(both):
    assert both[0]["not finite"] == both[1]["not finite"]
    assert "nan at step 1" in both[0]["not finite"]


def test_a_folder_that_is_held_is_refused_by_all(both):
    assert both[0]["held"] == both[1]["held"]
    assert f"is in use by process {os.getpid()} on" in both[0]["held"]


def test_the_clock_saves_for_all_where_they_look(both):
    """Both look every ten steps; the objective of the eleventh finds what was saved after the tenth."""
    for found in both:
        assert found["clock"][:9] == [False] * 9
        assert found["clock"][12:] == [True] * (STEPS - 12)


def test_weights_are_those_of_one_process_with_twice_the_batch(both):
    literal, _ = run(objective=halfway, batches=fixed(2), steps=20)
    twice = Recipe(warmup=QUICK.warmup, learning_rate=QUICK.learning_rate, accumulate=2)
    in_parts, _ = run(steps=STEPS, recipe=twice)
    for found in both:
        torch.testing.assert_close(found["fixed"], weights(literal), rtol=0, atol=1e-6)
        torch.testing.assert_close(found["weights"], weights(in_parts), rtol=0, atol=1e-6)


def test_one_process_goes_on_where_two_stopped_if_its_steps_take_as_many_batches(both):
    torch.testing.assert_close(both[0]["alone"], both[0]["weights"], rtol=0, atol=1e-6)
    assert "trained on 2 batch(es) in each step; 1 process(es) with recipe.accumulate=1" in both[0]["refused"]


def test_the_first_process_solves_the_plans_for_all(both):
    first, second = both
    assert (first["asked"], second["asked"]) == (9, 0)  # three intervals, of the flow and of its two members
    assert all(torch.equal(*pair) for pair in zip(first["flow"], second["flow"], strict=True))
    assert len(first["flow"]) == 3


def test_commands_write_one_folder_and_the_first_process_speaks(both):
    first, second = both
    for command in ("fit", "distill", "perturb", "translate"):
        assert (first[command][0], second[command]) == (0, (0, "")), first[command]
    folder = first["folder"]
    assert json.loads((folder / "first" / "run.json").read_text())["device"].startswith("cpu x 2 processes, each with")
    assert cf.SnapshotFlow.load(folder / "first").distilled
    assert cf.PerturbationFlow.load(folder / "drugs").n_features_in_ == 3
    assert cf.DomainTranslator.load(folder / "images").shape_ == (1, 8, 8)


def test_an_interrupted_command_prints_the_one_that_goes_on(both):
    (code, said), (other, nothing) = (found["stopped"] for found in both)
    assert (code, other, nothing) == (130, 130, "")
    assert "Stopped after step 10 of 25" in said
    assert "\n  torchrun --nproc-per-node=2 -m cellflow fit data.path=" in said
    assert said.rstrip().endswith("resume=true")


def test_a_folder_that_is_taken_and_a_wrong_number_are_said_by_the_first_process(both):
    assert "already holds a run" in both[0]["again"][1]
    assert both[1]["again"][1] == ""
    assert "Expected devices=3; torchrun started 2 processes" in both[0]["many"][1]
    assert [found[name][0] for found in both for name in ("again", "many")] == [1] * 4


def test_the_end_of_one_process_is_said_by_the_others_and_what_was_saved_stays(both):
    folder = both[0]["folder"]
    assert "Another of the 2 processes has ended" in (folder / "lost.txt").read_text()
    assert load_tensors(folder / "lost" / STATE)[1]["step"] == 5


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 announces 4 processes"),
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}, r"RANK=\(not set\), WORLD_SIZE=2"),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "2", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "process 2 of 2"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "--ntasks-per-node"),
    ],
)
def test_processes_that_cannot_be_joined_are_refused_in_a_sentence(told, words, monkeypatch, tmp_path, capsys):
    with pytest.raises(ValueError, match=words):
        started(told)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", f"data.path={tmp_path / 'none.h5ad'}", "data.time_key=t", f"out={tmp_path / 'run'}"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_batch_script_of_slurm_is_one_process_and_its_steps_are_several():
    of_job = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0"}
    assert started(of_job) is None
    assert started(of_job | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}) == Started(3, 4, 2, "srun")


@pytest.mark.parametrize(
    ("device", "gpus", "words"),
    [
        ("cuda", 0, "No GPU is available"),
        ("cuda", 2, "GPU for each of 8 processes on this machine; found 2. Ask for `torchrun --nproc-per-node=2`"),
        ("mps", 0, "found 'mps'"),
        ("cuda:1", 8, "found 'cuda:1'"),
        ("tpu", 0, "found 'tpu'"),
    ],
)
def test_devices_that_are_not_there_are_refused(device, gpus, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=words):
        accelerator(device, Started(0, 8, 8, "torchrun"))


def test_more_devices_than_processes_are_refused():
    with pytest.raises(ValueError, match="devices=8; found one process. Put `torchrun --nproc-per-node=8 -m`"):
        joined(8)
    with pytest.raises(ValueError, match="devices=1 on each of num_nodes=2"):
        joined("auto", machines=2)
    with pytest.raises(ValueError, match="`devices` or a `fabric`"):
        Run(devices=2, fabric=type("Joined", (), {"is_global_zero": True})())
    with pytest.raises(ValueError, match="`num_nodes` is used with `devices`"):
        Run(num_nodes=2)
