"""Find out whether CUDA can be used, without printing and without loading a graph."""

from __future__ import annotations

import contextlib
import ctypes
import io
from types import ModuleType

__all__ = ["find_driver_obstacle", "preload_cuda_libraries"]

_DRIVER = "libcuda.so.1"


def find_driver_obstacle() -> str | None:
    """Return why no CUDA GPU can be used by this process; `None` if there is one."""
    try:
        driver = ctypes.CDLL(_DRIVER)
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
