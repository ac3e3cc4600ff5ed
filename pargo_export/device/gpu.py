"""NVIDIA GPUs, asked through the driver's own library: no framework, no subprocess, no CUDA context."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pargo_export.device.cuda_driver import load_driver, read_compute_capability

__all__ = ["MIN_CAPABILITY", "Driver", "Gpu", "detect_driver"]

# Compute capability from which NVIDIA GPUs multiply in a number format.
MIN_CAPABILITY = {"bfloat16": (8, 0), "fp8": (8, 9), "nvfp4": (10, 0)}
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: For example `"NVIDIA H100 80GB HBM3"`.
        compute_capability: For example `"8.7"` (Orin).
        memory_bytes: Its memory; on a Jetson the memory that it shares with the CPU.
    """

    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver.

    Attributes:
        version: For example `"570.86.15"`; empty if unknown.
        cuda: Newest CUDA that it runs, for example `"12.8"`; empty without a driver.
        gpus: The GPUs that this process may use.
        problem: Why there are none; empty if there are.
    """

    version: str
    cuda: str
    gpus: tuple[Gpu, ...]
    problem: str


def detect_driver(load: Callable[[], Any] = load_driver, kernel_module: Path = _KERNEL_MODULE) -> Driver:
    """Describe the driver and its GPUs; `load` and `kernel_module` are where it is."""
    version = _read_version(kernel_module)
    try:
        library = load()
    except OSError:
        return Driver(version, "", (), "no NVIDIA driver is installed")
    number = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if status := library.cuInit(0):
        return Driver(version, cuda, (), f"the driver finds no usable GPU (cuInit returned {status})")
    count = ctypes.c_int(0)
    library.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_describe(library, index) for index in range(count.value))
    problem = "" if gpus else "the driver shows no GPU; check CUDA_VISIBLE_DEVICES"
    return Driver(version, cuda, gpus, problem)


def _describe(library: Any, index: int) -> Gpu:
    device, memory = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = read_compute_capability(library, device)
    return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", memory.value)


def _read_version(kernel_module: Path) -> str:
    try:
        text = kernel_module.read_text("utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"\b(\d{3,}\.[\d.]+)\b", text)
    return match[1] if match else ""
