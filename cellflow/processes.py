"""Several processes that train together, one for each device: torchrun or SLURM starts them, Fabric joins them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""What torchrun tells every process that it starts."""
SRUN = "SLURM_STEP_NUM_TASKS"
"""What srun tells them; a batch script, which is one process whatever it asked for, does not have it."""
LONGEST_WAIT = timedelta(days=1)
"""How long processes wait for each other, as for a plan that the first one solves: torchrun notices those that died."""


@dataclass(frozen=True)
class Started:
    """Processes that were started together.

    Parameters
    ----------
    rank
        Which of them this one is, from 0.
    size, local
        How many there are, and how many on this machine.
    by
        What started them: ``"torchrun"`` or ``"srun"``.
    """

    rank: int
    size: int
    local: int
    by: str

    @property
    def machines(self) -> int:
        """How many machines they run on."""
        return self.size // self.local


def started(told: Mapping[str, str] | None = None) -> Started | None:
    """Return how many processes were started together with this one; ``None`` for a single process.

    Parameters
    ----------
    told
        Environment variables; by default those of this process.

    Raises
    ------
    ValueError
        When the variables announce several processes but say too little to join them.

    Examples
    --------
    >>> torchrun = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    >>> started(torchrun)
    Started(rank=3, size=4, local=2, by='torchrun')
    >>> started({"WORLD_SIZE": "4"})
    Traceback (most recent call last):
    ...
    ValueError: WORLD_SIZE=4 announces 4 processes, which torchrun did not start. Put `torchrun...
    """
    told = os.environ if told is None else told
    if TORCHRUN in told:
        found = _read(told, "torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif SRUN in told and told[SRUN] != "1":
        if "SLURM_NTASKS_PER_NODE" not in told:
            raise ValueError(
                f"srun started {told[SRUN]} processes, and does not say how many on each machine. Ask for them with "
                "`--ntasks-per-node`, in place of `--ntasks`."
            )
        found = _read(told, "srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
    elif told.get("WORLD_SIZE", "1") != "1":
        size = told["WORLD_SIZE"]
        raise ValueError(
            f"WORLD_SIZE={size} announces {size} processes, which torchrun did not start. Put `torchrun "
            f"--nproc-per-node={size} -m` before `cellflow`, or your script in place of `-m cellflow`; or unset "
            "WORLD_SIZE to train with one."
        )
    else:
        return None
    return found if found.size > 1 else None


def joined(
    devices: int | str,
    *,
    machines: int | None = None,
    device: "str | torch.device" = "auto",
    precision: Any = "32-true",
) -> "Fabric | None":
    """Join the processes that were started with this one; return ``None`` for a single process.

    Parameters
    ----------
    devices
        Processes on each machine, one for each device: ``"auto"`` for as many as were started.
    machines
        Number of machines; ``None`` for as many as there are.
    device
        Kind of device of which each process takes one: ``"cpu"``, ``"cuda"``, or ``"auto"`` for GPUs if there are any.
    precision
        As Fabric calls it.

    Raises
    ------
    ValueError
        When other numbers of processes were started, or there are too few devices for them.

    Examples
    --------
    >>> joined("auto") is None
    True
    >>> joined(4)
    Traceback (most recent call last):
    ...
    ValueError: Expected a process for each of devices=4; found one process. Put `torchrun --nproc-per-node=4 -m`...
    """
    found = started()
    if found is None:
        if devices in ("auto", 1) and machines in (None, 1):
            return None
        raise ValueError(_alone(devices, machines))
    if devices not in ("auto", found.local) or machines not in (None, found.machines):
        asked = f"devices={devices}" + ("" if machines is None else f" on num_nodes={machines}")
        raise ValueError(
            f"Expected {asked}; {found.by} started {found.local} processes on each of {found.machines} machine(s). "
            f"Leave the numbers out, or start as many."
        )
    kind = accelerator(device, found)
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    fabric = Fabric(
        accelerator=kind,
        devices=found.local,
        num_nodes=found.machines,
        strategy=DDPStrategy(timeout=LONGEST_WAIT),
        precision=precision,
        plugins=[TorchElasticEnvironment() if found.by == "torchrun" else SLURMEnvironment(auto_requeue=False)],
    )
    fabric.launch()
    return fabric


def accelerator(device: "str | torch.device", found: Started) -> str:
    """Return the kind of device of which each process takes one: ``"cuda"`` or ``"cpu"``.

    Raises
    ------
    ValueError
        When several processes cannot share this kind of device, or there are too few devices.

    Examples
    --------
    >>> accelerator("cuda:1", Started(rank=0, size=2, local=2, by="torchrun"))
    Traceback (most recent call last):
    ...
    ValueError: Expected `device` as 'cuda', 'cpu' or 'auto' for 2 processes, one device each; found 'cuda:1'.
    """
    import torch

    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cuda", "cpu"):
        raise ValueError(
            f"Expected `device` as 'cuda', 'cpu' or 'auto' for {found.size} processes, one device each; found {name!r}."
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"No GPU is available for `device={device!r}`. Use 'cpu' or 'auto'.")
    if name == "cuda" and torch.cuda.device_count() < found.local:
        there = torch.cuda.device_count()
        more = (
            f"`torchrun --nproc-per-node={there}`" if found.by == "torchrun" else "GPUs of the machine, not of a task"
        )
        raise ValueError(
            f"Expected a GPU for each of {found.local} processes on this machine; found {there}. Ask for {more}, or "
            "use `device='cpu'`."
        )
    return name


def rank() -> int:
    """Return the rank of this process among those that were started together; 0 if unknown.

    Examples
    --------
    >>> rank()
    0
    """
    try:
        found = started()
    except ValueError:  # said where they are to be joined
        return 0
    return 0 if found is None else found.rank


def _read(told: Mapping[str, str], by: str, *names: str) -> Started:
    try:
        rank, size, local = (int(told[name]) for name in names)
    except (KeyError, ValueError):
        shown = ", ".join(f"{name}={told.get(name, '(not set)')}" for name in names)
        raise ValueError(
            f"Expected the numbers that {by} tells its processes; found {shown}. Start with {by}."
        ) from None
    if not (0 <= rank < size and 1 <= local <= size and size % local == 0):
        raise ValueError(
            f"Expected as many processes on each machine; found {by}'s process {rank} of {size}, of which {local} are "
            "on this machine. Start the same number everywhere."
        )
    return Started(rank, size, local, by)


def _alone(devices: int | str, machines: int | None) -> str:
    each = 1 if devices == "auto" else devices
    asked = f"devices={each}" + ("" if machines is None else f" on each of num_nodes={machines}")
    nodes = "" if machines in (None, 1) else f"--nnodes={machines} "
    return (
        f"Expected a process for each of {asked}; found one process. Put `torchrun {nodes}--nproc-per-node={each} -m` "
        "before `cellflow`, or your script in place of `-m cellflow`."
    )
