"""Processes that are killed at a chosen write, or that may not write: run by the tests of crashes."""

import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from itertools import count
from multiprocessing import get_context
from pathlib import Path

WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link"}
"""Events of the interpreter that change a folder, beside opening a file to write."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CAPABILITIES, OVERRIDE = 0x20080522, 1
"""Version of Linux' capabilities, and the bit of the one by which root writes to what is read-only."""

SETS = ctypes.c_uint32 * 6  # effective, permitted and inheritable ones, twice

# A server imports everything once and then forks, so that each process costs milliseconds.
context = get_context("forkserver")
LATER = ["ot", "filelock", "safetensors.torch", "hydra"]
"""What a fit or a command imports when it is needed, which would otherwise take most of the time of each process."""
context.set_forkserver_preload(
    ["cellflow", "cellflow.estimators", "cellflow.cli", "lightning_fabric", "crashing", *LATER]
)


def start(task, *arguments):
    """Start a function of a module in a process of its own."""
    child = context.Process(target=task, args=arguments)
    child.start()
    return child


def run(task, *arguments):
    """Run a function of a module in a process of its own, and return its exit code, negative for a signal."""
    child = start(task, *arguments)
    child.join(300)
    assert child.exitcode is not None, f"{task.__name__} hangs"
    return child.exitcode


def killed_at(write, folder, task, *arguments):
    """Run a function, and kill the process just before its write of that number to a folder, counted from 0."""
    seen = 0

    def look(event, args):
        nonlocal seen
        if event in WRITES or (event == "open" and args[2] & WRITING):
            if not str(args[0]).startswith(str(folder)):
                return
            if seen == write:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(look)
    task(*arguments)


def kills(folder, task, *arguments, before=None, every=1):
    """Kill a task at its first write to a folder, and so on; yield after each, until it gets through."""
    ours, theirs = context.Pipe()
    driver = start(_drive, theirs, folder, task, *arguments)
    theirs.close()
    try:
        for write in count(0, every):
            if before is not None:
                before()
            ours.send(write)
            assert ours.poll(300), f"{task.__name__} hangs at write {write}"
            code = ours.recv()
            assert code in (0, -signal.SIGKILL), f"{task.__name__} failed by itself, at write {write}"
            yield write
            if code == 0:
                return
    finally:
        ours.send(None)
        driver.join(10)


def _drive(pipe, folder, task, *arguments):
    """Run the task once for each number that comes, in a fork that is killed there; send its exit code back."""
    while (write := pipe.recv()) is not None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                killed_at(write, folder, task, *arguments)
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def said(hinder, *arguments):
    """Run ``hinder`` in a process of its own; return the class and the text of the error that it ends with."""
    ours, theirs = context.Pipe()
    child = start(_tell, theirs, hinder, *arguments)
    theirs.close()
    assert ours.poll(300), "no answer"
    found = ours.recv()
    child.join()
    return found


def _tell(pipe, hinder, *arguments):
    try:
        hinder(*arguments)
    except Exception as error:  # noqa: BLE001  whichever it is, the test says what it should be
        pipe.send((type(error).__name__, str(error)))
    else:
        pipe.send(("nothing", ""))


def on_a_full_disk(task, *arguments, size=3000):
    """Run a function that can write no file of more bytes than ``size``."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    task(*arguments)


def without_rights(task, *arguments):
    """Run a function that may not write to what is read-only, as root otherwise may."""
    if os.geteuid() == 0:
        system, header, sets = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(CAPABILITIES, 0), SETS()
        assert system.capget(header, sets) == 0
        sets[0] &= ~(1 << OVERRIDE)
        assert system.capset(header, sets) == 0
    task(*arguments)


def wait_for(path, child):
    """Wait until a file is there."""
    for _ in range(30_000):  # soon: a training goes on meanwhile
        if Path(path).exists():
            return
        assert child.exitcode is None, f"ended with {child.exitcode} before {path} was there"
        time.sleep(0.005)
    raise AssertionError(f"no {path}")
