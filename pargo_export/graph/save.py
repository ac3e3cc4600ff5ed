"""Write a graph: described, checked, the same bytes for the same input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from pargo_export._version import __version__
from pargo_export.config import ModelConfig
from pargo_export.errors import ExportError
from pargo_export.signature import Signature

if TYPE_CHECKING:  # the options need PyTorch, writing a graph does not
    from pargo_export.graph.options import ExportOptions

__all__ = ["describe", "save_graph"]

# Protobuf stops at 2 GiB; well below it weights are handier in a file of their own, which can be mapped.
EXTERNAL_DATA_ABOVE_BYTES = 64 * 2**20
EXTERNAL_TENSOR_BYTES = 1024


def describe(
    model: ir.Model, config: ModelConfig, options: ExportOptions, signature: Signature, applied: list[str]
) -> None:
    """Write what the graph is into its metadata and doc strings."""
    model.producer_name, model.producer_version = "pargo-export", __version__
    model.domain, model.model_version = "pargo_export", 1
    model.graph.name = f"{config.projector.kind}-{options.component}"
    model.doc_string = (
        f"{config.projector.kind} visual front-end ({options.component}), {options.precision}, attention form "
        f"{options.attention_form}, for {options.target}. Nodes are named after the module they come from."
    )
    model.graph.doc_string = model.doc_string
    model.metadata_props.update(
        {
            "pargo.attention": options.attention_form,
            "pargo.component": options.component,
            "pargo.config": json.dumps(config.model_dump(mode="json"), sort_keys=True),
            "pargo.precision": options.precision,
            "pargo.rewrites": ",".join(applied),
            "pargo.target": options.target,
        }
    )
    descriptions = {spec.name: spec.description for spec in (*signature.inputs, *signature.outputs)}
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.doc_string = descriptions.get(value.name or "", "")


def save_graph(model: ir.Model, path: Path) -> list[Path]:
    """Write `model` to `path`, large weights beside it in `<name>.data`, and check the result.

    Returns:
        The files written.

    Raises:
        ExportError: The ONNX checker or strict shape inference refuses the graph.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    files = [path]
    if size > EXTERNAL_DATA_ABOVE_BYTES:
        data = path.with_name(path.name + ".data")
        ir.save(model, path, external_data=data.name, size_threshold_bytes=EXTERNAL_TENSOR_BYTES)
        files.append(data)
    else:
        # Weights of a graph that was read from disk may still lie beside it, where this one could not find them.
        ir.save(ir.external_data.load_to_model(model), path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    return files
