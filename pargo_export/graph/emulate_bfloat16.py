"""Run a bfloat16 graph where no bfloat16 kernels exist.

ONNX Runtime's CPU provider lacks bfloat16 matrix products. The emulated graph computes every operator in
float32 and rounds every value that the graph declares bfloat16 to bfloat16: what a GPU does, which
multiplies bfloat16 operands and accumulates in float32.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
from onnx import NodeProto, TensorProto, helper

__all__ = ["emulate_bfloat16"]

_BFLOAT16 = TensorProto.BFLOAT16
_FLOAT = TensorProto.FLOAT


def _bfloat16_values(model: onnx.ModelProto) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    return {value.name for value in values if value.type.tensor_type.elem_type == _BFLOAT16}


def _computed_in_float32(node: NodeProto, rounded: set[str], weights: set[str]) -> list[NodeProto]:
    """Return the nodes that replace `node`."""
    changed = NodeProto()
    changed.CopyFrom(node)
    for index, name in enumerate(node.input):
        if name in weights:
            changed.input[index] = f"{name}::float32"
    if node.op_type == "Cast":
        for attribute in changed.attribute:
            if attribute.name == "to" and attribute.i == _BFLOAT16:
                attribute.i = _FLOAT
    after = []
    for index, name in enumerate(node.output):
        if name not in rounded:
            continue
        raw, cut = f"{name}::exact", f"{name}::bfloat16"
        if node.op_type == "Constant":
            raw = cut
        else:
            after.append(helper.make_node("Cast", [raw], [cut], to=_BFLOAT16))
        changed.output[index] = raw
        after.append(helper.make_node("Cast", [cut], [name], to=_FLOAT))
    return [changed, *after]


def emulate_bfloat16(graph: Path) -> None:
    """Rewrite the graph file in place; weights files stay untouched.

    Args:
        graph: An `.onnx` file with bfloat16 weights and float32 inputs.
    """
    model = onnx.inliner.inline_local_functions(onnx.load(graph, load_external_data=False))
    rounded = _bfloat16_values(model)
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type == _BFLOAT16}
    nodes = [helper.make_node("Cast", [name], [f"{name}::float32"], to=_FLOAT) for name in sorted(weights)]
    for node in model.graph.node:
        nodes += _computed_in_float32(node, rounded, weights)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.CopyFrom(onnx.ValueInfoProto(name=output.name))
    onnx.save(model, graph)
