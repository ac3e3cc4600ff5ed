"""The products on the CPU: exact emulations of what the libraries compute on a GPU."""

from __future__ import annotations

import pytest
import torch
from tolerances import TOLERANCES

from pargo_kernels.products import float8_product, float_product, float_product_add, int8_product

HALF = TOLERANCES["cuda-products-half"].value
GENERATOR = torch.Generator().manual_seed(0)


def random(*shape, dtype=torch.float64):
    """Return normal values."""
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64).to(dtype)


def test_float_product():
    """`x @ weight^T`, with a bias if there is one, in the dtype of x."""
    x, weight, bias = random(5, 7), random(3, 7), random(3)
    assert torch.allclose(float_product(x, weight), x @ weight.T)
    assert torch.allclose(float_product(x, weight, bias), x @ weight.T + bias)
    assert float_product(x.half(), weight.half()).dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_float_product_add_writes_to_the_residual(dtype):
    """The same memory comes back, with the product added."""
    x, weight, residual = random(5, 8, dtype=dtype), random(3, 8, dtype=dtype), random(5, 3, dtype=dtype)
    expected = residual.double() + x.double() @ weight.double().T
    result = float_product_add(x, weight, residual)
    assert result.data_ptr() == residual.data_ptr()
    assert torch.allclose(result.double(), expected, atol=HALF if dtype == torch.float16 else 1e-12)


def test_int8_product_is_exact():
    """Largest magnitudes over a deep sum, for which float32 would not be enough."""
    x = torch.randint(-128, 128, (3, 4096), generator=GENERATOR, dtype=torch.int64)
    weight = torch.randint(-128, 128, (4, 4096), generator=GENERATOR, dtype=torch.int64)
    x[0], weight[0] = 127, 127
    x[1, ::2] = -128
    product = int8_product(x.to(torch.int8), weight.to(torch.int8))
    assert product.dtype == torch.int32
    assert torch.equal(product.long(), x @ weight.T)
    assert product[0, 0] == 127 * 127 * 4096


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_float8_product_applies_both_scales(dtype):
    """The product of the stored numbers, times both scales, rounded once."""
    x = random(4, 32).clamp(-3, 3).to(torch.float8_e4m3fn)
    weight = random(16, 32).to(torch.float8_e4m3fn)
    x_scale, weight_scale = torch.tensor(0.25), torch.tensor(3.0)
    product = float8_product(x, weight, x_scale, weight_scale, dtype=dtype)
    expected = (x.double() @ weight.double().T) * 0.75
    assert product.dtype == dtype
    assert torch.allclose(
        product.double(), expected, rtol=torch.finfo(dtype).eps, atol=TOLERANCES["function-float32"].value
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("rows", [1, 16, 17, 300])
def test_library_products_agree_with_the_emulation(rows):
    """On a GPU, for any number of rows, also those that the INT8 product of the library refuses."""
    x, weight = random(rows, 64), random(48, 64)
    integers = [(values * 20).round().clamp(-128, 127).to(torch.int8) for values in (x, weight)]
    assert torch.equal(int8_product(*(part.cuda() for part in integers)).cpu(), int8_product(*integers))
    halves = [part.half() for part in (x, weight)]
    found = float_product(*(part.cuda() for part in halves)).cpu()
    assert torch.allclose(found.float(), float_product(*(part.float() for part in halves)), atol=HALF)
    residual = random(rows, 48, dtype=torch.float16)
    expected = residual.float() + float_product(*(part.float() for part in halves))
    added = float_product_add(*(part.cuda() for part in halves), residual.cuda()).cpu()
    assert torch.allclose(added.float(), expected, atol=HALF)
    if torch.cuda.get_device_capability() >= (8, 9):
        eighths = [part.to(torch.float8_e4m3fn) for part in (x, weight)]
        scales = [torch.tensor(0.5), torch.tensor(2.0)]
        expected = float8_product(*eighths, *scales, dtype=torch.float32)
        found = float8_product(*(part.cuda() for part in (*eighths, *scales)), dtype=torch.float16).cpu()
        assert torch.allclose(found.float(), expected, atol=HALF)
