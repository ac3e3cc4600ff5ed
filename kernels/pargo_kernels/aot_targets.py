"""The chips that kernels are compiled for ahead of time, and what one block may use on each.

Shared memory per block is the opt-in limit: shared memory of the multiprocessor less the 1 KiB that the driver
reserves for every block. Source: `max_shared_memory_per_multiprocessor` and
`reserved_shared_memory_per_block` in NVIDIA/cccl, libcudacxx/include/cuda/__device/arch_traits.h, commit
004ad1986064aaa82892ed00d0dbda88b90fa6e6. There sm_110 (Jetson Thor) takes the limit of sm_100.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["CHIPS", "DTYPES", "Chip", "chip", "chips_from"]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Float dtypes that kernels are compiled for."""


@dataclass(frozen=True)
class Chip:
    """One GPU architecture.

    Attributes:
        arch: Compute capability without the point: 87 is 8.7.
        products: GPUs of that architecture that a bundle may meet.
        shared_bytes: Largest shared memory of one block.
    """

    arch: int
    products: str
    shared_bytes: int

    @property
    def name(self) -> str:
        """As in the CUDA toolkit: `sm_87`."""
        return f"sm_{self.arch}"


CHIPS = (
    Chip(80, "A100, A30", 163 * 1024),
    Chip(86, "RTX 30, A10, A40", 99 * 1024),
    Chip(87, "Jetson Orin", 163 * 1024),
    Chip(89, "RTX 40, L4, L40", 99 * 1024),
    Chip(90, "H100, H200", 227 * 1024),
    Chip(100, "B200", 227 * 1024),
    Chip(110, "Jetson Thor", 227 * 1024),
    Chip(120, "RTX 50, RTX PRO Blackwell", 99 * 1024),
)


def chip(arch: int) -> Chip:
    """Look a chip up by its compute capability without the point.

    Raises:
        ValueError: It is not in `CHIPS`.
    """
    for known in CHIPS:
        if known.arch == arch:
            return known
    names = ", ".join(str(known.arch) for known in CHIPS)
    raise ValueError(f"no data for compute capability {arch}; known are {names} (8.7 is written 87)")


def chips_from(names: str) -> list[Chip]:
    """Parse `80,87` into chips.

    Raises:
        ValueError: A part is no number or no known architecture.
    """
    chips = []
    for name in names.split(","):
        number = name.strip().removeprefix("sm_")
        if not number.isdigit():
            raise ValueError(f"{name.strip()!r} is no compute capability; write 87 for 8.7, 80,87 for two")
        chips.append(chip(int(number)))
    return chips
