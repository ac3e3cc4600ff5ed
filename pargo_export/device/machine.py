"""The machine: operating system, processor, memory, and whether it is a Jetson.

Everything is read from files of Linux; what a machine does not tell is left empty.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from pargo_export.device.cores import count_usable_cores
from pargo_export.device.files import read_text

__all__ = ["Cpu", "Jetson", "Machine", "detect_jetson", "detect_machine"]

# What decides how fast ONNX Runtime and OpenVINO are: vector width, dot products of 8-bit integers, matrix units.
_FEATURES = (
    ("avx2", "avx2"),
    ("avx512f", "avx512"),
    ("avx_vnni", "avx_vnni"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx512_bf16", "avx512_bf16"),
    ("avx512_fp16", "avx512_fp16"),
    ("amx_int8", "amx_int8"),
    ("amx_bf16", "amx_bf16"),
    ("asimd", "neon"),
    ("asimdhp", "fp16"),
    ("asimddp", "dotprod"),
    ("i8mm", "i8mm"),
    ("bf16", "bf16"),
    ("sve", "sve"),
)


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        model: Its name; empty if it does not say.
        num_usable_cores: Physical cores that this process may use.
        num_logical_cores: Logical cores of the machine.
        features: Instruction sets that matter here, for example `("avx2", "avx512_vnni")`.
    """

    model: str
    num_usable_cores: int
    num_logical_cores: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Jetson:
    """An NVIDIA Jetson.

    Attributes:
        model: For example `"NVIDIA Jetson AGX Orin Developer Kit"`; empty if unknown.
        l4t: Release of Jetson Linux, for example `"36.4.3"`; empty if unknown.
    """

    model: str
    l4t: str


@dataclass(frozen=True)
class Machine:
    """The machine.

    Attributes:
        platform: For example `"Linux 6.8 x86_64, glibc 2.39"`.
        python: Version of this interpreter.
        cpu: The processor.
        memory_bytes: Memory of the machine, or what its container may use; 0 if unknown.
        jetson: What kind of Jetson it is; `None` if it is none.
    """

    platform: str
    python: str
    cpu: Cpu
    memory_bytes: int
    jetson: Jetson | None


def detect_machine(root: Path = Path("/")) -> Machine:
    """Describe this machine; `root` is where `/proc`, `/sys` and `/etc` are."""
    libc = " ".join(platform.libc_ver())
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Machine(
        platform=f"{system}, {libc}" if libc.strip() else system,
        python=platform.python_version(),
        cpu=_detect_cpu(read_text(root / "proc/cpuinfo")),
        memory_bytes=_detect_memory(root),
        jetson=detect_jetson(root),
    )


def detect_jetson(root: Path = Path("/")) -> Jetson | None:
    """Describe the Jetson; `None` if the machine is none."""
    release = read_text(root / "etc/nv_tegra_release")  # "# R36 (release), REVISION: 4.3, ..."
    model = read_text(root / "proc/device-tree/model")
    if not release and "jetson" not in model.lower():
        return None
    match = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", release)
    return Jetson(model, f"{match[1]}.{match[2]}" if match else "")


def _detect_cpu(cpuinfo: str) -> Cpu:
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())  # the first core speaks for all
    known = set((fields.get("flags") or fields.get("Features") or "").split())
    return Cpu(
        model=fields.get("model name", ""),
        num_usable_cores=count_usable_cores(),
        num_logical_cores=os.cpu_count() or 1,
        features=tuple(word for flag, word in _FEATURES if flag in known),
    )


def _detect_memory(root: Path) -> int:
    match = re.search(r"^MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    total = 1024 * int(match[1]) if match else 0
    limit = read_text(root / "sys/fs/cgroup/memory.max")  # "max", or empty on cgroup version 1
    return min(total, int(limit)) if limit.isdecimal() else total
