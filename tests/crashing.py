"""Processes that kill themselves at a chosen write, or may not write: run by the tests of crashes."""

import os
import signal
import sys
from itertools import count
from multiprocessing import get_context

WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link"}
"""Events of the interpreter that change a folder, beside opening a file to write."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

# A server imports everything once and then forks, so that each process costs milliseconds.
context = get_context("forkserver")
context.set_forkserver_preload(["cellflow", "cellflow.estimators", "cellflow.cli", "lightning_fabric", "crashing"])


def run(task, *arguments):
    """Run a function of a module in a process of its own, and return its exit code, negative for a signal."""
    child = context.Process(target=task, args=arguments)
    child.start()
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


def kills(folder, task, *arguments, before=None):
    """Kill a task at its first write to a folder, at its second, and so on; yield after each, until it gets through."""
    for write in count():
        if before is not None:
            before()
        code = run(killed_at, write, folder, task, *arguments)
        assert code in (0, -signal.SIGKILL), f"{task.__name__} failed by itself, at write {write}"
        yield write
        if code == 0:
            return
