"""Programs of the backend `cuda` on the CPU, where they compute with plain PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from pargo_export.bundle import Bundle, Variant
from pargo_export.graph.emulate_half import emulated
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.preprocessing import PreprocessSpec
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.fold_normalization import fold_normalization
from pargo_export.rewrite.registry import select_rewrites
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.program import Program
from pargo_export.runtime.cuda.weights import Weights

__all__ = ["OPTIONS", "preprocessing_of", "program_of", "run_onnx"]

OPTIONS = (  # golden cases and odd models are so small that `fused_projector_rows` holds them all, unless it is 0
    ProgramOptions(),
    ProgramOptions(accumulate_in_product=False, fused_projector_rows=0),
    ProgramOptions(rotate_in_place=False, fused_projector_rows=0),
    ProgramOptions(accumulate_in_product=False, rotate_in_place=False),
)


def preprocessing_of(model: VisualFrontEnd) -> PreprocessSpec:
    """Return the default preprocessing for a model."""
    height, width = model.config.input_size
    return PreprocessSpec(height=height, width=width)


def program_of(
    model: VisualFrontEnd,
    *,
    dtype: torch.dtype = torch.float64,
    component: Any = "all",
    input_kind: Any = "float",
    without: tuple[str, ...] = (),
    options: ProgramOptions | None = None,
) -> Program:
    """Return the program of a deploy module of `model`, made as an export for `cuda` does but for some rewrites."""
    preprocessing = preprocessing_of(model)
    rewrites = select_rewrites("cuda", without=without, component=component)
    if input_kind == "uint8":
        rewrites.insert(0, fold_normalization(preprocessing.mean, preprocessing.std))
    deployed, results = deploy_module(model, rewrites, "fused", dtype)
    spec = ProgramSpec(
        component=component,
        input=input_kind,
        dtype=dtype,
        rewrites=[result.name for result in results if result.count],
        preprocessing=preprocessing,
    )
    weights = Weights(deployed.state_dict() | dict(deployed.named_buffers()))
    return Program(weights, model.config, spec, options)


def run_onnx(bundle: Bundle, variant: Variant, values: Tensor) -> NDArray[np.float32]:
    """Run the graph of a variant, bfloat16 emulated, in ONNX Runtime."""
    path = bundle.file(variant.graph)
    model = path.read_bytes() if variant.precision != "bfloat16" else None
    if model is None:
        model = emulated(onnx.load(path), "bfloat16").SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    if (
        variant.precision == "fp8"
    ):  # some versions move Q and DQ into the attention, and refuse what comes of it
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options)
    return session.run(None, {variant.signature.inputs[0].name: values.numpy()})[0]
