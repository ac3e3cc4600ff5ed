"""What TensorRT says when there is no engine, with advice. The texts are TensorRT's own."""

from __future__ import annotations

import pytest

from pargo_export.bundle import Bundle
from pargo_export.engine.refusals import describe_build_failure
from pargo_export.trt import load_tensorrt

pytest.importorskip("tensorrt_rtx")


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            "Tactic Selection: no tactics to implement the operation within workspace limit. Consider increase the",
            "allow more workspace",
        ),
        (
            "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[a...b]}.)",
            "most likely out of memory",
        ),
        (
            "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
            "out of memory: close",
        ),
        ("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)", "out of memory: close"),
        (
            "Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3.",
            "GPUs that have this number format",
        ),
        ("CHECK(composite_op->is_decomposable()) failed. Attention operation was not", "--attention fused"),
        ("(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)", "--target rtx:sm86"),
    ],
)
def test_advice_fits_what_tensorrt_says(engine_bundle, reason, advice):
    """The message has the settings, TensorRT's words and what to do."""
    variant = Bundle.open(engine_bundle).variant("fp16")
    message = describe_build_failure(load_tensorrt("rtx"), variant, reason, "batches 1-1-4")
    assert reason in message
    assert "variant 'fp16' (batches 1-1-4)" in message
    assert advice in message.partition(reason)[2]


def test_an_unknown_reason_is_told_without_advice(engine_bundle):
    """No guess is made."""
    variant = Bundle.open(engine_bundle).variant("fp16")
    message = describe_build_failure(load_tensorrt("rtx"), variant, "something new", "batches 1-1-4")
    assert message.endswith("(batches 1-1-4): something new")
