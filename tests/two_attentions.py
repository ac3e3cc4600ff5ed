"""A graph of both attention nodes, as small as it gets."""

from __future__ import annotations

import onnx

from pargo_export.graph.functions import attention_functions

ATTRIBUTES = {"num_heads": 2, "num_partial": 6, "num_global": 2, "window": 3}


def two_attentions() -> onnx.ModelProto:
    """Return a model in FP16: one query for a batch of images, then the tokens among themselves.

    Nodes: `cross` (key and value `[batch, 18, 32]`) and `self` (`[batch, 8, 32]`), each with its function.
    """
    node, value_info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    sizes = {name: ATTRIBUTES[name] for name in ("num_heads", "num_partial", "num_global")}
    inputs = ["query", "key", "value"]
    nodes = [
        node("PartialGlobalAttention", inputs, ["read"], name="cross", domain="pargo", **ATTRIBUTES),
        node(
            "BlockDiagonalAttention", ["read"] * 3, ["mixed"], name="self", domain="pargo", window=0, **sizes
        ),
    ]
    half = onnx.TensorProto.FLOAT16
    shapes = ([1, 8, 32], ["batch", 18, 32], ["batch", 18, 32])
    values = [value_info(name, half, shape) for name, shape in zip(inputs, shapes, strict=True)]
    return onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "two", values, [value_info("mixed", half, ["batch", 8, 32])]),
        opset_imports=[onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("pargo", 1)],
        functions=attention_functions(num_partial=6, num_global=2, scaled=False, cascaded=False, opset=20),
        ir_version=10,
    )
