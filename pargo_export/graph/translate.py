"""From a PyTorch module to ONNX, through `torch.onnx.export(dynamo=True)`."""

from __future__ import annotations

import onnx_ir as ir
import torch

from pargo_export.errors import ExportError
from pargo_export.graph.component import BATCH_AXIS, ComponentModule, example_input
from pargo_export.graph.options import ExportOptions
from pargo_export.graph.quiet_exporter import quiet_exporter
from pargo_export.graph.torch_ops import add_functions
from pargo_export.signature import Signature

__all__ = ["translate"]


def translate(
    module: ComponentModule, options: ExportOptions, signature: Signature, boundaries: list[str]
) -> ir.Model:
    """Trace `module` and return an ONNX model whose outputs are the signature's, then the boundaries.

    Raises:
        ExportError: PyTorch cannot trace or translate the module; the message carries its first line.
    """
    example = example_input(signature)
    dynamic = None
    if options.max_batch > 1:
        dynamic = ({0: torch.export.Dim(BATCH_AXIS, min=1, max=options.max_batch)},)
    try:
        with quiet_exporter(FutureWarning, DeprecationWarning), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=options.resolved_opset,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[*(spec.name for spec in signature.outputs), *boundaries],
                dynamic_shapes=dynamic,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        first_line = str(error).strip().splitlines()[0]
        raise ExportError(f"PyTorch could not export the model: {first_line}") from error
    if program is None:
        raise ExportError(
            "PyTorch returned no ONNX program; expected one from torch.onnx.export(dynamo=True)"
        )
    model: ir.Model = program.model
    if options.target != "cpu":
        _leave_softmax_precision_to_the_parser(model)
    add_functions(model)
    return model


def _leave_softmax_precision_to_the_parser(model: ir.Model) -> None:
    """TensorRT's parser refuses the attribute (seen with TensorRT-RTX 1.7: "Setting softmax precision is not ...")."""
    for node in model.graph:
        if node.op_type == "Attention":
            node.attributes.pop("softmax_precision", None)
