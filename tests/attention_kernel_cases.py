"""What the tests of the two attention kernels share: inputs, the float64 reference, and the comparison."""

from __future__ import annotations

import itertools

import pytest
import torch
from tolerances import TOLERANCES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
EMPTY = torch.empty

_seeds = itertools.count(20_241)


def tokens(*shape, dtype=torch.float32):
    """Return standard normal tokens, other ones at every call."""
    generator = torch.Generator().manual_seed(next(_seeds))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


def poisoned_empty(*shape, **options):
    """Allocate like `torch.empty`, but floats are NaN: what a kernel does not write shows."""
    empty = EMPTY(*shape, **options)
    return empty.fill_(torch.nan) if empty.is_floating_point() else empty


def check(found, reference, inputs, tolerance=None, **sizes):
    """Compare with the reference in float64 by relative norm; the tolerance goes by dtype unless named."""
    query, key = inputs[:2]
    expected = reference(*(tensor.double() for tensor in inputs), **sizes)
    assert found.dtype == query.dtype
    assert found.shape == (key.shape[0], *query.shape[1:])
    assert found.is_contiguous()
    error = ((found.double() - expected).norm() / expected.norm()).item()
    tolerance = tolerance or f"attention-kernel-{str(query.dtype).removeprefix('torch.')}"
    assert error <= TOLERANCES[tolerance].value, f"{error:.3g}"


BAD_INPUTS = [
    pytest.param({"query": (1, 8, 2, 6)}, {}, r"query has shape \[1, 8, 2, 6\], expected", id="rank"),
    pytest.param({"value": torch.float64}, {}, "value is torch.float64, expected", id="float64"),
    pytest.param({"key": torch.float16}, {}, "differ in dtype", id="mixed_dtypes"),
    pytest.param({"key": "meta"}, {}, "differ in device", id="mixed_devices"),
    pytest.param({"key": "strided"}, {}, "channels of key are 2 elements apart", id="strided_channels"),
    pytest.param({"value": (1, 8, 6)}, {}, "key .* and value .* differ in shape", id="value_shape"),
    pytest.param({"query": (1, 8, 6)}, {}, "query has width 6 and key 12", id="width"),
    pytest.param({"query": (3, 8, 12)}, {}, "query has batch 3, expected 1 or that of key, 1", id="batch"),
    pytest.param({}, {"num_global": 3}, "query has 8 tokens, but num_partial=6", id="counts"),
    pytest.param({}, {"num_partial": 9, "num_global": -1}, "non-negative counts", id="negative"),
    pytest.param({}, {"num_heads": 5}, "width 12 is not a positive multiple of num_heads=5", id="heads"),
    pytest.param({}, {"scale": float("nan")}, "scale is nan", id="scale"),
]


def bad_inputs(change, num_keys):
    """Return query [1, 8, 12], key and value [1, num_keys, 12], one of them changed."""
    made = {"query": tokens(1, 8, 12), "key": tokens(1, num_keys, 12), "value": tokens(1, num_keys, 12)}
    for name, how in change.items():
        if isinstance(how, tuple):
            made[name] = tokens(*how)
        elif how == "strided":
            made[name] = tokens(1, num_keys, 24)[..., ::2]
        else:
            made[name] = made[name].to(how)
    return list(made.values())
