"""What a command does for all processes that torchrun or SLURM started: it joins them and opens one folder."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cellflow.cli import runs
from cellflow.cli.built import new_folder
from cellflow.cli.settings import Settings
from cellflow.lock import locked
from cellflow.processes import joined, started
from cellflow.together import once, together
from cellflow.training.recipe import PRECISIONS

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

log = logging.getLogger("cellflow")


def join(cfg: Settings) -> "Fabric | None":
    """Join the processes that were started with this one, by the settings; return ``None`` for a single process.

    Raises
    ------
    ValueError
        When other numbers of processes were started, or there are too few devices for them.
    """
    precision = PRECISIONS[str(cfg.recipe.precision)]
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it says at length that processes were joined
    fabric = joined(cfg.devices, device=cfg.device, precision=precision)
    if fabric is not None:
        log.info("%d processes train together, each on its own batch in every step", fabric.world_size)
    return fabric


@contextmanager
def run_folder(cfg: Settings, command: str, fabric: "Fabric | None" = None) -> Iterator[Path]:
    """Open the folder of a new or resumed run: the first process does this for all, and keeps others out.

    Its name is written into the settings too. If nothing was saved, nothing is left behind.

    Raises
    ------
    FileExistsError, CheckpointError, ValueError, OSError
        In all processes, when the folder cannot be opened, is in use, or holds a run with other settings.
    """
    with ExitStack() as stack:

        def opened() -> str:
            folder = new_folder(cfg, command)
            stack.enter_context(runs.tidied(folder))
            stack.enter_context(locked(folder))
            return str(folder)

        with together(fabric):
            cfg.out = once(opened)
        if fabric is not None:
            log.info("to resume after an interruption, add `out=%s resume=true` to the command", shlex.quote(cfg.out))
        yield Path(cfg.out)


@contextmanager
def held(folder: Path, fabric: "Fabric | None") -> Iterator[None]:
    """Keep others out of the folder of a finished run; the first process does it for all.

    Raises
    ------
    CheckpointError, OSError
        In all processes, when it is in use, or cannot be written to.
    """
    with ExitStack() as stack:
        with together(fabric):
            once(lambda: stack.enter_context(locked(folder)))
        yield


def device_of(model: "nn.Module", fabric: "Fabric | None") -> str:
    """Say where a model was trained.

    Examples
    --------
    >>> from torch import nn
    >>> device_of(nn.Linear(1, 1), None)
    'cpu'
    """
    device = str(next(model.parameters()).device)
    if fabric is None:
        return device
    return f"{device.partition(':')[0]} x {fabric.world_size} processes, each with batch_size in every step"


def launcher() -> list[str]:
    """Return the words that started ``cellflow``: for one process, or for several.

    Examples
    --------
    >>> launcher()
    ['cellflow']
    """
    found = started()
    if found is None:
        return ["cellflow"]
    if found.by == "srun":
        return ["srun", "python", "-m", "cellflow"]
    nodes = [f"--nnodes={found.machines}"] if found.machines > 1 else []
    return ["torchrun", *nodes, f"--nproc-per-node={found.local}", "-m", "cellflow"]
