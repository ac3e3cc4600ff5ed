"""Quantized variants on the CPU backends: which one is chosen, and that both compute the same."""

from __future__ import annotations

import numpy as np
import pytest

from pargo_export import Runtime
from pargo_export.assets import PHOTOGRAPH
from pargo_export.graph.comparison import compare

pytest.importorskip("openvino", reason="openvino is not installed")


def test_the_runtime_prefers_the_quantized_variant_for_cpus(quantized_bundle):
    """Among every kind of variant the one with the `cpu` dialect is taken, on the backend that is fastest with it."""
    with Runtime.open(quantized_bundle) as runtime:
        assert (runtime.variant.name, runtime.backend) == ("int8-cpu", "openvino")


@pytest.mark.parametrize("variant", ["int8-cpu", "int8-cuda", "int8-fp32", "weights-cpu"])
def test_both_backends_compute_the_same(quantized_bundle, variant):
    """OpenVINO and ONNX Runtime differ by less than quantization itself costs."""
    outputs = {}
    for backend, name in (("onnxruntime", "fp32"), ("onnxruntime", variant), ("openvino", variant)):
        with Runtime.open(quantized_bundle, backend=backend, variant=name) as runtime:
            outputs[backend, name] = runtime.encode(PHOTOGRAPH)
    exact = outputs["onnxruntime", "fp32"]
    cost = compare("visual_tokens", "photograph", exact, outputs["onnxruntime", variant])
    apart = compare(
        "visual_tokens", "photograph", outputs["onnxruntime", variant], outputs["openvino", variant]
    )
    assert np.isfinite(outputs["openvino", variant]).all()
    assert cost.max_abs > 0
    assert (
        apart.sqnr_db > cost.sqnr_db - 3
    )  # rounding at the edges of integers differs, by half a step at most
    found = compare("visual_tokens", "photograph", exact, outputs["openvino", variant])
    assert found.sqnr_db == pytest.approx(cost.sqnr_db, abs=2)
