"""Many fits and resumes in one process: memory, threads and open files are afterwards what they were.

``python -m tests.soak`` prints how much memory each further fit kept, and fails above `MOST_KEPT`.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

import cellflow as cf
from conftest import make_cells

FITS, RESUMES = 200, 50
WARM = 0.25
"""Share of the repeats in which caches fill; memory is followed after it."""
MOST_KEPT = 32.0
"""Kibibytes that each further fit or resume may keep on average: below what one copy of a small network takes. What is
measured rises and falls by some pages as the allocator sees fit."""


def main() -> int:
    """Run both, print the figures, and return how many of them are out of bounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--fits", type=int, default=FITS)
    parser.add_argument("--resumes", type=int, default=RESUMES)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    adata = make_cells(sizes=(40, 60, 50))
    return repeated("fits", asked.fits, lambda: fitted(adata)) + repeated("resumes", asked.resumes, resumed)


def fitted(adata: object) -> None:
    """Fit, and ask for what threads and figures work for."""
    flow = cf.SnapshotFlow(time_key="day", steps=5, batch_size=16, device="cpu").fit(adata)
    flow.transport(adata.obsm["X_pca"], start=0, stop=5, solver=2)  # type: ignore[attr-defined]


class StoppedError(Exception):
    """Stands for whatever interrupts a training."""


def resumed() -> None:
    """Interrupt a training between two saves, and resume it to its end."""
    adata = make_cells(sizes=(40, 60, 50))
    flow = cf.SnapshotFlow(time_key="day", steps=9, batch_size=16, device="cpu")

    def stop(seen: object) -> None:
        raise StoppedError

    with tempfile.TemporaryDirectory() as folder:
        try:
            flow.fit(adata, run=cf.Run(folder, save_every=3, watch=stop, watch_every=5))
        except StoppedError:
            pass
        else:
            raise AssertionError("the training was not interrupted")
        flow.fit(adata, run=cf.Run(folder, resume=True, save_every=3))
        if len(flow.history_) != 9:
            raise AssertionError(f"resumed to {len(flow.history_)} steps")


def repeated(kind: str, times: int, once: object) -> int:
    """Repeat, follow memory, threads and files; print the figures and return how many are out of bounds."""
    start, seen, first, before = time.monotonic(), [], None, threading.active_count()
    for k in range(times):
        once()  # type: ignore[operator]
        if first is None and k >= WARM * times:
            first = open_files()
        seen.append(resident())
    kept = slope(seen[int(WARM * times) :])
    files, threads = open_files() - (first or open_files()), threading.active_count() - before
    said = {
        f"{kept:.1f} KiB kept by each, at most {MOST_KEPT:.0f}": kept > MOST_KEPT,
        f"{files:+d} open files": files > 0,
        f"{threads:+d} threads": threads > 0,
    }
    print(
        f"{times} {kind} in {time.monotonic() - start:.0f} s, {seen[-1] / 1024:.0f} MiB: {', '.join(said)}", flush=True
    )
    return sum(said.values())


def resident() -> float:
    """Return the memory of this process, in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.0


def open_files() -> int:
    """Return how many files this process holds open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def slope(values: list[float]) -> float:
    """Return the least-squares slope of values over their number."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 2 else 0.0


if __name__ == "__main__":
    sys.exit(main())
