"""Whether something else than the benchmark used the machine, or slowed it down."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pargo_export.device import cpufreq, jetson_state
from pargo_export.device.files import read_text
from pargo_export.device.machine import detect_jetson

__all__ = ["Snapshot", "find_noise", "measure_other_load", "take_snapshot"]

_STEAL = 7  # field of /proc/stat: time that the hypervisor gave to others
_IDLE = (3, 4)  # idle, waiting for a disk

_MAX_LOAD = 0.3  # load by core before the begin
_MAX_OTHERS = 0.05  # share of the CPU time: above that, medians move
_MAX_STEAL = 0.01


@dataclass(frozen=True)
class Snapshot:
    """Counters of the machine at one moment; ticks are those of the kernel, mostly 1/100 s.

    Attributes:
        num_cores: Logical cores that are on.
        load_average: Of the last minute; `None` if unknown.
        total_ticks: Time of all cores together.
        busy_ticks: Of it, what was not idle.
        steal_ticks: Of it, what the hypervisor gave to others.
        own_ticks: CPU time of the benchmark and the processes that it started.
        swapped_pages: Pages that came back from swap.
        quota_pauses: How often the CPU limit of the container paused it; `None` without one.
        heat_events: How often heat lowered the clocks; `None` if unknown.
        governor: Frequency governor; `None` if unknown.
        has_fixed_clocks: On a Jetson, whether `jetson_clocks` is in force; `None` elsewhere.
    """

    num_cores: int
    load_average: float | None
    total_ticks: int
    busy_ticks: int
    steal_ticks: int
    own_ticks: int
    swapped_pages: int
    quota_pauses: int | None
    heat_events: int | None
    governor: str | None
    has_fixed_clocks: bool | None


def take_snapshot(root: Path = Path("/"), pid: int | None = None) -> Snapshot:
    """Read the counters.

    Args:
        root: Where `/proc` and `/sys` are.
        pid: The process that the benchmark began with; by default this one.
    """
    stat = read_text(root / "proc/stat")
    cpu = re.search(r"^cpu +(.*)$", stat, re.MULTILINE)
    # user, nice, system, idle, iowait, irq, softirq, steal; guests after that are within user.
    ticks = [int(word) for word in cpu[1].split()[:8]] if cpu else []
    ticks += [0] * (8 - len(ticks))
    load = read_text(root / "proc/loadavg").split()
    pauses = re.search(r"^nr_throttled (\d+)", read_text(root / "sys/fs/cgroup/cpu.stat"), re.MULTILINE)
    swapped = re.search(r"^pswpin (\d+)", read_text(root / "proc/vmstat"), re.MULTILINE)
    is_jetson = detect_jetson(root) is not None
    return Snapshot(
        num_cores=max(1, len(re.findall(r"^cpu\d", stat, re.MULTILINE))),
        load_average=float(load[0]) if load else None,
        total_ticks=sum(ticks),
        busy_ticks=sum(ticks) - sum(ticks[field] for field in _IDLE),
        steal_ticks=ticks[_STEAL],
        own_ticks=_count_own_ticks(root, os.getpid() if pid is None else pid),
        swapped_pages=int(swapped[1]) if swapped else 0,
        quota_pauses=int(pauses[1]) if pauses else None,
        heat_events=cpufreq.count_throttling(root),
        governor=cpufreq.read_governor(root),
        has_fixed_clocks=jetson_state.has_fixed_clocks(root) if is_jetson else None,
    )


def find_noise(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what makes times doubtful that were taken between two snapshots, for people."""
    return [*_find_settings(before), *_find_load(before, after), *_find_events(before, after)]


def measure_other_load(before: Snapshot, after: Snapshot) -> float | None:
    """Return the share of the CPU time that others used between two snapshots; `None` if no time passed."""
    if after.total_ticks <= before.total_ticks:
        return None
    return min(1.0, max(0.0, sum(_share_ticks(before, after))))


def _share_ticks(before: Snapshot, after: Snapshot) -> tuple[float, float]:
    """Return the shares of the CPU time of other processes and of other virtual machines."""
    total = max(1, after.total_ticks - before.total_ticks)
    steal = after.steal_ticks - before.steal_ticks
    others = (after.busy_ticks - before.busy_ticks) - steal - (after.own_ticks - before.own_ticks)
    return others / total, steal / total


def _find_settings(before: Snapshot) -> Iterator[str]:
    if before.has_fixed_clocks is False:
        yield "the clocks of the Jetson follow the load: `sudo jetson_clocks` fixes them"
    elif before.has_fixed_clocks is None and before.governor not in {None, "performance"}:
        yield (
            f"the frequency governor is {before.governor}, clocks follow the load: "
            "`sudo cpupower frequency-set -g performance` fixes them"
        )


def _find_load(before: Snapshot, after: Snapshot) -> Iterator[str]:
    if before.load_average is not None and before.load_average > _MAX_LOAD * before.num_cores:
        yield (
            f"the load average was {before.load_average:.2f} on {before.num_cores} cores when the benchmark began: "
            "something else was running"
        )
    others, steal = _share_ticks(before, after)
    if others > _MAX_OTHERS:
        yield f"other processes used {others:.0%} of the CPU time meanwhile"
    if steal > _MAX_STEAL:
        yield f"the hypervisor gave {steal:.0%} of the CPU time to other machines"


def _find_events(before: Snapshot, after: Snapshot) -> Iterator[str]:
    if after.swapped_pages > before.swapped_pages:
        yield f"{after.swapped_pages - before.swapped_pages} pages of memory came back from swap meanwhile"
    pauses = (after.quota_pauses or 0) - (before.quota_pauses or 0)
    if pauses > 0:
        yield f"the CPU limit of the container paused its processes {pauses} times"
    heat = (after.heat_events or 0) - (before.heat_events or 0)
    if heat > 0:
        yield f"heat lowered the clocks of the CPU {heat} times"


def _count_own_ticks(root: Path, pid: int) -> int:
    """CPU time of a process and its descendants, those included that have ended and were waited for."""
    times: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in (root / "proc").glob("[0-9]*"):
        # After the name, which may hold anything: state, parent, ...; 11 to 14 are the times, own and of children.
        fields = read_text(folder / "stat").rpartition(")")[2].split()
        if len(fields) > 14:
            times[int(folder.name)] = sum(int(word) for word in fields[11:15])
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    total, waiting = 0, [pid]
    while waiting:
        process = waiting.pop()
        total += times.get(process, 0)
        waiting += children.get(process, [])
    return total
