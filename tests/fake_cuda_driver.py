"""A CUDA driver that writes down its calls, for launches without a GPU."""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["FakeCudaDriver"]

_READ = {8: ctypes.c_uint64, 4: ctypes.c_int32}


class FakeCudaDriver:
    """As much of `libcuda.so.1` as a launch calls.

    Args:
        sizes: Bytes of each parameter of the kernels that will be launched.
        context: Handle of the current context, 0 for none.
        refuse: Name of a function that fails.
    """

    def __init__(self, sizes: list[int] | None = None, *, context: int = 77, refuse: str = "") -> None:
        self.sizes = sizes or []
        self.context = context
        self.refuse = refuse
        self.launches: list[dict[str, Any]] = []
        self.loaded: list[bytes] = []
        self.shared_limits: list[int] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name == object.__getattribute__(self, "refuse"):
            return lambda *_: 209
        return object.__getattribute__(self, name)

    def cuInit(self, flags: int) -> int:  # noqa: N802
        """Succeed."""
        return flags

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802
        """Write the handle of the context."""
        context._obj.value = self.context
        return 0

    def cuModuleLoadData(self, module: Any, image: bytes) -> int:  # noqa: N802
        """Keep the image."""
        self.loaded.append(image)
        module._obj.value = 100 + len(self.loaded)
        return 0

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:  # noqa: N802
        """Number the functions by their module."""
        function._obj.value = module.value + 1000
        return 0 if name else 500

    def cuFuncSetAttribute(self, function: Any, attribute: int, value: int) -> int:  # noqa: N802
        """Keep the limit of dynamic shared memory."""
        assert function.value
        assert attribute == 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES in cuda.h
        self.shared_limits.append(value)
        return 0

    def cuLaunchKernel(self, *arguments: Any) -> int:  # noqa: N802
        """Keep the launch, with the parameters read from where `kernelParams` points."""
        function, *geometry, shared, stream, packed, extra = arguments
        assert extra is None
        assert len(packed) == len(self.sizes)
        values = [
            _READ[size].from_address(address).value for size, address in zip(self.sizes, packed, strict=True)
        ]
        self.launches.append(
            {
                "function": function.value,
                "grid": tuple(geometry[:3]),
                "block": tuple(geometry[3:]),
                "shared": shared,
                "stream": stream.value or 0,
                "values": values,
            }
        )
        return 0

    def cuGetErrorName(self, status: int, name: Any) -> int:  # noqa: N802
        """Name an error."""
        name._obj.value = b"CUDA_ERROR_NO_BINARY_FOR_GPU" if status == 209 else b"?"
        return 0

    def cuGetErrorString(self, status: int, text: Any) -> int:  # noqa: N802
        """Describe an error."""
        text._obj.value = b"no kernel image is available" if status == 209 else b"?"
        return 0
