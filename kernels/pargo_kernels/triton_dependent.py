"""Programmatic dependent launch: a kernel may start while the one before it still runs.

A kernel of a few microseconds spends a good part of them on being launched. From compute capability 9.0 on, a
launch can be marked as dependent: its programs start when the programs of the previous kernel have begun to
leave (or have released it), prepare what depends on no other kernel, and wait before they touch memory that
another kernel writes. The wait is for the whole previous kernel, so the order of all reads and writes is what
it would be without.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

__all__ = ["dependent_launch", "dependent_options", "release_dependents", "wait_for_previous"]


@triton.jit
def wait_for_previous() -> None:
    """Wait until the previous kernel has finished and what it wrote can be read."""
    gdc_wait()


@triton.jit
def release_dependents() -> None:
    """Let the next kernel be launched; it waits by itself for this one to finish."""
    gdc_launch_dependents()


@functools.cache
def dependent_launch(device: torch.device) -> dict[str, Any]:
    """Return the launch options of a kernel with the constexpr `DEPENDENT`, for a device."""
    return dependent_options(torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0))


def dependent_options(capability: tuple[int, int]) -> dict[str, Any]:
    """Return the launch options of a kernel with the constexpr `DEPENDENT`, by compute capability."""
    return {"DEPENDENT": True, "launch_pdl": True} if capability >= (9, 0) else {"DEPENDENT": False}
