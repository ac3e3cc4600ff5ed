"""ONNX for the operators of `pargo_kernels.torch_op`: one function node each, and the functions' bodies.

    program = torch.onnx.export(
        module, args, dynamo=True, custom_translation_table=translation_table()
    )
    add_functions(program.model)

The nodes and their attributes are those of `pargo_export.graph.functions`. A runtime that knows the node uses
its kernel; ONNX Runtime and every other one inlines the body. `add_functions` also completes a graph whose
nodes came from `attention="fused"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript.values

from pargo_export.errors import ExportError
from pargo_export.graph.functions import FUNCTION_DOMAIN, FUNCTION_DOMAIN_VERSION, attention_functions

__all__ = ["add_functions", "translation_table"]

_INTEGER_ATTRIBUTES = ("num_heads", "num_partial", "num_global", "window")


def _operator(name: str) -> onnxscript.values.Op:
    """Something the exporter can call to record one `pargo::` node.

    A plain schema, not an onnxscript function: the exporter inlines those (and fails on their attributes).
    """
    schema_type = onnx.defs.OpSchema
    schema = schema_type(
        name,
        FUNCTION_DOMAIN,
        FUNCTION_DOMAIN_VERSION,
        inputs=[schema_type.FormalParameter(part, "T") for part in ("query", "key", "value")],
        outputs=[schema_type.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "")],
        attributes=[
            *(schema_type.Attribute(key, schema_type.AttrType.INT) for key in _INTEGER_ATTRIBUTES),
            schema_type.Attribute("scale", schema_type.AttrType.FLOAT),
        ],
    )
    opset = onnxscript.values.Opset(FUNCTION_DOMAIN, FUNCTION_DOMAIN_VERSION)
    return onnxscript.values.Op(opset, name, schema)


def _partial_global_attention(
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
) -> ir.Value:
    tokens = key.shape[1] if key.shape is not None else None
    if num_partial and not isinstance(tokens, int):
        raise ExportError(
            f"the number of image tokens is {tokens}; pargo::PartialGlobalAttention stores the window, image "
            "tokens per partial token, so export the module with a fixed number of image tokens (the batch may "
            "be dynamic)"
        )
    window = tokens // num_partial if num_partial and isinstance(tokens, int) else 0
    return _operator("PartialGlobalAttention")(
        query,
        key,
        value,
        num_heads=num_heads,
        num_partial=num_partial,
        num_global=num_global,
        window=window,
        scale=scale,
    )


def _block_diagonal_attention(
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    *,
    num_heads: int,
    num_partial: int,
    num_global: int,
    scale: float,
    partial_window: int = 0,
) -> ir.Value:
    return _operator("BlockDiagonalAttention")(
        query,
        key,
        value,
        num_heads=num_heads,
        num_partial=num_partial,
        num_global=num_global,
        window=partial_window,
        scale=scale,
    )


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what `torch.onnx.export(dynamo=True, custom_translation_table=...)` needs for the operators.

    Registers the operators with PyTorch if nothing has yet.
    """
    import torch

    import pargo_kernels.torch_op  # noqa: F401 - registers torch.ops.pargo

    return {
        torch.ops.pargo.partial_global_attention.default: _partial_global_attention,
        torch.ops.pargo.block_diagonal_attention.default: _block_diagonal_attention,
    }


def add_functions(model: ir.Model) -> int:
    """Add the body of every `pargo::` function that the graph calls, and return how many were added.

    If no node scales its scores, the attribute `scale` goes and the bodies have no factor either.

    Raises:
        ExportError: Some nodes have partial (or global) tokens and others have none: one body serves all
            nodes of its name.
    """
    nodes = [node for node in model.graph if node.domain == FUNCTION_DOMAIN]
    if not nodes:
        return 0
    scaled = any(node.attributes["scale"].as_float() != 1.0 for node in nodes if "scale" in node.attributes)
    if not scaled:
        for node in nodes:
            node.attributes.pop("scale", None)
    functions = attention_functions(
        num_partial=_shared(nodes, "num_partial"),
        num_global=_shared(nodes, "num_global"),
        scaled=scaled,
        cascaded=any(
            node.op_type == "BlockDiagonalAttention" and node.attributes["window"].as_int() for node in nodes
        ),
        opset=model.opset_imports[""],
    )
    used = {node.op_type for node in nodes}
    for proto in functions:
        if proto.name in used:
            function = ir.serde.deserialize_function(proto)
            model.functions[function.identifier()] = function
    model.opset_imports[FUNCTION_DOMAIN] = FUNCTION_DOMAIN_VERSION
    return len(used)


def _shared(nodes: list[ir.Node], attribute: str) -> int:
    """A size of which only "none" or "some" matters to the bodies."""
    sizes = {node.attributes[attribute].as_int() for node in nodes}
    if 0 in sizes and len(sizes) > 1:
        raise ExportError(
            f"the graph's attention nodes have {attribute} = {', '.join(map(str, sorted(sizes)))}; one function "
            "body serves them all, so either every node or none may be 0; export the parts as separate models"
        )
    return max(sizes)
