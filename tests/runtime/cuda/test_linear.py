"""Linears in three precisions, and how their pending factors are applied."""

from __future__ import annotations

import pytest
import torch
from tolerances import TOLERANCES

from pargo_export.errors import BackendError
from pargo_export.runtime.cuda import linear
from pargo_export.runtime.cuda.linear import FloatLinear, finish, load_linear, quantized_for
from pargo_export.runtime.cuda.residual import Norm, ResidualWrite
from pargo_export.runtime.cuda.weights import QuantizedWeight, Weights

FLOAT32 = TOLERANCES["function-float32"].value
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn((2, 5, 16), generator=GENERATOR)
BIAS = torch.randn(32, generator=GENERATOR)


def quantized(dtype):
    """Return an 8-bit weight with channel scales that differ by a factor of four, and what it stands for."""
    scales = torch.linspace(0.5, 2.0, 32)
    values = (torch.randn((32, 16), generator=GENERATOR) * 8).round().clamp(-100, 100).to(dtype)
    return QuantizedWeight(values, scales, torch.tensor(0.03)), values.float() * scales[:, None]


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("bias", [None, BIAS], ids=["no bias", "bias"])
def test_quantized_linear(dtype, bias):
    """Activation scale, channel scales and bias are applied once each."""
    weight, dense = quantized(dtype)
    tensors = {} if bias is None else {"path.bias": bias}
    layer = load_linear(Weights(tensors, {"path": weight}), "path", torch.float32)
    x = quantized_for(layer, X)
    assert x.dtype == layer.quantize.dtype == dtype
    expected = (x.float() * 0.03) @ dense.T + (0 if bias is None else bias)
    found = finish(layer(x), torch.float32)
    assert found.shape == (2, 5, 32)
    assert torch.allclose(found, expected, rtol=1e-5, atol=TOLERANCES["quantize-integers"].value)


def test_float_linear_leaves_its_bias_to_the_fusion():
    """Unless it is asked to add it; either way `finish` gives the whole."""
    weight = torch.randn((32, 16), generator=GENERATOR)
    expected = X @ weight.T + BIAS
    pending, added = FloatLinear(weight, BIAS)(X), FloatLinear(weight, BIAS, bias_in_product=True)(X)
    assert pending.x_bias is BIAS
    assert added.x_bias is None
    assert torch.allclose(pending.value, X @ weight.T, atol=FLOAT32)
    for product in (pending, added):
        assert torch.allclose(finish(product, torch.float32), expected, atol=FLOAT32)


def test_biases_that_products_leave_out_are_added_by_the_norms():
    """Two writes in a row, in place, give the norms and the stream of two writes that keep the sum."""
    weights = [torch.randn((16, 16), generator=GENERATOR, dtype=torch.float64) for _ in range(2)]
    biases = [torch.randn(16, generator=GENERATOR, dtype=torch.float64) for _ in range(2)]
    norm = Norm(None, None, 1e-6)
    streams, left_out = {}, {}
    for accumulate in (False, True):
        stream, tokens, left_out[accumulate] = X.double().clone(), X.double(), None
        normalised = []
        for weight, bias in zip(weights, biases, strict=True):
            write = ResidualWrite(
                FloatLinear(weight, bias),
                norm,
                torch.float64,
                accumulate=accumulate,
                left_out=left_out[accumulate],
            )
            stream, tokens = write(tokens, stream)
            left_out[accumulate] = write.left_out
            normalised.append(tokens)
        streams[accumulate] = stream, normalised
    assert left_out[False] is None
    assert torch.allclose(left_out[True], biases[0] + biases[1])
    assert torch.allclose(streams[True][0] + left_out[True], streams[False][0])
    for found, expected in zip(streams[True][1], streams[False][1], strict=True):
        assert torch.allclose(found, expected)


def test_weight_of_another_float_type_is_refused():
    """A mixture would be computed by no library product."""
    weights = Weights({"path.weight": torch.zeros(4, 4)})
    with pytest.raises(BackendError, match=r"path: its weight is torch\.float32, expected torch\.float16"):
        load_linear(weights, "path", torch.float16)


@pytest.mark.parametrize(
    ("dtype", "shape", "multiple"), [(torch.int8, (12, 16), 8), (torch.float8_e4m3fn, (16, 40), 16)]
)
def test_unaligned_weights_are_refused_on_a_gpu(dtype, shape, multiple):
    """The library would fail in the first run; the refusal names the linear and two ways out."""

    class OnGpu:
        is_cuda = True

        def __init__(self, tensor):
            self.shape, self.dtype = tensor.shape, tensor.dtype

    weight = QuantizedWeight(OnGpu(torch.zeros(shape).to(dtype)), torch.ones(shape[0]), torch.tensor(1.0))
    with pytest.raises(BackendError, match=rf"multiples of {multiple}; keep it in float .*--keep path"):
        linear._check_alignment(weight, multiple, "path")
