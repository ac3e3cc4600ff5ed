"""How the clocks of the CPU are governed, read from the files of Linux below `root`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pargo_export.device.files import read_int, read_text

__all__ = ["clocks_are_fixed", "count_throttling", "has_turbo", "read_clock_mhz", "read_governor"]

_CPUS = "sys/devices/system/cpu"


def read_governor(root: Path = Path("/")) -> str | None:
    """Return the frequency governor, several joined by a comma; `None` if the machine does not tell."""
    found = {read_text(policy / "scaling_governor") for policy in _policies(root)} - {""}
    return ", ".join(sorted(found)) or None


def has_turbo(root: Path = Path("/")) -> bool | None:
    """Return whether the CPU may exceed its base clock; `None` if the machine does not tell."""
    switched_off = read_int(root / _CPUS / "intel_pstate/no_turbo")
    if switched_off is not None:
        return switched_off == 0
    boost = read_int(root / _CPUS / "cpufreq/boost")
    return None if boost is None else boost == 1


def read_clock_mhz(root: Path = Path("/")) -> float | None:
    """Return the mean clock of the cores that are on, MHz; `None` if the machine does not tell.

    A virtual machine without `cpufreq` does not: its `/proc/cpuinfo` shows a constant.
    """
    clocks = [_khz(policy, "cur") for policy in _policies(root)]
    known = [clock / 1000 for clock in clocks if clock is not None]
    if not known and not _is_virtual(root):
        known = list(_listed_clocks(root))
    return sum(known) / len(known) if known else None


def clocks_are_fixed(root: Path = Path("/")) -> bool | None:
    """Return whether every core has one clock that it may run at; `None` if the machine does not tell."""
    limits = [(_khz(policy, "min"), _khz(policy, "max")) for policy in _policies(root)]
    known = [(low, high) for low, high in limits if low is not None and high is not None]
    return all(low == high for low, high in known) if known else None


def count_throttling(root: Path = Path("/")) -> int | None:
    """Return how often x86 cores were slowed down because of heat, since the start; `None` if unknown."""
    folders = sorted((root / _CPUS).glob("cpu[0-9]*/thermal_throttle"))
    counts = [read_int(folder / "core_throttle_count") for folder in folders]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _policies(root: Path) -> list[Path]:
    """Folders of the cores that are on: each core's own, so that a mean over them counts every core once."""
    return sorted((root / _CPUS).glob("cpu[0-9]*/cpufreq"))


def _khz(policy: Path, which: str) -> int | None:
    return read_int(policy / f"scaling_{which}_freq")


def _is_virtual(root: Path) -> bool:
    return " hypervisor" in read_text(root / "proc/cpuinfo")


def _listed_clocks(root: Path) -> Iterator[float]:
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz":
            yield float(value)
