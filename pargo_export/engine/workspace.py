"""How much memory the builder's kernels may ask for."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path
from typing import Any

from pargo_export.device.cuda_driver import load_driver

__all__ = ["RESERVE_BYTES", "find_free_memory", "find_workspace"]

# Left free beside the workspace: weights and activations on a GPU of its own; on a Jetson, whose memory is shared,
# also the builder's copy of the weights in host memory.
RESERVE_BYTES = {"shared": 3 << 30, "own": 1 << 30}
_LARGEST_SHARE = 0.5  # of what is free, where that leaves more than the reserve
_SMALLEST = 256 << 20
_MEMINFO = Path("/proc/meminfo")


def find_workspace(*, shared: bool, free_bytes: int | None) -> int | None:
    """Return the limit for the workspace in bytes; `None`: unknown, leave TensorRT's default.

    The limit rules out kernels that need more; it takes no memory by itself. TensorRT's default is all of the GPU's
    memory, which on a Jetson is the memory of the whole machine (NVIDIA/TensorRT issue 4258).

    Args:
        shared: Whether GPU and CPU have one memory, as on a Jetson.
        free_bytes: Memory that is free now.
    """
    if free_bytes is None:
        return None
    reserve = RESERVE_BYTES["shared" if shared else "own"]
    beside_reserve = max(free_bytes - reserve, 0)
    share = int(free_bytes * _LARGEST_SHARE) if shared else beside_reserve
    return max(min(beside_reserve, share), _SMALLEST)


def find_free_memory(*, shared: bool, meminfo: Path = _MEMINFO) -> int | None:
    """Return the bytes that are free on GPU 0; `None` if that cannot be found out.

    Where memory is shared the kernel's estimate counts, for the driver does not count what caches would give back.
    """
    if not shared:
        return _ask_driver()
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text("utf-8"), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(match[1]) if match else None


def _ask_driver() -> int | None:
    try:
        driver = load_driver()
    except OSError:
        return None
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    # The primary context is the one that TensorRT will use; free memory is asked within a context.
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return None
    with contextlib.ExitStack() as stack:
        stack.callback(driver.cuDevicePrimaryCtxRelease_v2, device)
        return _free_in(driver, context)


def _free_in(driver: Any, context: ctypes.c_void_p) -> int | None:
    free, total, popped = ctypes.c_size_t(0), ctypes.c_size_t(0), ctypes.c_void_p()
    if driver.cuCtxPushCurrent_v2(context):
        return None
    status = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
    return None if status else free.value
