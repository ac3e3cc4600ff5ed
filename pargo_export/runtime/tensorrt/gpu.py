"""One GPU with its primary context, the one that TensorRT and every CUDA library of the process share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from pargo_export.runtime.tensorrt.driver import Cuda, CudaError

__all__ = ["Gpu", "is_out_of_memory"]

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not in order with the legacy default stream
_DEFAULT = 0  # CU_EVENT_DEFAULT: with timing
_WITHOUT_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_NAME_BYTES = 256


class Gpu:
    """The first GPU that this process sees; `close` gives its context back.

    Args:
        cuda: The driver.

    Attributes:
        cuda: The driver.
        ordinal: Its number, as DLPack and the CUDA runtime count.
        name: Its name.
        is_integrated: It shares the memory of the CPU, as on a Jetson.

    Raises:
        CudaError: There is none, or it cannot be used.
    """

    ordinal = 0

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        cuda.call("cuInit", 0)
        self._device = cuda.call("cuDeviceGet", self.ordinal)
        name = cuda.call("cuDeviceGetName", _NAME_BYTES, self._device)
        self.name = name.split(b"\0")[0].decode(errors="replace")
        integrated = cuda.module.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED
        self.is_integrated = bool(cuda.call("cuDeviceGetAttribute", integrated, self._device))
        self._context: Any = cuda.call("cuDevicePrimaryCtxRetain", self._device)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make its context current in this thread, and the one before it afterwards.

        Raises:
            CudaError: The context cannot be used.
        """
        self.cuda.call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self.cuda.call("cuCtxPopCurrent")

    def free_bytes(self) -> int:
        """Return the free memory; on an integrated GPU that of the machine. Call it while `active`."""
        return int(self.cuda.call("cuMemGetInfo")[0])

    def make_stream(self) -> Any:
        """Return a new stream that waits for no other. Call it while `active`."""
        return self.cuda.call("cuStreamCreate", _NON_BLOCKING)

    def make_event(self, *, with_timing: bool = False) -> Any:
        """Return a new event; without timing it costs the GPU less. Call it while `active`."""
        return self.cuda.call("cuEventCreate", _DEFAULT if with_timing else _WITHOUT_TIMING)

    def copy(self, target: int, source: int, num_bytes: int, stream: Any) -> None:
        """Queue a copy between any two memories, of the GPU or page-locked ones of the host."""
        self.cuda.call("cuMemcpyAsync", target, source, num_bytes, stream)

    def close(self) -> None:
        """Give the context back; again does nothing.

        Raises:
            CudaError: The driver refuses.
        """
        with self._lock:
            context, self._context = self._context, None
        if context is not None:
            self.cuda.call("cuDevicePrimaryCtxRelease", self._device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU had no memory left."""
    return isinstance(error, CudaError) and error.name == "CUDA_ERROR_OUT_OF_MEMORY"
