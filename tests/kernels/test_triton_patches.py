"""The patch kernel agrees with the reference and stands for the patch convolution."""

from __future__ import annotations

import pytest
import torch
from fusion_cases import DEVICE, assert_same, poison_empty, random
from torch.nn import functional

from pargo_export.model.frontend import split_tiles
from pargo_kernels import reference_fusions

pytest.importorskip("triton")

from pargo_kernels import triton_patches

PIXEL_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
GRIDS = ((1, 1), (2, 1), (2, 3))


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    poison_empty(monkeypatch)


def pixels_of(dtype, rows, columns, size=12, batch=2):
    """Return an image of rows x columns tiles."""
    shape = (batch, 3, rows * size, columns * size)
    if dtype == torch.uint8:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, shape, generator=generator, dtype=dtype).to(DEVICE)
    return random(*shape, dtype=dtype)


def both(pixels, **options):
    """Return the result by the kernel and by the reference."""
    options = {"image_size": 12, "patch_size": 4, "padded_width": 64, "dtype": torch.float16, **options}
    return triton_patches.patchify(pixels, **options), reference_fusions.patchify(pixels, **options)


@pytest.mark.parametrize("dtype", PIXEL_DTYPES)
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_kernel_is_the_reference(rows, columns, dtype):
    """Every grid of tiles and every type of pixels, normalised or not; padded columns are 0."""
    pixels = pixels_of(dtype, rows, columns)
    scale, shift = torch.tensor([[0.01, 0.02, 0.03], [1.0, -2.0, 3.0]], device=DEVICE)
    for options in ({}, {"pixel_scale": scale}, {"pixel_shift": shift}):
        assert_same(*both(pixels, **options))
    found, expected = both(pixels, pixel_scale=scale, pixel_shift=shift, padded_width=49)
    assert_same(found, expected)
    assert (found[..., 48:] == 0).all()


@pytest.mark.parametrize("result", [torch.bfloat16, torch.float32])
def test_other_results(result):
    """Results of any float type, without padding."""
    assert_same(*both(pixels_of(torch.uint8, 1, 1), dtype=result, padded_width=48))


def test_any_strides():
    """Channels last, and a crop of a larger image."""
    pixels = pixels_of(torch.uint8, 2, 2)
    expected = both(pixels)[1]
    assert torch.equal(both(pixels.contiguous(memory_format=torch.channels_last))[0], expected)
    frame = functional.pad(pixels, (3, 5, 1, 2), value=9)
    assert torch.equal(both(frame[..., 1:-2, 3:-5])[0], expected)


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_patches_times_weight_are_the_convolution(rows, columns):
    """The product with the flattened kernel equals the patch convolution of every tile."""
    pixels, weight = pixels_of(torch.float32, rows, columns), random(7, 3, 4, 4, seed=1, scale=0.1)
    patches = both(pixels, dtype=torch.float32)[0]
    product = patches.double() @ functional.pad(weight.flatten(1), (0, 16)).double().T
    expected = functional.conv2d(split_tiles(pixels, 12).double(), weight.double(), stride=4)
    assert_same(product.float(), expected.flatten(2).transpose(1, 2).float())


def test_refusals_say_why():
    """What the kernel cannot take is named."""
    with pytest.raises(ValueError, match="overflow the kernel's 32-bit indices: split the batch"):
        both(torch.empty(1, 3, 12, 12, device=DEVICE).expand(2**22, -1, -1, -1))
    with pytest.raises(ValueError, match="x is float64"):
        both(pixels_of(torch.float32, 1, 1).double())
