"""Inputs and comparisons that the tests of the fusions share."""

from __future__ import annotations

import torch
from tolerances import TOLERANCES

from pargo_kernels.reference_fusions import Quantize

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where the kernels run: a GPU, or Triton's interpreter (see `tests/conftest.py`)."""

HALF_AND_FLOAT = (torch.float16, torch.bfloat16, torch.float32)
QUANTIZED = (torch.int8, torch.float8_e4m3fn)
LARGEST = {torch.int8: 127, torch.float8_e4m3fn: 448}
POISON = {torch.int8: 77, torch.float8_e4m3fn: float("nan")}


def random(*shape, dtype=torch.float32, seed=0, scale=1.0, mean=0.0):
    """Return normal numbers; for int32, what an INT8 GEMM gives."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if dtype == torch.int32:
        return (values * 3000).to(torch.int32).to(DEVICE)
    return (values * scale + mean).to(dtype).to(DEVICE)


def quantize_to(dtype):
    """Return a quantization to that dtype that saturates at about 2.4."""
    return Quantize(torch.tensor([2.4 / LARGEST[dtype]], device=DEVICE), dtype)


def poison_empty(monkeypatch):
    """Fill what `torch.empty` returns, so that a value that no kernel writes is found out."""
    empty = torch.empty

    def poisoned(*shape, **options):
        tensor = empty(*shape, **options)
        return tensor.fill_(POISON.get(tensor.dtype, float("nan")))

    monkeypatch.setattr(torch, "empty", poisoned)


def assert_same(found, expected):
    """Compare a kernel's result with the reference: one rounding apart, one step if quantized."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    error = (found.double() - expected.double()).abs()
    if expected.dtype in POISON:
        step = 1.0
        if expected.dtype == torch.float8_e4m3fn:
            step = (expected.double().abs() / 8).clamp(
                min=2.0**-9
            )  # an e4m3 value has 3 bits after the point
        assert (error <= step).all(), f"{(error > step).sum()} values more than one step away"
        return
    relative = (error / expected.double().abs().clamp(min=1.0)).max().item()
    assert relative <= TOLERANCES[f"fusion-{str(expected.dtype).removeprefix('torch.')}"].value, (
        f"{relative:.2e}"
    )


def assert_quantized(found, expected):
    """Compare quantized results: one step apart where a value lies between two, else equal; some saturate."""
    assert_same(found, expected)
    share = (found.double() != expected.double()).double().mean().item()
    assert share <= TOLERANCES["fusion-quantized-share"].value, f"{share:.1%} of the values differ"
    assert (expected.double() == LARGEST[expected.dtype]).any()
