"""Where the full-size model launches kernels, with the shapes, strides and dtypes of each place."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TypedDict

import torch

from pargo_kernels import triton_block_diagonal, triton_partial_global, triton_patches
from pargo_kernels.aot_fusion_launches import fusion_sites
from pargo_kernels.aot_linear_launches import linear_sites
from pargo_kernels.aot_model import IMAGE_TOKENS, QUERIES, QUERY_LAYERS, QUERY_WIDTH, Site, meta
from pargo_kernels.aot_targets import Chip
from pargo_kernels.partial_global_plan import choose_num_splits, choose_tiles
from pargo_kernels.triton_common import KernelCall

__all__ = ["launch_sites"]

_IMAGE_SIZE, _PATCH_SIZE, _PADDED_PATCH = 336, 14, 592  # 3 * 14 * 14 = 588, padded to a multiple of 16


class _Attention(TypedDict):
    num_heads: int
    num_partial: int
    num_global: int
    scale: float


_ATTENTION: _Attention = {"num_heads": 8, "num_partial": 288, "num_global": 16, "scale": 0.125}


def _partial_global(shares_keys: bool, batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    query = meta(batch, QUERIES, QUERY_WIDTH, dtype=dtype)
    merged = meta(batch, IMAGE_TOKENS, 2 * QUERY_LAYERS * QUERY_WIDTH, dtype=dtype)
    key, value = merged.split(QUERY_WIDTH, dim=-1)[:2]  # one product makes keys and values of all layers
    num_splits = 1
    if shares_keys:  # as with a workspace
        programs, num_global = batch * _ATTENTION["num_heads"], _ATTENTION["num_global"]
        tiles = choose_tiles(
            programs,
            num_partial=_ATTENTION["num_partial"],
            num_global=num_global,
            num_keys=IMAGE_TOKENS,
            head_dim=QUERY_WIDTH // _ATTENTION["num_heads"],
            dtype=dtype,
        )
        num_splits = choose_num_splits(programs, num_global=num_global, num_keys=IMAGE_TOKENS, tiles=tiles)
    return triton_partial_global.launch_arguments(
        query, key, value, torch.empty_like(query), **_ATTENTION, num_splits=num_splits
    )


def _block_diagonal(batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    query, key, value = meta(batch, QUERIES, 3 * QUERY_WIDTH, dtype=dtype).chunk(3, dim=-1)
    output = meta(batch, QUERIES, QUERY_WIDTH, dtype=dtype)
    return triton_block_diagonal.launch_arguments(query, key, value, output, **_ATTENTION)


def _patchify(pixels: torch.dtype, batch: int, dtype: torch.dtype, _: Chip) -> KernelCall:
    patches = (_IMAGE_SIZE // _PATCH_SIZE) ** 2
    normalize = meta(3) if pixels == torch.uint8 else None
    return triton_patches.launch_patchify(
        meta(batch, 3, _IMAGE_SIZE, _IMAGE_SIZE, dtype=pixels),
        meta(batch, patches, _PADDED_PATCH, dtype=dtype),
        image_size=_IMAGE_SIZE,
        patch_size=_PATCH_SIZE,
        pixel_scale=normalize,
        pixel_shift=normalize,
    )


def launch_sites() -> Iterator[Site]:
    """Return every place; for each operation the plain float one first and the one with FP8 last."""
    for variant, shares_keys in (("", False), ("shared keys", True)):
        launch = functools.partial(_partial_global, shares_keys)
        yield Site("partial_global_attention", variant, triton_partial_global.partial_global_kernel, launch)
    yield Site("block_diagonal_attention", "", triton_block_diagonal.block_diagonal_kernel, _block_diagonal)
    for pixels in (torch.uint8, torch.float32):
        variant = str(pixels).removeprefix("torch.")
        yield Site("patchify", variant, triton_patches.patchify_kernel, functools.partial(_patchify, pixels))
    yield from linear_sites()
    yield from fusion_sites()
