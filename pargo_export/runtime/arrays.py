"""Arrays of other libraries: into NumPy through DLPack, and the result back into the caller's library.

No library is imported here: the caller who hands its arrays has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pargo_export.errors import InputError
from pargo_export.runtime.runner import Array

__all__ = ["describe", "find_library", "is_foreign_array", "is_on_cuda", "to_library", "to_numpy"]

_CPU = 1  # kDLCPU of the DLPack header
_CUDA = 2  # kDLCUDA


def describe(value: Any) -> str:
    """`float32[2, 3]` for a NumPy array, the name of the type for anything else."""
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def is_foreign_array(value: Any) -> bool:
    """Whether `value` is an array of another library than NumPy, for example a torch tensor."""
    return hasattr(value, "__dlpack__") and not isinstance(value, (np.ndarray, np.generic))


def is_on_cuda(value: Any) -> bool:
    """Whether `value` is an array in the memory of a CUDA GPU."""
    return is_foreign_array(value) and bool(value.__dlpack_device__()[0] == _CUDA)


def find_library(array: Any) -> Any:
    """Return the namespace that makes arrays like `array` (it has `from_dlpack`); `None` if it has none."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    module = sys.modules.get(type(array).__module__.partition(".")[0])
    return module if hasattr(module, "from_dlpack") else None


def to_numpy(array: Any, name: str) -> Array:
    """View an array on the CPU without a copy; one on a device is copied by its own `cpu()` or `get()`.

    Raises:
        InputError: The library does not hand it over: it requires a gradient, is sparse, of a dtype that
            NumPy lacks (bfloat16), or on a device that cannot be read.
    """
    kind = f"{type(array).__module__}.{type(array).__qualname__}"
    try:
        if _is_on_cpu(array):
            return np.from_dlpack(array)
        if hasattr(array, "cpu"):  # torch
            return np.from_dlpack(array.cpu())
        if hasattr(array, "get"):  # CuPy
            return np.asarray(array.get())
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {kind} cannot be read as a NumPy array ({error}); hand a dense float32 or uint8 array without "
            "gradient, for torch tensor.detach().float()"
        ) from error
    raise InputError(
        f"{name}: {kind} is on device {array.__dlpack_device__()}, expected the CPU; copy it there first"
    )


def to_library(result: Any, like: Any) -> Any:
    """Hand `result` over to the library of `like`: without a copy on the CPU, else to the device of `like`.

    Args:
        result: A NumPy array, or a torch tensor on a GPU: that stays there.
        like: An array of the caller.

    Returns:
        An array of the caller's library; without one that takes it, `result`.
    """
    library = find_library(like)
    if library is None:
        return result
    if not isinstance(result, np.ndarray):
        return result.to(like.device) if hasattr(like, "cpu") else library.from_dlpack(result)
    if _is_on_cpu(like):
        return library.from_dlpack(result)
    if hasattr(like, "cpu"):  # torch
        return library.from_dlpack(result).to(like.device)
    return library.asarray(result)


def _is_on_cpu(array: Any) -> bool:
    return bool(array.__dlpack_device__()[0] == _CPU)
