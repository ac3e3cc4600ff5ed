"""How the work of the cross-attention kernel is cut: tiles, splits of the keys, and the workspace of the splits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pargo_kernels.attention_inputs import cdiv, most_rows, next_power_of_2, padded_head_dim

__all__ = [
    "SplitWorkspace",
    "Tiles",
    "choose_num_splits",
    "choose_tiles",
    "make_workspace",
    "plan_workspace",
    "workspace_sizes",
]


@dataclass(frozen=True)
class Tiles:
    """How the work is cut.

    Attributes:
        block_partial: Partial queries of one program, a power of two.
        block_global: Global queries of one program, a power of two, at least 16.
        block_key: Keys of one step of a global program, a power of two, at least 16.
        num_warps: Warps of one program of either kind.
        num_stages: Key blocks in flight.
    """

    block_partial: int
    block_global: int
    block_key: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class SplitWorkspace:
    """Where the programs that share the keys of a global query meet. One launch at a time may use it.

    A launch leaves the counters at 0, so one workspace serves any number of launches in stream order, also
    inside a CUDA graph.

    Attributes:
        sums: float32, what each program found; need not be initialised.
        counters: int32, 0 before the first launch.
    """

    sums: Tensor
    counters: Tensor


def choose_tiles(
    programs: int, *, num_partial: int, num_global: int, num_keys: int, head_dim: int, dtype: torch.dtype
) -> Tiles:
    """Cut the work by its size, as was fastest on an H100 at 1 and 8 images (docs/performance.md).

    Partial: 16 queries of 64 half-precision channels are one 16-byte load for each of 128 threads. Longer
    blocks save programs from 8 images of 8 heads on. Global: 16 rows, the least that tensor cores take, more
    only where there are more queries. A step takes 128 keys, fewer where 128 rows of a head exceed 16 KiB.

    Args:
        programs: Batch times heads.
        num_partial: P.
        num_global: G.
        num_keys: N.
        head_dim: D.
        dtype: Of the inputs.
    """
    row_bytes = padded_head_dim(head_dim) * dtype.itemsize
    block_partial = max(1, min(2048 // row_bytes, next_power_of_2(num_partial)))
    if programs >= 64:
        block_partial *= 2
    block_global = min(most_rows(head_dim, dtype), max(16, next_power_of_2(num_global)))
    block_key = max(
        16, min(32 if dtype == torch.float32 else 128, 16384 // row_bytes, next_power_of_2(num_keys))
    )
    return Tiles(block_partial, block_global, block_key, num_warps=4, num_stages=2)


def choose_num_splits(programs: int, *, num_global: int, num_keys: int, tiles: Tiles) -> int:
    """Split the keys where the global programs are few: into single steps, as long as there are 128 of them.

    On an H100 one image of 8 heads takes 4.9 us with five splits of one step each and 8.0 without, 8 images 7.5
    with two and 9.6 without.

    Args:
        programs: Batch times heads.
        num_global: G.
        num_keys: N.
        tiles: How the work is cut.
    """
    global_programs = programs * cdiv(num_global, tiles.block_global)
    if not global_programs:
        return 1
    return max(1, min(cdiv(num_keys, tiles.block_key), 128 // global_programs))


def workspace_sizes(
    num_splits: int, programs: int, *, num_global: int, head_dim: int, tiles: Tiles
) -> tuple[int, int]:
    """Elements of the sums and of the counters that a launch needs; none with one split.

    Args:
        num_splits: Programs that share the keys of a global query.
        programs: Batch times heads.
        num_global: G.
        head_dim: D.
        tiles: How the work is cut.
    """
    if num_splits == 1:
        return 0, 0
    meetings = programs * cdiv(num_global, tiles.block_global)
    return meetings * num_splits * tiles.block_global * (padded_head_dim(head_dim) + 2), meetings


def make_workspace(num_sums: int, num_counters: int, device: torch.device) -> SplitWorkspace:
    """Allocate a workspace of `workspace_sizes(...)`."""
    return SplitWorkspace(
        sums=torch.empty(num_sums, dtype=torch.float32, device=device),
        counters=torch.zeros(num_counters, dtype=torch.int32, device=device),
    )


def plan_workspace(
    programs: int,
    *,
    num_partial: int,
    num_global: int,
    num_keys: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> SplitWorkspace | None:
    """Allocate the workspace of the chosen tiles and splits; `None` if one program takes all keys, or on a CPU.

    Its counters are filled with 0, a launch of its own: one workspace should serve several attentions, one after
    the other.

    Args:
        programs: Batch times heads.
        num_partial: P.
        num_global: G.
        num_keys: N.
        head_dim: D.
        dtype: Of the inputs.
        device: Of the inputs.
    """
    if device.type != "cuda":
        return None
    tiles = choose_tiles(
        programs,
        num_partial=num_partial,
        num_global=num_global,
        num_keys=num_keys,
        head_dim=head_dim,
        dtype=dtype,
    )
    splits = choose_num_splits(programs, num_global=num_global, num_keys=num_keys, tiles=tiles)
    sizes = workspace_sizes(splits, programs, num_global=num_global, head_dim=head_dim, tiles=tiles)
    return make_workspace(*sizes, device=device) if splits > 1 else None
