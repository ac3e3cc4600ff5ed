"""Which kernels ONNX Runtime chooses for a quantized graph: the pattern of Q and DQ may fuse, or it may not.

A pair that does not fuse is correct and slow: it computes in floating point what it was to save.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from pargo_export.errors import QuantizationError

__all__ = ["IntegerKernels", "count_integer_kernels"]

_INTEGER = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
_WEIGHT_ONLY = frozenset({"MatMulNBits"})  # 8-bit weights, float activations
_FLOAT = frozenset({"Conv", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"})
_PASSES_WEIGHTS_ON = frozenset({"Cast", "DequantizeLinear", "Reshape", "Transpose"})
_EXTERNAL_ABOVE_BYTES = "1024"
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class IntegerKernels:
    """What became of the products with a weight, and of quantized attention products, in ONNX Runtime's own graph.

    Attributes:
        integer: Number of products by integer kernel, for example `{"MatMulIntegerToFloat": 60}`.
        weight_only: Number of products that unpack 8-bit weights by themselves, by kernel.
        floats: Products with a weight that compute in floating point, by node name.
        leftover_qdq: DequantizeLinear nodes that fused into no kernel.
    """

    integer: dict[str, int]
    weight_only: dict[str, int]
    floats: tuple[str, ...]
    leftover_qdq: int

    @property
    def num_quantized(self) -> int:
        """Products whose operands stay quantized until the kernel."""
        return sum(self.integer.values()) + sum(self.weight_only.values())


def count_integer_kernels(graph: Path) -> IntegerKernels:
    """Let ONNX Runtime optimise a graph for the CPU and count its kernels; nothing is written beside the graph.

    Args:
        graph: The `.onnx` file.

    Raises:
        QuantizationError: ONNX Runtime refuses the graph, as it does bfloat16 on a CPU.
    """
    with tempfile.TemporaryDirectory(prefix="pargo-kernels-") as folder:
        optimised = _optimise(graph, Path(folder))
    nodes = optimised.graph.node
    weights = _weights(optimised)
    products = Counter(node.op_type for node in nodes)
    return IntegerKernels(
        integer={name: products[name] for name in sorted(_INTEGER & products.keys())},
        weight_only={name: products[name] for name in sorted(_WEIGHT_ONLY & products.keys())},
        floats=tuple(node.name for node in nodes if node.op_type in _FLOAT and node.input[1] in weights),
        leftover_qdq=products["DequantizeLinear"],
    )


def _weights(model: onnx.ModelProto) -> set[str]:
    """Return the matrices and convolution kernels, as they are stored and as they reach a product.

    Constants of attention, such as the queries of the first layer, are no weights: a batch axis comes first.
    """
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    weights |= {node.input[1] for node in model.graph.node if "Conv" in node.op_type}
    for node in model.graph.node:  # in topological order
        if node.op_type in _PASSES_WEIGHTS_ON and node.input[0] in weights:
            weights.update(node.output)
    return weights


def _optimise(graph: Path, folder: Path) -> onnx.ModelProto:
    """Return ONNX Runtime's graph without its weights, which go into `folder` and not through memory."""
    path = folder / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(path)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", "optimised.data"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", _EXTERNAL_ABOVE_BYTES),
        ("session.disable_prepacking", "1"),
    ):
        options.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise QuantizationError(f"ONNX Runtime refuses the graph: {str(error).splitlines()[-1]}") from error
    return onnx.load(path, load_external_data=False)
