"""Whether the process runs in a container or in a virtual machine."""

from __future__ import annotations

import re
from pathlib import Path

from pargo_export.device.files import read_text

__all__ = ["is_container", "is_virtual"]

_MARKS = (".dockerenv", "run/.containerenv", "run/systemd/container")
_CONTROL_GROUPS = re.compile(r"docker|kubepods|containerd|libpod|lxc|podman")


def is_container(root: Path = Path("/")) -> bool | None:
    """Return whether the process runs in a container; `None` if the files that would tell are missing."""
    if any((root / mark).exists() for mark in _MARKS):
        return True
    groups, mounts = read_text(root / "proc/1/cgroup"), read_text(root / "proc/self/mountinfo")
    if not groups and not mounts:
        return None
    has_layers = re.search(r"^\d+ \d+ \S+ / / .* - overlay ", mounts, re.MULTILINE) is not None
    return has_layers or _CONTROL_GROUPS.search(groups) is not None


def is_virtual(root: Path = Path("/")) -> bool | None:
    """Return whether a hypervisor runs below; `None` if unknown, as on Arm without one that says so."""
    flags = re.search(r"^flags\s*:(.*)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    if flags:
        return "hypervisor" in flags[1].split()
    return True if read_text(root / "sys/hypervisor/type") else None
