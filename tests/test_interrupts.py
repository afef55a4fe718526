"""Signals that stop a training, and what is saved by the clock."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from test_training import run, weights

from cellflow.objectives import VelocityMatching
from cellflow.training import Run, loop
from cellflow.training.checkpoint import STATE, TrainingState
from cellflow.training.run import SIGNALS, Interrupt, Stopped

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
each_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def usual():
    """What a process in the foreground does at these signals: under ``nohup``, or behind ``&``, some are ignored."""
    usual = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def sending(number, at):
    """The usual objective, in whose step of that number a signal comes."""
    taken = 0

    def objective(field, batch, *, generator):
        nonlocal taken
        taken += 1
        if taken == at:
            os.kill(os.getpid(), number)
        return VelocityMatching()(field, batch, generator=generator)

    return objective


def test_there_are_three_of_them():
    assert [number.name for number in SIGNALS] == ["SIGINT", "SIGTERM", "SIGHUP"]


@each_signal
def test_a_signal_saves_stops_like_ctrl_c_and_resumes_exactly(tmp_path, number):
    whole, _ = run(steps=40)
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt, match="step 17 of 40.*resume=True") as stopped:
        run(objective=sending(number, 17), steps=40, folder=tmp_path)
    assert isinstance(stopped.value, Stopped)
    assert stopped.value.saved
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    parts, _ = run(steps=40, folder=tmp_path, resume=True)
    assert torch.equal(weights(whole), weights(parts))
    run(steps=5)
    assert [signal.getsignal(each) for each in SIGNALS] == before


@each_signal
def test_without_a_folder_a_signal_stops_and_says_that_nothing_was_saved(number):
    with pytest.raises(Stopped, match="step 3 of 40; nothing was saved") as stopped:
        run(objective=sending(number, 3), steps=40)
    assert not stopped.value.saved


@each_signal
def test_a_signal_after_the_last_look_is_passed_on(number):
    with Interrupt() as outer:
        with Interrupt():
            signal.raise_signal(number)
        assert outer.pending
        outer.pending = False
    with pytest.raises(KeyboardInterrupt), Interrupt():
        signal.raise_signal(number)


def test_a_signal_that_is_to_be_ignored_stays_so():
    """As ``nohup`` does with the end of the terminal; Ctrl-C is wanted even where it was ignored."""
    before = [signal.signal(each, signal.SIG_IGN) for each in SIGNALS]
    try:
        with Interrupt() as interrupt:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.raise_signal(number)
            assert not interrupt.pending
            signal.raise_signal(signal.SIGINT)
            assert interrupt.pending
            interrupt.pending = False
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_IGN] * 3
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch):
    real, before = signal.getsignal, signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else real(number))
    with Interrupt():
        assert real(signal.SIGTERM) is before
        assert real(signal.SIGINT) is not signal.default_int_handler


def test_outside_the_main_thread_nothing_changes():
    before, seen = [signal.getsignal(each) for each in SIGNALS], []

    def inside():
        with Interrupt():
            seen.extend(signal.getsignal(each) for each in SIGNALS)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == before


def test_a_second_signal_stops_at_once():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.pending
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupt.pending = False


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_second_ctrl_c_stops_in_the_background_too(first):
    """Shells let what they start there ignore it, which is given back at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt:
        signal.raise_signal(first)
        assert interrupt.pending
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupt.pending = False
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize(("minutes", "saved"), [(None, [12]), (0.1, [6, 12]), (0.05, [3, 6, 9, 12]), (2, [12])])
def test_a_training_is_saved_by_the_clock(tmp_path, monkeypatch, minutes, saved):
    """A second passes with every step; the last one is saved anyway."""
    steps, plain = [], run(steps=12)[0]
    real, advance = TrainingState.save, TrainingState.advance
    clock = SimpleNamespace(now=0.0)

    def save(state, path):
        steps.append(state.step)
        real(state, path)

    def tick(state):
        clock.now += 1.0
        advance(state)

    monkeypatch.setattr(TrainingState, "save", save)
    monkeypatch.setattr(TrainingState, "advance", tick)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock.now))
    timed, history = run(steps=12, run=Run(tmp_path, save_minutes=minutes))
    assert steps == saved
    assert torch.equal(weights(timed), weights(plain))
    assert len(history) == 12


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan")])
def test_impossible_minutes_are_refused(minutes):
    with pytest.raises((ValueError, TypeError), match="save_minutes"):
        Run(save_minutes=minutes)


FORKED = """
import os, signal, time
from cellflow.training.run import Interrupt
reads, writes = os.pipe()
with Interrupt():
    child = os.fork()
    if child == 0:
        os.write(writes, b"!")
        time.sleep(60)
        os._exit(1)
    os.read(reads, 1)
    os.kill(child, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def test_a_child_that_was_forked_inside_ends_as_it_is_told():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(int(signal.SIGTERM))], done.stderr


def test_a_handler_of_ones_own_is_left_where_it_is():
    got, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *given: got.append(given))
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGTERM)
            assert not interrupt.pending
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(got) == 1
