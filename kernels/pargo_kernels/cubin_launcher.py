"""Launch a kernel that was compiled ahead of time, through the CUDA driver alone.

No PyTorch, no Triton, no TensorRT: `libcuda.so.1` comes with the GPU's driver, and `ctypes` calls it. What a
Triton kernel expects from its launcher is stated here once: the parameters that are not constants, in the order
of the signature, then scratch pointers, which are null for a kernel that asked for no scratch memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = [
    "STATIC_SHARED_LIMIT",
    "CompiledKernel",
    "CudaDriverError",
    "current_compute_capability",
    "launch",
    "load",
    "pack_arguments",
]

STATIC_SHARED_LIMIT = 48 * 1024  # bytes of shared memory that a kernel gets without asking

_WARP_SIZE = 32
_C_TYPES: dict[str, Any] = {
    "i32": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "fp32": ctypes.c_float,
    "fp64": ctypes.c_double,
}

# Numbers of enumerations in cuda.h.
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CUfunction_attribute


class CudaDriverError(RuntimeError):
    """A call of the CUDA driver failed, or there is no driver."""


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel's binary and what a launcher must know about it.

    Attributes:
        name: Entry point in the binary.
        image: Cubin for one architecture, or PTX, which the driver compiles when it loads it.
        parameters: Triton types of the parameters that are not constants, in order: `*fp16`, `i32`, ...
        num_warps: Warps of one program.
        shared_bytes: Dynamic shared memory of one program.
        scratch_pointers: Null pointers after the parameters. Triton declares two in every kernel, for global
            and for profiling scratch memory, of which these kernels use none.
    """

    name: str
    image: bytes
    parameters: tuple[str, ...]
    num_warps: int
    shared_bytes: int
    scratch_pointers: int = 2


def pack_arguments(kernel: CompiledKernel, values: Sequence[int | float]) -> ctypes.Array[ctypes.c_void_p]:
    """Return what `cuLaunchKernel` takes as `kernelParams`: one address for each parameter.

    Args:
        kernel: What will be launched.
        values: Addresses of device memory for pointers, numbers for the others.

    Returns:
        An array that keeps the arguments which it points to alive.

    Raises:
        ValueError: The number of values is wrong, a type is unknown, or a number does not fit its type.
    """
    parameters = kernel.parameters
    if len(parameters) != len(values):
        raise ValueError(
            f"{len(values)} arguments for a kernel with {len(parameters)} parameters ({', '.join(parameters)}); "
            "pass one for each, without the constants and the scratch pointers"
        )
    arguments = [_argument(kind, value) for kind, value in zip(parameters, values, strict=True)]
    arguments += [ctypes.c_void_p(None) for _ in range(kernel.scratch_pointers)]
    packed = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
    packed.arguments = arguments  # type: ignore[attr-defined] # the addresses are only good while these live
    return packed


def _argument(kind: str, value: float) -> Any:
    if kind.startswith("*"):
        return ctypes.c_void_p(int(value))
    if kind not in _C_TYPES:
        raise ValueError(
            f"a parameter has the type {kind!r}, expected a pointer or one of {', '.join(_C_TYPES)}"
        )
    argument = _C_TYPES[kind](value)
    if isinstance(value, int) and kind[0] in "iu" and argument.value != value:
        raise ValueError(
            f"the argument {value} does not fit the parameter's type {kind}; use fewer or smaller images"
        )
    return argument


@cache
def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CudaDriverError(
            f"no CUDA driver ({error}): kernels run on a machine with an NVIDIA GPU and its driver installed"
        ) from error


def _call(function: str, *arguments: Any) -> None:
    driver = _driver()
    status = getattr(driver, function)(*arguments)
    if status:
        name, text = ctypes.c_char_p(), ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(name))
        driver.cuGetErrorString(status, ctypes.byref(text))
        said = " ".join(part.value.decode() for part in (name, text) if part.value)
        raise CudaDriverError(f"{function} failed with {status} ({said or 'unknown error'})")


def _current_context() -> int:
    context = ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(context))
    if not context.value:
        raise CudaDriverError(
            "no CUDA context is current in this thread; allocate memory on the GPU or make a context current first"
        )
    return context.value


def current_compute_capability() -> int:
    """Return the compute capability of the first GPU, or of the current context's: 90 for 9.0.

    Raises:
        CudaDriverError: There is no driver or no GPU.
    """
    _call("cuInit", 0)
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(context))
    if context.value:
        _call("cuCtxGetDevice", ctypes.byref(device))
    else:
        _call("cuDeviceGet", ctypes.byref(device), 0)
    version = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        number = ctypes.c_int()
        _call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        version.append(number.value)
    return 10 * version[0] + version[1]


_functions: dict[tuple[int, CompiledKernel], ctypes.c_void_p] = {}
_functions_lock = threading.Lock()


def load(kernel: CompiledKernel) -> ctypes.c_void_p:
    """Return the function of the kernel in the current CUDA context; loaded once, kept until the process ends.

    Loading is not allowed while a stream is captured: call this before a CUDA graph is recorded.

    Raises:
        CudaDriverError: No context is current, or the driver refuses the binary.
    """
    key = (_current_context(), kernel)
    with _functions_lock:
        if key not in _functions:
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            _call("cuModuleLoadData", ctypes.byref(module), kernel.image)
            _call("cuModuleGetFunction", ctypes.byref(function), module, kernel.name.encode())
            if kernel.shared_bytes > STATIC_SHARED_LIMIT:
                _call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.shared_bytes)
            _functions[key] = function
        return _functions[key]


def launch(kernel: CompiledKernel, grid: Sequence[int], values: Sequence[int | float], stream: int) -> None:
    """Put one launch into a stream; returns before it has run.

    Args:
        kernel: What to launch.
        grid: Programs by axis, one to three numbers.
        values: Arguments, see `pack_arguments`.
        stream: Handle of the CUDA stream as a number, 0 for the default stream.

    Raises:
        ValueError: The arguments do not fit the parameters.
        CudaDriverError: The driver refuses the launch.
    """
    packed = pack_arguments(kernel, values)
    function = load(kernel)
    programs = (*grid, 1, 1)[:3]
    block = (_WARP_SIZE * kernel.num_warps, 1, 1)
    _call(
        "cuLaunchKernel",
        function,
        *programs,
        *block,
        kernel.shared_bytes,
        ctypes.c_void_p(stream),
        packed,
        None,
    )
