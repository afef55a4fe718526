"""Several processes that train together: one history, one folder, one end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cellflow.lock import locked

STEPS = 25


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found under torchrun, of which another process holds one folder."""
    folder = tmp_path_factory.mktemp("shared")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with locked(folder / "held"):
        done = subprocess.run(
            [*command, str(Path(__file__).with_name("shared_trainings.py")), str(folder)],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
def test_the_history_is_the_mean_over_processes_and_the_same_in_all(both):
    first, second = both
    assert first["history"] == second["history"]
    assert first["own"] != second["own"]
    mean = [(a + b) / 2 for a, b in zip(first["own"], second["own"], strict=True)]
    assert first["history"]["loss"] == pytest.approx(mean, rel=1e-6)
    assert len(first["history"]["learning_rate"]) == STEPS
    assert (first["told"], second["told"]) == (first["history"]["loss"], [])
    assert torch.equal(first["weights"], second["weights"])


@pytest.mark.slow
def test_held_out_losses_are_the_same_in_all(both):
    first, second = (found["stopping"] for found in both)
    assert len(first["validation"]) == 60
    assert torch.equal(*(torch.tensor(each["validation"]).nan_to_num() for each in (first, second)))
    assert not torch.tensor(first["validation"]).isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("sender", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_same_step_which_is_saved(both, sender):
    for found in both:
        said, saved = found[f"signal {sender}"]
        assert said.startswith(f"Stopped after step 10 of {STEPS}. Saved in ")
        assert saved
        again, history = found[f"resumed {sender}"]
        assert torch.equal(again, both[0]["weights"])
        assert history == both[0]["history"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_stops_all(both):
    assert both[0]["not finite"] == both[1]["not finite"]
    assert "nan at step 1" in both[0]["not finite"]


@pytest.mark.slow
def test_a_folder_that_is_held_is_refused_by_all(both):
    assert both[0]["held"] == both[1]["held"]
    assert f"is in use by process {os.getpid()} on" in both[0]["held"]


@pytest.mark.slow
def test_the_clock_saves_for_all_where_they_look(both):
    """Both look every ten steps; the objective of the eleventh finds what was saved after the tenth."""
    for found in both:
        assert found["clock"][:9] == [False] * 9
        assert found["clock"][12:] == [True] * (STEPS - 12)
