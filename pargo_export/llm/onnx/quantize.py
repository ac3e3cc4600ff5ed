"""Weights of 8 or 4 bits in blocks, products in float32: `MatMulNBits` of ONNX Runtime, by its own quantizer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from pargo_export.errors import QuantizationError
from pargo_export.optional import require

__all__ = ["quantize_weights"]

_QUANTIZER = "onnxruntime.quantization.matmul_nbits_quantizer"
_BLOCK_SIZE = 32  # as ONNX Runtime GenAI has it; with 128 inputs a block 8 bits lost three times as much
_FLOAT32_PRODUCTS = 1  # accuracy level: activations are not rounded


def quantize_weights(graph: Path, output: Path, bits: int) -> int:
    """Write `graph` with the weights of its products in `bits` bits, rounded to nearest in blocks with a zero point.

    Args:
        graph: The float32 graph, its weights beside it.
        output: The `.onnx` file to write, weights beside it in `<name>.data`.
        bits: 8 or 4.

    Returns:
        How many products have such weights now.

    Raises:
        QuantizationError: None has.
        MissingDependencyError: onnx or ONNX Runtime is not installed.
    """
    with _quiet_quantizer():
        module = require(_QUANTIZER, extra="quantize", purpose="quantize a language model")
        quantizer = module.MatMulNBitsQuantizer(
            onnx.load(graph),
            bits=bits,
            block_size=_BLOCK_SIZE,
            is_symmetric=False,
            accuracy_level=_FLOAT32_PRODUCTS,
        )
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    count = sum(node.op_type == "MatMulNBits" for node in quantized.graph.node)
    if not count:
        raise QuantizationError(
            f"found no products with constant weights in {graph.name}; export the language model in fp32"
        )
    onnx.save(quantized, output, save_as_external_data=True, location=f"{output.name}.data")
    return count


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Silence its line a node; when it is imported it sets the root logger up, which is not its business."""
    root, own = logging.getLogger(), logging.getLogger(_QUANTIZER)
    handlers, level, own_level = root.handlers[:], root.level, own.level
    own.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        own.setLevel(own_level)
