"""`patchify` in one pass: every value of the result is computed where it is written.

The definition is `reference_fusions.patchify`. Reads are runs of one patch row (14 pixels), which caches
serve; the whole input of an image is half a megabyte.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pargo_kernels.fusion_arguments import check_patchify
from pargo_kernels.triton_common import KernelCall, explain_tensors
from pargo_kernels.triton_dependent import dependent_launch, release_dependents, wait_for_previous
from pargo_kernels.triton_device import device_guard

__all__ = ["explain_patchify", "launch_patchify", "patchify", "patchify_kernel"]

VALUES_PER_THREAD = 8  # of 16 bits: one 16-byte store
NUM_WARPS = 4


@triton.jit
def patchify_kernel(
    pixels_ptr: tl.tensor,  # [B, channels, R * S, C * S], any strides
    scale_ptr: tl.tensor | None,  # float32 [channels] or None
    shift_ptr: tl.tensor | None,  # float32 [channels] or None
    out_ptr: tl.tensor,  # [B * R * C, (S / p)^2, WIDTH]
    num_values: tl.tensor,  # elements of the result
    batch_stride: tl.tensor,
    channel_stride: tl.tensor,
    line_stride: tl.tensor,
    column_stride: tl.tensor,
    TILE_ROWS: tl.constexpr,  # R
    TILE_COLUMNS: tl.constexpr,  # C
    GRID: tl.constexpr,  # S / p: patches along a side of a tile
    PATCH: tl.constexpr,  # p
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,  # columns of the result, at least CHANNELS * p * p
    BLOCK: tl.constexpr,  # values of one program, a power of two
    DEPENDENT: tl.constexpr,  # see `triton_dependent`
) -> None:
    """Write one block of consecutive values of the result, whichever patches they belong to."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < num_values
    column = index % WIDTH  # of the result: (channel, line of the patch, column of the patch)
    channel = column // (PATCH * PATCH)
    patch = index // WIDTH
    tile = patch // (GRID * GRID)
    tile_line = tile // TILE_COLUMNS % TILE_ROWS * GRID + patch // GRID % GRID
    tile_column = tile % TILE_COLUMNS * GRID + patch % GRID
    line = tile_line * PATCH + column // PATCH % PATCH
    pixel = tile_column * PATCH + column % PATCH

    image = (tile // (TILE_ROWS * TILE_COLUMNS)).to(tl.int64)
    offset = image * batch_stride + channel * channel_stride + line * line_stride + pixel * column_stride
    is_pixel = mask & (channel < CHANNELS)
    if DEPENDENT:
        wait_for_previous()
        release_dependents()
    value = tl.load(pixels_ptr + offset, mask=is_pixel, other=0).to(tl.float32)
    if scale_ptr is not None:
        value = value * tl.load(scale_ptr + channel, mask=is_pixel, other=0.0)
    if shift_ptr is not None:
        value = value + tl.load(shift_ptr + channel, mask=is_pixel, other=0.0)
    tl.store(out_ptr + index, value.to(out_ptr.dtype.element_ty), mask=mask)


def explain_patchify(
    pixels: Tensor,
    *,
    patch_size: int,
    padded_width: int,
    dtype: torch.dtype,
    pixel_scale: Tensor | None = None,
    pixel_shift: Tensor | None = None,
) -> str | None:
    """Return why the kernel cannot take these inputs, `None` if it can."""
    patches = pixels.shape[0] * (pixels.shape[-2] * pixels.shape[-1] // patch_size**2)
    if patches * padded_width >= 2**31:
        return f"{patches} patches of {padded_width} values overflow the kernel's 32-bit indices: split the batch"
    others = {"pixel_scale": pixel_scale, "pixel_shift": pixel_shift}
    return explain_tensors(pixels, dtype, others, any_stride=True)


def launch_patchify(
    pixels: Tensor,
    out: Tensor,
    *,
    image_size: int,
    patch_size: int,
    pixel_scale: Tensor | None = None,
    pixel_shift: Tensor | None = None,
) -> KernelCall:
    """Return grid, arguments and options of `patchify_kernel`; `out` is written."""
    block = NUM_WARPS * 32 * VALUES_PER_THREAD
    arguments = (pixels, pixel_scale, pixel_shift, out, out.numel(), *pixels.stride())
    options = {
        "TILE_ROWS": pixels.shape[-2] // image_size,
        "TILE_COLUMNS": pixels.shape[-1] // image_size,
        "GRID": image_size // patch_size,
        "PATCH": patch_size,
        "CHANNELS": pixels.shape[1],
        "WIDTH": out.shape[-1],
        "BLOCK": block,
        "num_warps": NUM_WARPS,
        **dependent_launch(pixels.device),
    }
    return KernelCall((triton.cdiv(out.numel(), block),), arguments, options)


def patchify(
    pixels: Tensor,
    *,
    image_size: int,
    patch_size: int,
    padded_width: int,
    dtype: torch.dtype,
    pixel_scale: Tensor | None = None,
    pixel_shift: Tensor | None = None,
) -> Tensor:
    """Lay the patches of an image out as rows: as the reference, by the kernel.

    Args:
        pixels: `[B, channels, R*S, C*S]`, uint8, float16, bfloat16 or float32, any strides.
        image_size: S, the side of a tile.
        patch_size: p, the side of a patch.
        padded_width: Columns of the result.
        dtype: Float type of the result.
        pixel_scale: float32 `[channels]`, or `None`.
        pixel_shift: float32 `[channels]`, or `None`.

    Returns:
        `[B*R*C, (S/p)^2, padded_width]`.

    Raises:
        ValueError: The shapes or dtypes do not fit, or the kernel cannot take the inputs.
    """
    check_patchify(pixels, image_size, patch_size, padded_width, pixel_scale, pixel_shift)
    scaling = {"pixel_scale": pixel_scale, "pixel_shift": pixel_shift}
    reason = explain_patchify(
        pixels, patch_size=patch_size, padded_width=padded_width, dtype=dtype, **scaling
    )
    if reason is not None:
        raise ValueError(reason)
    tiles = pixels.shape[0] * (pixels.shape[-2] // image_size) * (pixels.shape[-1] // image_size)
    shape = (tiles, (image_size // patch_size) ** 2, padded_width)
    out = torch.empty(shape, dtype=dtype, device=pixels.device)
    grid, arguments, options = launch_patchify(
        pixels, out, image_size=image_size, patch_size=patch_size, **scaling
    )
    with device_guard(pixels):
        patchify_kernel[grid](*arguments, **options)
    return out
