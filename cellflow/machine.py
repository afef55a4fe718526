"""What this process may use of its machine: cores and memory, as far as its container and its affinity allow."""

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of control groups, which containers and schedulers set."""
OWN_GROUPS = Path("/proc/self/cgroup")
"""Where it shows those of this process."""


def usable_cores() -> int:
    """Return how many cores this process may use, at least 1.

    The smaller of its affinity (``taskset``, Slurm) and the quota of its control groups (``docker --cpus``,
    Kubernetes), rounded up. `os.cpu_count` counts all cores of the machine, of which a container may have two of 64.

    Examples
    --------
    >>> import os
    >>> 1 <= usable_cores() <= os.cpu_count()
    True
    """
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    return max(1, min([count, affinity, *_quotas()]))


def usable_memory() -> float:
    """Return how many bytes this process may use at most; infinity if unknown.

    Examples
    --------
    >>> usable_memory() > 2**20
    True
    """
    found = [int(text) for path in _files("memory.max", "memory.limit_in_bytes") if (text := _first(path)).isdigit()]
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(os.sysconf_names):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float(min(found, default=math.inf))


def _quotas() -> Iterator[int]:
    """Yield the limits of cores, of version 2 (``cpu.max``: quota and period, or "max") and of version 1."""
    for path in _files("cpu.max", "cpu.cfs_quota_us"):
        quota, *rest = _first(path).split()
        period = rest[0] if rest else _first(path.with_name("cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit() and int(period):
            yield math.ceil(int(quota) / int(period))


def _files(*names: str) -> tuple[Path, ...]:
    """Return the files of these names in all control groups of this process, and in those that hold them."""
    return _present(OWN_GROUPS.read_text(), GROUPS, names) if OWN_GROUPS.is_file() else ()


@cache
def _present(own: str, groups: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    """Return those that are there, looked for once: every fit asks several times, and a group keeps its files."""
    found: list[Path] = []
    for line in own.splitlines():
        _, controllers, inside = line.split(":", 2)
        for place in (groups / controllers, groups):
            group = place / inside.strip("/")
            for folder in (group, *group.parents):
                if folder != groups.parent and folder.is_relative_to(groups):
                    found += [folder / name for name in names if (folder / name).is_file()]
    return tuple(found)


def _first(path: Path) -> str:
    """Return the first line of a file, "max" where there is nothing in it or it may not be read."""
    if not os.access(path, os.R_OK):
        return "max"
    return (path.read_text().splitlines() or ["max"])[0].strip() or "max"
