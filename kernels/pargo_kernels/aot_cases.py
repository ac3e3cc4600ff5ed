"""What is compiled ahead of time: every launch of the full-size model, by float dtype and batch size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pargo_kernels.aot_launches import launch_sites
from pargo_kernels.aot_targets import DTYPES, Chip
from pargo_kernels.triton_common import KernelCall
from pargo_kernels.triton_dependent import dependent_options

__all__ = ["Case", "all_cases"]

_BATCHES = (1, 8)


@dataclass(frozen=True)
class Case:
    """One launch.

    Attributes:
        operation: Public name of the operation.
        variant: What tells launches of the operation apart: `fp8`, `patches int8`, ...
        dtype: Float dtype, as in `DTYPES`.
        batch: Images.
        kernel: The Triton kernel.
        call: Makes the launch for a chip.
        lowest_arch: Oldest architecture that can run it.
    """

    operation: str
    variant: str
    dtype: str
    batch: int
    kernel: Any
    call: Callable[[Chip], KernelCall]
    lowest_arch: int

    @property
    def name(self) -> str:
        """Unique, and good as part of a file name."""
        parts = (self.operation, self.variant, self.dtype, f"b{self.batch}")
        return "-".join(part.replace(" ", "_") for part in parts if part)


def _launch_on(launch: Callable[[Chip], KernelCall], chip: Chip) -> KernelCall:
    """Return a launch with the options that depend on the chip: "meta" tensors, which it was made of, name none."""
    call = launch(chip)
    if "DEPENDENT" not in call.options:
        return call
    return call._replace(options={**call.options, **dependent_options(divmod(chip.arch, 10))})


def all_cases(dtypes: tuple[str, ...] = tuple(DTYPES), batches: tuple[int, ...] = _BATCHES) -> list[Case]:
    """Return every launch of the full-size model in these float dtypes and at these batch sizes."""
    return [
        Case(
            site.operation,
            site.variant,
            dtype,
            batch,
            site.kernel,
            functools.partial(_launch_on, functools.partial(site.launch, batch, DTYPES[dtype])),
            site.lowest_arch,
        )
        for site in launch_sites()
        for dtype in dtypes
        for batch in batches
    ]
