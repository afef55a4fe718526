"""What a second is: of the processor on a CPU, which others may share; on the wall where a GPU does the work."""

import platform
import time
from collections.abc import Callable

import torch


def seconds_of(device: torch.device) -> Callable[[], float]:
    """Return a clock for work on a device.

    Examples
    --------
    >>> clock = seconds_of(torch.device("cpu"))
    >>> clock() <= clock()
    True
    """
    if device.type != "cuda":
        return time.process_time

    def wall() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return wall


def machine(device: torch.device) -> str:
    """Return what ran, for the record."""
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"one thread of an {platform.machine()} CPU"
    return f"{chip}, torch {torch.__version__}"
