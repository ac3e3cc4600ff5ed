"""Arrays of PyTorch and CuPy on the GPU, read and made by their own libraries, in order with the caller's stream.

Nothing is imported: who hands such an array has imported its library. Its DLPack methods put two streams in order; its
`__cuda_array_interface__` says where the values are. Results are made by the caller's library as well, so that
its allocator knows when their memory is free again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pargo_export.errors import BackendError
from pargo_export.runtime.arrays import find_library
from pargo_export.signature import TensorSpec

__all__ = ["address_of", "empty_like", "is_taken", "let_caller_wait"]

_CUDA = 2  # kDLCUDA of the DLPack header
_MAKERS: dict[str, Callable[[Any, tuple[int, ...], Any], Any]] = {
    "cupy": lambda library, shape, _: library.empty(shape, dtype="float32"),
    "torch": lambda library, shape, like: library.empty(shape, dtype=library.float32, device=like.device),
}


def is_taken(array: Any, spec: TensorSpec, ordinal: int) -> bool:
    """Whether an array can be read where it is: of PyTorch or CuPy, on GPU `ordinal`, contiguous, of the dtype."""
    if _name_of(array) not in _MAKERS or array.__dlpack_device__() != (_CUDA, ordinal):
        return False
    if str(array.dtype).rpartition(".")[2] != spec.dtype:  # torch writes "torch.float32"
        return False
    return _interface(array).get("strides") is None


def address_of(array: Any, stream: int) -> int:
    """Return where the values are, after `stream` was told to wait for what the caller's stream does to them.

    Raises:
        BackendError: The library refuses.
    """
    try:
        detach(array).__dlpack__(stream=stream)  # the capsule is not needed: it frees itself
        return int(_interface(array)["data"][0])
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise BackendError(
            f"{_name_of(array)} does not hand over its array ({type(error).__name__}: {error}); make GPU 0 "
            "its current device, or hand an array on the host"
        ) from error


def empty_like(array: Any, shape: tuple[int, ...]) -> Any:
    """Return a new float32 array of the same library, on the same GPU.

    Raises:
        BackendError: There is not enough memory.
    """
    try:
        return _MAKERS[_name_of(array)](find_library(array), shape, array)
    except (MemoryError, RuntimeError) as error:
        raise BackendError(
            f"{_name_of(array)} cannot make the result, float32{list(shape)}: {error}; hand fewer images at once"
        ) from error


def let_caller_wait(array: Any, wait: Callable[[int], None]) -> Any:
    """Return `array` after the caller's stream was told to wait until its values are there.

    Args:
        array: Made by `empty_like`.
        wait: Lets a stream wait: 1 is the legacy default stream, 2 that of the thread, else its handle.
    """
    find_library(array).from_dlpack(_Handover(array, wait))
    return array


class _Handover:
    """An array whose consumer's stream waits: `from_dlpack` tells which stream the caller works on."""

    def __init__(self, array: Any, wait: Callable[[int], None]) -> None:
        self._array, self._wait = array, wait

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        if stream != -1:  # "do not synchronise"
            self._wait(stream or 1)  # None stands for the legacy default stream
        return self._array.__dlpack__(stream=stream, **options)


def detach(array: Any) -> Any:
    """Return a tensor without its gradient, which DLPack refuses; any other array as it is."""
    return array.detach() if hasattr(array, "detach") else array


def _interface(array: Any) -> dict[str, Any]:
    found: dict[str, Any] = detach(array).__cuda_array_interface__
    return found


def _name_of(array: Any) -> str:
    """Return the name of the library, if it is loaded: `torch` of `torch.Tensor`."""
    name = type(array).__module__.partition(".")[0]
    return name if name in sys.modules else ""
