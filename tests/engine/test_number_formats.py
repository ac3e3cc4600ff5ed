"""Which GPU multiplies in which number format."""

from __future__ import annotations

import re

import pytest

from pargo_export.bundle import Bundle
from pargo_export.engine.number_formats import find_format_refusal


@pytest.mark.parametrize(
    ("variant", "capabilities", "message"),
    [
        ("fp8", ("8.6",), r"computes in FP8, which compute capability 8\.6 does not have; .*H100 \(9\.0\)"),
        ("fp8", ("8.7",), r"8\.7 does not have; .*--int8 --target orin"),
        ("fp8", ("8.6", "8.9"), r"capability 8\.6 does"),
        ("fp8", ("8.9", "11.0", "12.0"), None),
        ("bf16", ("7.5",), r"BF16.*7\.5"),
        ("bf16", ("8.7",), None),
        ("int8", ("7.5",), None),
        ("fp8", (), None),
    ],
)
def test_formats_that_a_gpu_lacks_are_named_with_a_mend(engine_bundle, variant, capabilities, message):
    """FP8 begins at 8.9 and BF16 at 8.0; unknown GPUs refuse nothing."""
    found = find_format_refusal(Bundle.open(engine_bundle).variant(variant), capabilities)
    if message is None:
        assert found is None
    else:
        assert re.search(message, found)


def test_the_float_part_counts_too(engine_bundle):
    """INT8 with the rest in BF16 needs BF16."""
    variant = Bundle.open(engine_bundle).variant("int8")
    quantization = variant.quantization.model_copy(update={"float_precision": "bfloat16"})
    mixed = variant.model_copy(update={"quantization": quantization})
    assert "BF16" in find_format_refusal(mixed, ("7.5",))
