"""The PyTorch operators as ONNX function nodes."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from tolerances import TOLERANCES

from pargo_export.errors import ExportError
from pargo_export.graph.torch_ops import add_functions, translation_table

HEADS, PARTIAL, GLOBAL, TOKENS, WIDTH = 2, 4, 2, 12, 8


class Layer(torch.nn.Module):
    """Cross-attention, then self-attention, by the operators."""

    def __init__(self, scale=0.5, window=0, num_partial=PARTIAL, num_global=GLOBAL):
        super().__init__()
        self.sizes = {
            "num_heads": HEADS,
            "num_partial": num_partial,
            "num_global": num_global,
            "scale": scale,
        }
        self.window = window

    def forward(self, query, key, value):
        """`[1, Q, C]` and `[B, N, C]` -> `[B, Q, C]`."""
        tokens = torch.ops.pargo.partial_global_attention(query, key, value, **self.sizes)
        return torch.ops.pargo.block_diagonal_attention(
            tokens, tokens, 2 * tokens, **self.sizes, partial_window=self.window
        )


def inputs(batch=2, num_queries=PARTIAL + GLOBAL):
    """Return a query of batch 1, key and value."""
    generator = torch.Generator().manual_seed(21)
    shapes = ((1, num_queries, WIDTH), (batch, TOKENS, WIDTH), (batch, TOKENS, WIDTH))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def export(module, tensors, *, dynamic_tokens=False):
    """Export with a dynamic batch and return the ONNX model, functions not yet added."""
    axes = {0: torch.export.Dim("batch", min=1, max=64)}
    if dynamic_tokens:
        axes[1] = 4 * torch.export.Dim("windows", min=1, max=64)
    program = torch.onnx.export(
        module.eval(),
        tensors,
        dynamo=True,
        opset_version=20,
        custom_translation_table=translation_table(),
        dynamic_shapes=({}, axes, axes),
        verbose=False,
    )
    return program.model


def run(model, tensors):
    """Run the model in ONNX Runtime."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    arrays = [tensor.numpy() for tensor in tensors]
    return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])


pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:.*The axis name. batch will not be used",  # key and value share it
)


def test_each_operator_is_one_node():
    """Domain, name and attributes are those that pargo_export.graph.functions documents; sizes must agree."""
    model = export(Layer(window=3), inputs())
    check_nodes(model)
    check_mixed_sizes_are_refused(model)


def check_nodes(model):
    """One node of each name with its attributes, nothing of the bodies."""
    cross, own = (node for node in model.graph if node.domain == "pargo")
    sizes = {"num_heads": HEADS, "num_partial": PARTIAL, "num_global": GLOBAL}
    assert cross.op_type == "PartialGlobalAttention"
    assert {name: attribute.value for name, attribute in cross.attributes.items()} == {
        **sizes,
        "window": TOKENS // PARTIAL,
        "scale": 0.5,
    }
    assert own.op_type == "BlockDiagonalAttention"
    assert own.attributes["window"].as_int() == 3
    assert {node.op_type for node in model.graph} <= {
        "PartialGlobalAttention",
        "BlockDiagonalAttention",
        "Mul",
    }


@pytest.mark.parametrize(
    ("scale", "window", "parts"),
    [(0.5, 0, (4, 2)), (1.0, 3, (4, 0)), (0.5, 0, (0, 3))],
    ids=["scaled", "window_without_global", "global_only"],
)
def test_onnx_runtime_runs_the_functions(scale, window, parts):
    """It has no such kernels, so it inlines the bodies; another batch size than the traced one."""
    module = Layer(scale, window, *parts)
    model = export(module, inputs(num_queries=sum(parts)))
    assert add_functions(model) == 2
    tensors = inputs(batch=5, num_queries=sum(parts))
    expected = module(*tensors)
    torch.testing.assert_close(
        run(model, tensors), expected, rtol=0, atol=TOLERANCES["function-float32"].value
    )
    has_scale = ["scale" in node.attributes for node in model.graph if node.domain == "pargo"]
    assert has_scale == [scale != 1.0] * 2


def test_the_window_must_be_known():
    """With a dynamic number of image tokens there is no attribute to write."""
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as info:
        export(Layer(), inputs(), dynamic_tokens=True)
    cause = info.value
    while cause is not None and not isinstance(cause, ExportError):
        cause = cause.__cause__
    assert "export the module with a fixed number of image tokens" in str(cause)


def check_mixed_sizes_are_refused(model):
    """One body serves all nodes of a name: with partial tokens or without."""
    node = next(node for node in model.graph if node.op_type == "BlockDiagonalAttention")
    node.attributes["num_partial"] = ir.AttrInt64("num_partial", 0)
    with pytest.raises(ExportError, match=r"have num_partial = 0, 4; one function body serves them all"):
        add_functions(model)


def test_a_graph_without_the_operators_is_left_alone():
    """Nothing is imported or added."""
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)
    assert add_functions(model) == 0
    assert model.opset_imports == {"": 20}
