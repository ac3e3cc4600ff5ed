"""Find out whether CUDA can be used, without printing, a framework or a graph."""

from __future__ import annotations

import contextlib
import ctypes
import io
from types import ModuleType
from typing import Any

__all__ = [
    "find_compute_capability",
    "find_driver_obstacle",
    "load_driver",
    "preload_cuda_libraries",
    "read_compute_capability",
]

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def load_driver() -> Any:
    """Load the library of the driver.

    Raises:
        OSError: There is none.
    """
    return ctypes.CDLL(_DRIVER)


def find_driver_obstacle() -> str | None:
    """Return why no CUDA GPU can be used by this process; `None` if there is one."""
    try:
        driver = load_driver()
    except OSError as error:
        return f"no NVIDIA driver is installed ({error})"
    count = ctypes.c_int(0)
    if status := driver.cuInit(0):
        return f"the NVIDIA driver finds no usable GPU (cuInit returned {status}); check nvidia-smi"
    if status := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver cannot count GPUs (cuDeviceGetCount returned {status}); check nvidia-smi"
    if not count.value:
        return "the NVIDIA driver sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None


def find_compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of GPU 0, for example `(8, 9)`; `None` if there is no GPU."""
    if find_driver_obstacle() is not None:
        return None
    driver, device = load_driver(), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    return read_compute_capability(driver, device)


def read_compute_capability(driver: Any, device: ctypes.c_int) -> tuple[int, int]:
    """Ask the initialised driver for the compute capability of a device handle."""
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return major.value, minor.value


def preload_cuda_libraries(onnxruntime: ModuleType) -> str:
    """Load CUDA and cuDNN from `nvidia-*` packages, where ONNX Runtime would not look by itself.

    Returns:
        What ONNX Runtime could not load, or an empty string.
    """
    if not hasattr(onnxruntime, "preload_dlls"):  # before 1.21
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints, and standard output belongs to results
        onnxruntime.preload_dlls()
    failures = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return "; ".join(failures)
