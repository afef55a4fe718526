"""Two processes that train an image U-Net together, one thread each, beside one: batches are of each process.

Images a second, in turns of one and two processes, and how many times as many two train: the median over the turns, and
the lowest and highest of them. The time to start is not counted.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch
from cellflow.training import Run


def ranks(watch: Watch, *, processes: int, side: int, width: int, batch: int, steps: int, turns: int) -> Row:
    """Train with one process and with several in turn."""
    settings = {"side": side, "width": width, "batch": batch, "steps": steps}
    with watch:
        speeds = [[_speed(n, settings) for n in (1, processes)] for _ in range(turns)]
    ratios = [many / one for one, many in speeds]
    return {
        "images_a_second_of_one": statistics.median(one for one, _ in speeds),
        "images_a_second_of_all": statistics.median(many for _, many in speeds),
        "times": statistics.median(ratios),
        "times_low": min(ratios),
        "times_high": max(ratios),
    }


def train(out: str, settings: str) -> None:
    """Train in this process, with those that torchrun started with it, and write how many images all take a second."""
    asked, rng = json.loads(settings), cf.generator(seed=0)
    torch.set_num_threads(1)
    side, batch, steps = asked["side"], asked["batch"], asked["steps"]
    x0, x1 = (torch.randn(256, 3, side, side, generator=rng) for _ in range(2))
    field = cf.networks.UNet(channels=3, width=asked["width"], multipliers=(1, 2, 2))
    batches = cf.pairing.paired_batches(x0, x1, coupling="independent", batch_size=batch, generator=rng)
    run = Run(devices="auto", progress=False).joined(device="cpu")
    objective = cf.objectives.VelocityMatching()
    cf.training.fit(field, objective, batches, steps=WARM, generator=rng, run=run)
    if run.fabric is not None:
        run.fabric.barrier()
    start = time.perf_counter()
    cf.training.fit(field, objective, batches, steps=steps, generator=rng, run=run)
    seconds = time.perf_counter() - start
    if run.leads:
        size = 1 if run.fabric is None else run.fabric.world_size
        Path(out).write_text(json.dumps(size * batch * steps / seconds))


WARM = 3
"""Steps before the clock starts."""


def _speed(processes: int, settings: dict[str, int]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "speed.json"
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(torchrun if processes > 1 else []), "-m", __name__, str(out), json.dumps(settings)]
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        speed: float = json.loads(out.read_text())
    return speed


SMALL = {"processes": 2, "side": 8, "width": 8, "batch": 4, "steps": 3, "turns": 1}
FULL = {"processes": 2, "side": 32, "width": 32, "batch": 32, "steps": 20, "turns": 3}
CASES = {
    "small": [Case(ranks, SMALL, "U-Net, 3 x 8 x 8")],
    "full": [Case(ranks, FULL, "U-Net, 3 x 32 x 32", today="not run", reach="two: 1.6 times one or more")],
}

if __name__ == "__main__":
    train(*sys.argv[1:])
