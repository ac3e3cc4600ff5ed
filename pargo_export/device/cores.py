"""How many CPU cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["count_usable_cores"]

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def count_usable_cores() -> int:
    """Physical cores that the affinity mask allows, within the CPU limit of the container; at least 1.

    Two hardware threads of one core count once: matrix products gain nothing from the second.
    """
    cores = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _container_limit()))


def _siblings(cpu: int) -> str:
    """Name of the physical core of a logical CPU."""
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _container_limit() -> int:
    """CPUs that a cgroup (version 2) grants, rounded up."""
    try:
        quota, period = _CGROUP_LIMIT.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup, another version of it, or "max": no limit
        return len(os.sched_getaffinity(0))
