"""Export a trained ParGo visual front-end to ONNX and run it, verified and measured, on edge devices.

::

    from pargo_export import Runtime, calibrate, export_onnx, load_checkpoint, quantize

    model = load_checkpoint("pargo.safetensors")   # strict, weights only
    export_onnx(model, "bundle")                   # ONNX + manifest, held against the reference
    calibrate("bundle", "photos/")                 # ranges of the activations
    quantize("bundle", precision="int8")           # held against images that calibration did not see
    with Runtime.open("bundle") as runtime:        # needs no PyTorch
        visual_tokens = runtime.encode(["photo.jpg"])   # float32 [1, Q, C_llm]

A language model behind it: `Chat`, `open_language_model`; a benchmark of both: `evaluate_mme`, `score_only`; a data set
instead of a picture: `encode_dataset`, `open_encoded`.

Names are loaded when they are first used: importing this package imports neither PyTorch nor ONNX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pargo_export._version import __version__
from pargo_export.errors import (
    AccuracyError,
    BackendError,
    BundleError,
    CalibrationError,
    CheckpointError,
    ConfigError,
    EngineError,
    ExportError,
    ImageError,
    InputError,
    IntegrityError,
    MissingDependencyError,
    PargoExportError,
    ParityError,
    QuantizationError,
    StateDictError,
    UnsafeCheckpointError,
)

if TYPE_CHECKING:
    from pargo_export.bench.benchmark import benchmark
    from pargo_export.bench.options import BenchOptions
    from pargo_export.bench.records import BenchResult
    from pargo_export.bundle import Bundle
    from pargo_export.config import ModelConfig, ProjectorConfig, VisionConfig
    from pargo_export.deploy import DeployOptions, DeployResult, deploy_engine
    from pargo_export.encoding import (
        EncodedDataset,
        EncodedTokens,
        EncodeOptions,
        encode_dataset,
        open_encoded,
    )
    from pargo_export.engine.build import EngineResult, build_engine
    from pargo_export.engine.options import EngineOptions
    from pargo_export.estimation.predict import Estimate, estimate
    from pargo_export.evaluation.language_model import describe_chat
    from pargo_export.evaluation.mme import read_mme
    from pargo_export.evaluation.mme.evaluate import MmeOptions, evaluate_mme
    from pargo_export.evaluation.mme.records import MmeEvaluation
    from pargo_export.evaluation.mme.score_only import score_only
    from pargo_export.graph.export import ExportResult, export_onnx
    from pargo_export.graph.options import ExportOptions
    from pargo_export.graph.verify import VerifyReport, verify
    from pargo_export.llm import Chat, GenerationSettings, open_language_model
    from pargo_export.llm.onnx import export_language_model
    from pargo_export.model.loading import load_checkpoint
    from pargo_export.model.sample import write_sample
    from pargo_export.quantization.calibrate import CalibrateOptions, CalibrationResult, calibrate
    from pargo_export.quantization.options import QuantizeOptions
    from pargo_export.quantization.quantize import QuantizeResult, quantize
    from pargo_export.runtime import Runtime

__all__ = [
    "AccuracyError",
    "BackendError",
    "BenchOptions",
    "BenchResult",
    "Bundle",
    "BundleError",
    "CalibrateOptions",
    "CalibrationError",
    "CalibrationResult",
    "Chat",
    "CheckpointError",
    "ConfigError",
    "DeployOptions",
    "DeployResult",
    "EncodeOptions",
    "EncodedDataset",
    "EncodedTokens",
    "EngineError",
    "EngineOptions",
    "EngineResult",
    "Estimate",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "GenerationSettings",
    "ImageError",
    "InputError",
    "IntegrityError",
    "MissingDependencyError",
    "MmeEvaluation",
    "MmeOptions",
    "ModelConfig",
    "PargoExportError",
    "ParityError",
    "ProjectorConfig",
    "QuantizationError",
    "QuantizeOptions",
    "QuantizeResult",
    "Runtime",
    "StateDictError",
    "UnsafeCheckpointError",
    "VerifyReport",
    "VisionConfig",
    "__version__",
    "benchmark",
    "build_engine",
    "calibrate",
    "deploy_engine",
    "describe_chat",
    "encode_dataset",
    "estimate",
    "evaluate_mme",
    "export_language_model",
    "export_onnx",
    "load_checkpoint",
    "open_encoded",
    "open_language_model",
    "quantize",
    "read_mme",
    "score_only",
    "verify",
    "write_sample",
]

_LAZY = {
    "BenchOptions": "pargo_export.bench.options",
    "BenchResult": "pargo_export.bench.records",
    "Bundle": "pargo_export.bundle",
    "CalibrateOptions": "pargo_export.quantization.calibrate",
    "CalibrationResult": "pargo_export.quantization.calibrate",
    "Chat": "pargo_export.llm",
    "DeployOptions": "pargo_export.deploy",
    "DeployResult": "pargo_export.deploy",
    "EncodeOptions": "pargo_export.encoding",
    "EncodedDataset": "pargo_export.encoding",
    "EncodedTokens": "pargo_export.encoding",
    "EngineOptions": "pargo_export.engine.options",
    "EngineResult": "pargo_export.engine.build",
    "Estimate": "pargo_export.estimation.predict",
    "ExportOptions": "pargo_export.graph.options",
    "ExportResult": "pargo_export.graph.export",
    "GenerationSettings": "pargo_export.llm",
    "MmeEvaluation": "pargo_export.evaluation.mme.records",
    "MmeOptions": "pargo_export.evaluation.mme.evaluate",
    "ModelConfig": "pargo_export.config",
    "ProjectorConfig": "pargo_export.config",
    "QuantizeOptions": "pargo_export.quantization.options",
    "QuantizeResult": "pargo_export.quantization.quantize",
    "Runtime": "pargo_export.runtime",
    "VerifyReport": "pargo_export.graph.verify",
    "VisionConfig": "pargo_export.config",
    "benchmark": "pargo_export.bench.benchmark",
    "build_engine": "pargo_export.engine.build",
    "calibrate": "pargo_export.quantization.calibrate",
    "deploy_engine": "pargo_export.deploy",
    "describe_chat": "pargo_export.evaluation.language_model",
    "encode_dataset": "pargo_export.encoding",
    "estimate": "pargo_export.estimation.predict",
    "evaluate_mme": "pargo_export.evaluation.mme.evaluate",
    "export_language_model": "pargo_export.llm.onnx",
    "export_onnx": "pargo_export.graph.export",
    "load_checkpoint": "pargo_export.model.loading",
    "open_encoded": "pargo_export.encoding",
    "open_language_model": "pargo_export.llm",
    "quantize": "pargo_export.quantization.quantize",
    "read_mme": "pargo_export.evaluation.mme",
    "score_only": "pargo_export.evaluation.mme.score_only",
    "verify": "pargo_export.graph.verify",
    "write_sample": "pargo_export.model.sample",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == __name__:
            raise
        on_device = any(stage in _LAZY[name] for stage in (".quantization.", ".engine.", ".deploy"))
        extra = "quantize" if on_device else "export"
        raise MissingDependencyError(
            f"pargo_export.{name} needs {missing}: pip install 'pargo-export[{extra}]'", name=missing
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
