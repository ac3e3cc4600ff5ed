"""Where the GPUs of this process are plugged in: the name that NVML knows them by."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from pargo_export.device.cuda_driver import load_driver

__all__ = ["find_pci_addresses"]

_LENGTH = 32


def find_pci_addresses(load: Callable[[], Any] = load_driver) -> tuple[str, ...]:
    """Return the PCI address of every GPU that the process may use, in the order of CUDA.

    NVML counts all GPUs of the machine; CUDA leaves out what `CUDA_VISIBLE_DEVICES` hides, and sorts differently.
    """
    try:
        library = load()
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_address(library, index) for index in range(count.value))


def _address(library: Any, index: int) -> str:
    device, text = ctypes.c_int(0), ctypes.create_string_buffer(_LENGTH)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetPCIBusId(text, _LENGTH, device)
    return text.value.decode(errors="replace")
