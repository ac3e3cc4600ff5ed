"""Memory of the GPU, page-locked memory of the host, and the two together as an input or output."""

from __future__ import annotations

import contextlib
import ctypes
import math
from typing import Any

import numpy as np

from pargo_export.runtime.runner import Array
from pargo_export.runtime.tensorrt.gpu import Gpu
from pargo_export.signature import TensorSpec

__all__ = ["DeviceMemory", "HostMemory", "Port"]

_DEVICE_MAPPED = 2  # CU_MEMHOSTALLOC_DEVICEMAP: the GPU may read and write it in place


class DeviceMemory:
    """Memory of the GPU, aligned for whatever TensorRT wants. Make and close it while the GPU is active.

    Args:
        gpu: The GPU.
        num_bytes: Its size.

    Attributes:
        address: Where it is.

    Raises:
        CudaError: There is not enough.
    """

    def __init__(self, gpu: Gpu, num_bytes: int) -> None:
        self._gpu = gpu
        self.address = int(gpu.cuda.call("cuMemAlloc", num_bytes))

    def close(self) -> None:
        """Free it."""
        self._gpu.cuda.call("cuMemFree", self.address)


class HostMemory:
    """Page-locked memory of the host, that the GPU can also use in place. As `DeviceMemory`.

    Attributes:
        address: Where it is for the host, and for copies.
        device_address: Where it is for the GPU.
    """

    def __init__(self, gpu: Gpu, num_bytes: int) -> None:
        self._gpu = gpu
        self._num_bytes = num_bytes
        self.address = int(gpu.cuda.call("cuMemHostAlloc", num_bytes, _DEVICE_MAPPED))
        try:
            self.device_address = int(gpu.cuda.call("cuMemHostGetDevicePointer", self.address, 0))
        except BaseException:
            self.close()
            raise

    def view(self, dtype: str, shape: tuple[int, ...]) -> Array:
        """Return it as an array; nothing may read or write that after `close`."""
        memory = (ctypes.c_uint8 * self._num_bytes).from_address(self.address)
        return np.frombuffer(memoryview(memory), dtype, math.prod(shape)).reshape(shape)

    def close(self) -> None:
        """Free it."""
        self._gpu.cuda.call("cuMemFreeHost", self.address)


class Port:
    """An input or output of the largest batch, on the host and where the engine reads or writes it.

    On a GPU of its own memory these are two, and rows are copied between them. On an integrated one they are the same
    page-locked memory, and nothing is copied.

    Args:
        gpu: The GPU, active.
        spec: The tensor.
        max_batch: Images of the largest batch.

    Attributes:
        spec: The tensor.
        max_batch: Images of the largest batch.
        row_bytes: Size of one image.
        address: Where the engine finds it.
        host: `[max_batch, ...]` on the host.

    Raises:
        CudaError: There is not enough memory.
    """

    def __init__(self, gpu: Gpu, spec: TensorSpec, max_batch: int) -> None:
        self._gpu = gpu
        self.spec = spec
        self.max_batch = max_batch
        row = tuple(map(int, spec.shape[1:]))
        self.row_bytes = math.prod(row) * np.dtype(spec.dtype).itemsize
        num_bytes = max_batch * self.row_bytes
        with contextlib.ExitStack() as made:
            self._pinned = HostMemory(gpu, num_bytes)
            made.callback(self._pinned.close)
            self.address = self._pinned.device_address
            if not gpu.is_integrated:
                device = DeviceMemory(gpu, num_bytes)
                made.callback(device.close)
                self.address = device.address
            self.host = self._pinned.view(spec.dtype, (max_batch, *row))
            self.host.fill(0)  # what pads a batch is computed too: not from chance values
            self._made = made.pop_all()

    def upload(self, num_rows: int, stream: Any) -> None:
        """Queue that the engine sees the first rows of the host."""
        if not self._gpu.is_integrated:
            self._gpu.copy(self.address, self._pinned.address, num_rows * self.row_bytes, stream)

    def download(self, num_rows: int, stream: Any) -> None:
        """Queue that the host sees the first rows of the engine."""
        if not self._gpu.is_integrated:
            self._gpu.copy(self._pinned.address, self.address, num_rows * self.row_bytes, stream)

    def close(self) -> None:
        """Free the memory; nothing may use it any more.

        Raises:
            CudaError: The driver refuses; what can be freed is freed.
        """
        del self.host
        self._made.close()
