"""Export a trained ParGo visual front-end to ONNX and run it, verified and measured, on edge devices.

::

    from pargo_export import Runtime, calibrate, export_onnx, load_checkpoint, quantize

    model = load_checkpoint("pargo.safetensors")   # strict, weights only
    export_onnx(model, "bundle")                   # ONNX + manifest, held against the reference
    calibrate("bundle", "photos/")                 # ranges of the activations
    quantize("bundle", precision="int8")           # held against images that calibration did not see
    with Runtime.open("bundle") as runtime:        # needs no PyTorch
        visual_tokens = runtime.encode(["photo.jpg"])   # float32 [1, Q, C_llm]

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
    from pargo_export.engine.build import EngineResult, build_engine
    from pargo_export.engine.options import EngineOptions
    from pargo_export.estimation.predict import Estimate, estimate
    from pargo_export.graph.export import ExportResult, export_onnx
    from pargo_export.graph.options import ExportOptions
    from pargo_export.graph.verify import VerifyReport, verify
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
    "CheckpointError",
    "ConfigError",
    "DeployOptions",
    "DeployResult",
    "EngineError",
    "EngineOptions",
    "EngineResult",
    "Estimate",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "ImageError",
    "InputError",
    "IntegrityError",
    "MissingDependencyError",
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
    "estimate",
    "export_onnx",
    "load_checkpoint",
    "quantize",
    "verify",
    "write_sample",
]

_LAZY = {
    "BenchOptions": "pargo_export.bench.options",
    "BenchResult": "pargo_export.bench.records",
    "Bundle": "pargo_export.bundle",
    "CalibrateOptions": "pargo_export.quantization.calibrate",
    "CalibrationResult": "pargo_export.quantization.calibrate",
    "DeployOptions": "pargo_export.deploy",
    "DeployResult": "pargo_export.deploy",
    "EngineOptions": "pargo_export.engine.options",
    "EngineResult": "pargo_export.engine.build",
    "Estimate": "pargo_export.estimation.predict",
    "ExportOptions": "pargo_export.graph.options",
    "ExportResult": "pargo_export.graph.export",
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
    "estimate": "pargo_export.estimation.predict",
    "export_onnx": "pargo_export.graph.export",
    "load_checkpoint": "pargo_export.model.loading",
    "quantize": "pargo_export.quantization.quantize",
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
