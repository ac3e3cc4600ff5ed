"""GELU and the pending factor and bias by the kernel agree with the reference."""

from __future__ import annotations

import math

import pytest
import torch
from fusion_cases import (
    DEVICE,
    HALF_AND_FLOAT,
    QUANTIZED,
    assert_quantized,
    assert_same,
    poison_empty,
    quantize_to,
    random,
)

from pargo_kernels import reference_fusions
from pargo_kernels.reference_fusions import Quantize

pytest.importorskip("triton")

from pargo_kernels import triton_common, triton_elementwise
from pargo_kernels.triton_common import Launch

OPERATIONS = ("bias_gelu", "scale_bias")
SHAPES = ((2, 3, 37), (7, 64), (5,), (2, 2, 3, 12), (1, 2, 1500))


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    poison_empty(monkeypatch)


def both(operation, x, **options):
    """Return the result by the kernel and by the reference."""
    found = getattr(triton_elementwise, operation)(x, **options)
    options.pop("launch", None)
    return found, getattr(reference_fusions, operation)(x, **options)


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_kernel_is_the_reference(operation, shape, dtype):
    """Any number of axes and of channels, with and without a pending bias."""
    x, bias = random(*shape, dtype=dtype), random(shape[-1], dtype=dtype, seed=1)
    assert_same(*both(operation, x, x_bias=bias))
    assert_same(*both(operation, x))


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_integer_products(operation, dtype):
    """Raw INT8 products with their scales, with and without a bias; results of any float type."""
    x, factor = random(2, 3, 37, dtype=torch.int32), random(37, seed=1).abs() / 3000
    assert_same(*both(operation, x, x_scale=factor, dtype=dtype))
    assert_same(*both(operation, x, x_scale=factor, x_bias=random(37, dtype=dtype, seed=2), dtype=dtype))


@pytest.mark.parametrize("quantized", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_quantized_results(operation, dtype, quantized):
    """8-bit results are those of the reference."""
    x, bias = random(2, 8, 37, dtype=dtype), random(37, dtype=dtype, seed=1)
    assert_quantized(*both(operation, x, x_bias=bias, quantize=quantize_to(quantized)))


@pytest.mark.parametrize("view", ["rows", "columns", "both"])
@pytest.mark.parametrize("launch", [None, Launch(2, 1), Launch(8, 2)], ids=str)
def test_strided_rows_and_every_launch(view, launch):
    """Views of a wider tensor; rows per program need not divide the rows."""
    x = random(2, 6, 64, dtype=torch.float16)
    x = {"rows": x[:, 1:], "columns": x[..., 8:45], "both": x[:, 1:, 8:45]}[view]
    assert_same(*both("bias_gelu", x, launch=launch))


def test_int8_steps_and_ends():
    """Halves go to the even integer; what is out of range goes to its end."""
    x = torch.tensor([0.25, 0.75, 1.25, -0.25, -0.75, 63.5, 63.75, 64.0, 1e6, -64.0, -64.5, -1e6, math.inf])
    quantize = Quantize(torch.tensor(0.5, device=DEVICE), torch.int8)
    found = triton_elementwise.scale_bias(x.to(DEVICE), quantize=quantize)
    assert found.tolist() == [0, 2, 2, 0, -2, 127, 127, 127, 127, -128, -128, -128, 127]


def test_every_float8_value_and_every_middle():
    """All E4M3 values come back, middles between two go to the even one, NaN stays, the rest saturates."""
    codes = torch.arange(127, dtype=torch.uint8)  # 0 to 448
    values = codes.view(torch.float8_e4m3fn).float()
    middles = (values[1:] + values[:-1]) / 2
    x = torch.cat([values, middles, middles * 1.001, middles * 0.999, torch.tensor([460.0, 1e9, math.inf])])
    x = torch.cat([x, -x[1:], torch.tensor([math.nan])])
    expected = x.clamp(-448, 448).to(torch.float8_e4m3fn)
    quantize = Quantize(torch.tensor(1.0, device=DEVICE), torch.float8_e4m3fn)
    found = triton_elementwise.scale_bias(x.to(DEVICE), quantize=quantize).cpu()
    assert torch.equal(found.float()[:-1], expected.float()[:-1])
    if not triton_common.INTERPRETED:  # whose cast to float8 knows no NaN
        assert found.float()[-1].isnan()


def test_a_bias_of_another_float_type():
    """Bias and factor are read in their own type."""
    x = random(2, 3, 37, dtype=torch.float16)
    assert_same(*both("scale_bias", x, x_bias=random(37, seed=1), dtype=torch.float32))


def test_many_rows_choose_two_a_program():
    """A large batch takes two rows a program, an 8-bit result one."""
    assert triton_elementwise.choose_launch(304, 2048) == Launch(1, 4)
    assert triton_elementwise.choose_launch(8 * 304, 2048) == Launch(2, 4)
    assert triton_elementwise.choose_launch(8 * 304, 2048, wide_result=False) == Launch(1, 4)


def test_refusals_say_why():
    """What the kernel cannot take is named."""
    x = random(2, 2, 3, 4)
    with pytest.raises(ValueError, match="4 axes and is not contiguous"):
        triton_elementwise.bias_gelu(x[:, :1])
    with pytest.raises(ValueError, match=r"the results would be torch\.float64"):
        triton_elementwise.scale_bias(x, dtype=torch.float64)


def test_tensors_of_the_cpu_need_the_interpreter(monkeypatch):
    """Without a GPU and without the interpreter, the device is named."""
    monkeypatch.setattr(triton_common, "INTERPRETED", False)
    with pytest.raises(ValueError, match="x is on cpu, expected the CUDA device"):
        triton_elementwise.bias_gelu(random(2, 3).cpu())
