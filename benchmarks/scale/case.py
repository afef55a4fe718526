"""What is measured, and the watch that measures it."""

import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks import machine
from benchmarks.rows import Row, digest


@dataclass(frozen=True)
class Case:
    """One row of the table: a function, what it is given, and what is to be reached."""

    act: Callable[..., Mapping[str, Any] | None]
    """A function of the subject's file: ``act(watch, **settings)``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """As JSON; the same for all methods of a problem but for what makes the method."""
    problem: str = ""
    method: str = "cellflow"
    today: str = ""
    """What it took before, or takes others, as text."""
    reach: str = ""
    """The goal, as text."""
    threads: int = 1
    limit: float = 3600
    """Seconds after which the process is ended."""

    @property
    def key(self) -> Row:
        """Return what names the row."""
        return {"subject": self.act.__module__.rpartition(".")[2], "problem": self.problem, "method": self.method}

    @property
    def made(self) -> str:
        """Return letters that are others wherever the measurement is."""
        return digest((self.act.__module__, self.act.__qualname__, sorted(self.settings.items()), self.threads))


class Watch:
    """Measures what happens within ``with watch:`` once in a process: seconds, and the memory of the process.

    GiB are resident memory, pages of mapped files included: ``peak_gib`` of the whole process, ``above_gib`` what of
    that came after the beginning, and ``children_gib`` the largest child process that has ended.
    """

    def __init__(self) -> None:
        self.row: Row = {}
        self._cuda = torch.cuda.is_available()

    def __enter__(self) -> None:
        if self.row:
            raise RuntimeError("A process measures one thing: memory that a first one left would count for the next.")
        gc.collect()
        machine.reset_peak()
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._resident, self._cpu, self._wall = machine.resident_megabytes(), _cpu_seconds(), time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        seconds, cpu, peak = time.perf_counter() - self._wall, _cpu_seconds() - self._cpu, machine.peak_megabytes()
        self.row = {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "peak_gib": peak / 1024,
            "above_gib": (peak - self._resident) / 1024,
            "children_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _KIBIBYTES / 2**20,
            "device": torch.cuda.get_device_name() if self._cuda else "CPU",
            "device_gib": torch.cuda.max_memory_allocated() / 2**30 if self._cuda else None,
        }


_KIBIBYTES = 1024 if sys.platform == "darwin" else 1
"""What macOS counts in bytes, Linux counts in KiB."""


def _cpu_seconds() -> float:
    """Return the CPU seconds of the process and of its children that have ended."""
    return sum(os.times()[:4])
