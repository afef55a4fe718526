"""What ran, for how long, and in how much memory."""

import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch


def fastest() -> torch.device:
    """Return the GPU where there is one, with TF32 in matrix products as convolutions have it by themselves."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        return torch.device("cuda")
    return torch.device("cpu")


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock: seconds of the processor, which others may share; on the wall where a GPU does the work."""
    return _wall if device.type == "cuda" else time.process_time


def _wall() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def name(device: torch.device) -> str:
    """Return what ran, for the record."""
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"one thread of an {platform.machine()} CPU"
    return f"{chip}, torch {torch.__version__}"


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text() if info.is_file() else "")
    return found[1] if found else platform.processor()


def reset_peak() -> None:
    """Count the peak of memory anew where the system allows it (Linux); elsewhere it is that since the start."""
    with suppress(OSError):  # not Linux, or not ours to reset
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """Return the most memory that this process held since the last reset; unlike getrusage, without the parent's."""
    status = Path("/proc/self/status")
    if status.is_file() and (peak := re.search(r"VmHWM:\s+(\d+)", status.read_text())):
        return int(peak[1]) / 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 2**20 if sys.platform == "darwin" else found / 1024


def resident_megabytes() -> float:
    """Return the memory that this process holds now; where only the peak is told (not Linux), the peak so far."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.is_file() else None
    return int(found[1]) / 1024 if found else peak_megabytes()
