"""Compile one launch for a GPU that is not there, exactly as the launch itself would compile it.

Triton compiles a kernel when it is first launched, specialised to that launch: dtypes, constants, which
addresses and strides are multiples of 16. Here the same code path runs (`JITFunction.warmup`) with a driver
that only names an architecture. So a kernel compiled ahead of time and one compiled at run time cannot drift
apart, and Triton's cache directory receives the entry that the launch will look for.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from pargo_kernels.aot_targets import Chip
from pargo_kernels.triton_common import KernelCall

__all__ = ["Binary", "compile_for"]

_USAGE = re.compile(
    r"Function (?P<name>\S+):\s+REG:(?P<registers>\d+) STACK:(?P<stack>\d+) .*?LOCAL:(?P<local>\d+)"
)


@dataclass(frozen=True)
class Binary:
    """A compiled kernel, what it needs and how to launch it.

    Attributes:
        entry: Name of the kernel in the cubin.
        cubin: Machine code for one architecture.
        ptx: Assembly that newer drivers compile for newer GPUs.
        parameters: Name, Triton type and, for a number, the value of this launch: what is left as a parameter,
            in order. Two null pointers follow them (Triton's scratch memory, of which none is used).
        constants: Parameters that became constants.
        multiples_of_16: Parameters that must be multiples of 16, addresses as well as numbers.
        grid: Programs by axis of this launch.
        num_warps: Warps of one program.
        shared_bytes: Shared memory of one program.
        registers: Registers of one thread.
        spilled_bytes: Stack frame of one thread in local memory: registers that did not fit, local arrays.
    """

    entry: str
    cubin: bytes
    ptx: str
    parameters: tuple[tuple[str, str, int | float | None], ...]
    constants: dict[str, Any]
    multiples_of_16: tuple[str, ...]
    grid: tuple[int, ...]
    num_warps: int
    shared_bytes: int
    registers: int
    spilled_bytes: int

    @property
    def sha256(self) -> str:
        """Of the cubin."""
        return hashlib.sha256(self.cubin).hexdigest()

    def problems(self, chip: Chip) -> list[str]:
        """Why the kernel should not run on that chip as it is; empty if it may."""
        found = []
        if self.spilled_bytes:
            found.append(
                f"{self.spilled_bytes} bytes a thread do not fit into registers: use smaller blocks or more warps"
            )
        if self.shared_bytes > chip.shared_bytes:
            found.append(
                f"{self.shared_bytes} bytes of shared memory exceed the {chip.shared_bytes} of a block on "
                f"{chip.name}: use smaller blocks or fewer stages"
            )
        return found


class _OfflineDriver:
    """As much of a Triton driver as compiling asks for; the architecture stands for the device."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_device(self) -> int:
        return self.arch  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002 - the driver's interface
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)


def compile_for(chip: Chip, kernel: Any, call: KernelCall) -> Binary:
    """Compile `kernel[call.grid](*call.arguments, **call.options)` for `chip`; tensors may be on "meta".

    Raises:
        RuntimeError: Triton's interpreter is on, so kernels are Python functions, or the kernel wants scratch
            memory, which a launch from a cubin does not provide.
    """
    if not isinstance(kernel, triton.runtime.JITFunction):
        raise RuntimeError(  # noqa: TRY004 - the type is not the caller's mistake
            "Triton's interpreter is on (TRITON_INTERPRET): kernels cannot be compiled; unset it and start again"
        )
    driver.set_active(_OfflineDriver(chip.arch))
    compiled: Any = kernel.warmup(*call.arguments, grid=call.grid, **call.options)
    metadata = compiled.metadata
    scratch = getattr(metadata, "global_scratch_size", 0) or getattr(metadata, "profile_scratch_size", 0)
    if scratch:
        raise RuntimeError(f"{compiled.name} wants {scratch} bytes of scratch memory; rewrite it without")
    registers, spilled = _resource_usage(compiled.asm["cubin"], compiled.name)
    source = compiled.src
    names = list(source.signature)
    values = dict(zip(names, call.arguments, strict=False))
    return Binary(
        entry=compiled.name,
        cubin=compiled.asm["cubin"],
        ptx=compiled.asm["ptx"],
        parameters=tuple(
            (name, kind, value if isinstance(value := values[name], int | float) else None)
            for name, kind in source.signature.items()
            if kind != "constexpr"
        ),
        constants={names[path[0]]: value for path, value in source.constants.items()},
        multiples_of_16=tuple(
            names[path[0]]
            for path, attributes in source.attrs.items()
            if ["tt.divisibility", 16] in attributes
        ),
        grid=call.grid,
        num_warps=metadata.num_warps,
        shared_bytes=metadata.shared,
        registers=registers,
        spilled_bytes=spilled,
    )


def _resource_usage(cubin: bytes, entry: str) -> tuple[int, int]:
    """Return registers and bytes of stack of one thread, read from the cubin by NVIDIA's `cuobjdump`.

    Triton ships that tool. (`CompiledKernel.n_regs` needs a GPU to load the kernel on; `ptxas -v` would
    assemble a second time, with flags that may differ.)

    Raises:
        RuntimeError: The tool fails, or does not mention the kernel.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", os.fspath(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    for match in _USAGE.finditer(done.stdout):
        if match["name"] == entry:
            return int(match["registers"]), int(match["stack"]) + int(match["local"])
    raise RuntimeError(f"cuobjdump says nothing about {entry}: {done.stderr or done.stdout}".strip())
