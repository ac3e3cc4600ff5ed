"""The one table of numerical tolerances: every number that a test forgives, and why."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOLERANCES", "Tolerance"]


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from what is expected.

    Attributes:
        value: Largest absolute difference that passes.
        reason: Where the difference comes from.
    """

    value: float
    reason: str


TOLERANCES = {
    "preprocess-lossless": Tolerance(1e-6, "same bytes; float32 rounding of (x / 255 - mean) / std"),
    "preprocess-jpeg-levels": Tolerance(2, "8-bit levels by which JPEG decoders differ"),
    "preprocess-jpeg-photo-levels": Tolerance(
        3, "mean 8-bit levels that JPEG at quality 95 loses of a photograph"
    ),
    "golden-reference": Tolerance(
        5e-5, "float32 noise of the official outputs is 1.1e-5, the smallest mistake costs 1e-4"
    ),
    "runtime-batching": Tolerance(
        1e-5, "float32 sums in another order, by batch size or component; measured 2.0e-6"
    ),
    "runtime-uint8-graph": Tolerance(
        5e-5, "normalisation folded into the patch weights, float32; measured 1.4e-5"
    ),
    "rewrite-float64": Tolerance(
        1e-12, "float64 sums in another order (measured 9e-15); the smallest mistake costs 1e-5"
    ),
    "attention-half": Tolerance(
        3e-2, "bfloat16 scores and weights of order 1, three significant digits (measured 1.0e-2)"
    ),
    "function-float32": Tolerance(1e-5, "float32 attention of a few dozen terms of order 1 (measured 1e-6)"),
    "padded-norm-float64": Tolerance(
        1e-11, "float64; a mean of 500 deviations costs three digits on the way to the centred values"
    ),
    "padded-norm-float32": Tolerance(5e-6, "float32 statistics over 2730 channels (measured 1e-6)"),
    "padded-norm-half": Tolerance(6e-2, "bfloat16 output of order 3 and its gain (measured 2e-2)"),
    "float16-model": Tolerance(
        5e-2, "float16 weights and activations of a small random model (measured 1.2e-2)"
    ),
    "export-fp32": Tolerance(
        1e-4, "float32 sums in another order (measured 1.05e-5); the smallest mistake costs 4e-4"
    ),
    "export-fp32-direction": Tolerance(1e-6, "1 - cosine of a token, float32 (measured 2e-7)"),
    "export-fp16": Tolerance(
        5e-2, "float16 weights and activations (measured 1.2e-2); any wrong mask costs 0.25"
    ),
    "export-fp16-direction": Tolerance(1e-3, "1 - cosine of a token in float16 (measured 1e-5)"),
    "export-bf16": Tolerance(
        4e-1, "bfloat16 weights and activations, three digits less than float16 (measured 0.126)"
    ),
    "export-bf16-direction": Tolerance(1e-2, "1 - cosine of a token in bfloat16 (measured 9e-4)"),
    "export-forms": Tolerance(3e-5, "two float32 graphs, each within 1.05e-5 of the reference"),
    "quantize-integers": Tolerance(
        2e-5, "float32 sum of a dozen products of integers and scales, of order 20 (measured 2e-6)"
    ),
    "smooth-float32": Tolerance(
        5e-6, "a gain divided and a weight multiplied, float32, per unit of the output (measured 2e-7)"
    ),
    "smooth-network": Tolerance(
        3e-5, "float32 rounding of every smoothed gain and weight of a network (measured 5e-6)"
    ),
    "runtime-backends": Tolerance(
        5e-5, "float32 sums in another order, ONNX Runtime and OpenVINO (measured 6.6e-6)"
    ),
    "runtime-backends-float16": Tolerance(
        3e-2, "float16 rounded at every node by the one, never by the other (measured 7e-3)"
    ),
    "runtime-bfloat16": Tolerance(
        2e-1, "bfloat16 products of a small random model (measured 0.11); any wrong mask costs 0.25"
    ),
    "function-float16-rounding": Tolerance(
        2e-3, "one rounding of values of order 1 to float16 (measured 5e-4)"
    ),
    "quantize-self-attention": Tolerance(
        1e-3, "1 - cosine that 8-bit attention weights and keys of 22 queries cost (measured 1.2e-4)"
    ),
    "fused-float16": Tolerance(
        2e-3, "relative norm; float16 rounds weights and results to 2^-11, relative (measured 5e-4)"
    ),
    "fused-bfloat16": Tolerance(
        1.6e-2, "relative norm; bfloat16 rounds weights and results to 2^-8, relative (measured 4e-3)"
    ),
    "attention-kernel-float32": Tolerance(
        2e-6, "relative norm; float32 sums in another order, exp2 in hardware (measured 1.5e-7)"
    ),
    "attention-kernel-float16": Tolerance(
        1e-3, "relative norm; weights and result rounded to float16 (measured 2.6e-4), a wrong row costs 5e-2"
    ),
    "attention-kernel-bfloat16": Tolerance(
        1e-2,
        "relative norm; weights and result in bfloat16, which Triton's interpreter truncates to (measured 4.9e-3)",
    ),
    "attention-kernel-large-scores": Tolerance(
        1e-3, "relative norm; float32 scores of hundreds know their difference to the maximum to 1e-4"
    ),
    "fusion-float16": Tolerance(1e-3, "one rounding to float16, per unit of values above 1"),
    "fusion-bfloat16": Tolerance(
        3.2e-2, "one rounding to bfloat16 of the sum, one of the result; Triton's interpreter cuts off"
    ),
    "fusion-float32": Tolerance(1e-6, "float32 sums in another order, per unit of values above 1"),
    "fusion-quantized-share": Tolerance(
        1e-2, "share of values one step apart: those that lie between two steps"
    ),
    "fusion-large-mean": Tolerance(
        2e-4, "float32 mean of 100 over deviations of 0.1: three digits less than float32"
    ),
    "cuda-quantized-float32": Tolerance(
        6e-2,
        "relative norm; 8-bit numbers that fall to the other side of a step (measured 1e-7; ONNX Runtime with and "
        "without its optimizations 5e-2)",
    ),
    "cuda-quantized-half": Tolerance(
        1.6e-1,
        "relative norm; as above with halves between the products (measured 0.113 FP8, 0.043 INT8); one missing "
        "bias costs 0.5",
    ),
    "cuda-products-half": Tolerance(
        6e-2, "float16 result of a sum of 64 products of order 30, and FP8 with fast accumulation"
    ),
}
