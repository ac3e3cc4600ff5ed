"""Exported graphs, and the reference beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from golden_cases import CASES, golden_model
from numpy.typing import NDArray
from rewrite.random_models import ODD_CONFIGS, random_config, random_model

from pargo_export.bundle import Variant
from pargo_export.graph.export import ExportResult
from pargo_export.model.frontend import VisualFrontEnd

__all__ = [
    "FORMS",
    "GOLDEN_EXPORTS",
    "MICRO",
    "Exported",
    "golden_id",
    "golden_options",
    "run",
    "source_model",
]

FORMS = ("fused", "structured", "dense", "attention_op")
# Every golden case in float32, and every precision and every form on several of them.
GOLDEN_EXPORTS = [
    ("pargo_w2", "fp32", "fused"),
    ("pargo_w2", "fp32", "structured"),
    ("pargo_w2", "fp32", "dense"),
    ("pargo_w2", "fp32", "attention_op"),
    ("pargo_w4_freq2", "fp32", "fused"),
    ("pargo_w4_freq2", "fp16", "dense"),
    ("pargo_w4_freq2", "bf16", "structured"),
    ("pargo_small_variance", "fp32", "structured"),
    ("pargo_small_variance", "fp16", "fused"),
    ("pargo_small_variance", "bf16", "attention_op"),
    ("qformer", "fp32", "attention_op"),
    ("linear", "fp32", "fused"),
    ("mlp", "fp32", "dense"),
]
MICRO = random_config(vision={"num_layers": 1}, num_layers=2, num_partial_tokens=18)


def golden_options(precision: str, attention: str) -> dict[str, Any]:
    """Return the options of one of `GOLDEN_EXPORTS`.

    A bfloat16 graph takes one image: other tests do not need it, and it is translated in half the time of a
    dynamic batch.
    """
    options: dict[str, Any] = {"precision": precision, "attention": attention}
    return options | ({"max_batch": 1} if precision == "bf16" else {})


def golden_id(values: tuple[str, str, str]) -> str:
    """Return the id of a test of one of `GOLDEN_EXPORTS`."""
    return "-".join(values)


def source_model(source: str) -> VisualFrontEnd:
    """Return a fresh reference: a golden case, an odd configuration or `micro`, the smallest there is.

    What is odd lies in the projector or in the sizes, so one block has to do: it makes exports shorter.
    """
    if source in CASES:
        return golden_model(source)
    if source == "micro":
        return random_model(MICRO)
    config = ODD_CONFIGS[source]
    vision = config.vision.model_copy(update={"num_layers": 1})
    return random_model(config.model_copy(update={"vision": vision}))


def run(graph: Path | bytes, values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """Run a graph of one input on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    content = graph if isinstance(graph, bytes) else str(graph)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})


@dataclass(frozen=True)
class Exported:
    """One export; do not write to its files.

    Attributes:
        result: What `export_onnx` returned.
        path: The graph file.
    """

    result: ExportResult
    path: Path

    @property
    def variant(self) -> Variant:
        """The variant in the bundle."""
        return self.result.variant

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The graph, weights included."""
        return onnx.load(self.path)

    @cached_property
    def operators(self) -> Counter[str]:
        """Number of nodes by operator, functions not expanded."""
        return Counter(node.op_type for node in self.model.graph.node)

    def run(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Run it on the CPU."""
        return run(self.path, values)[0]
