"""Export a trained ParGo visual front-end to ONNX and run it, verified and measured, on edge devices.

::

    from pargo_export import Runtime, export_onnx, load_checkpoint

    model = load_checkpoint("pargo.safetensors")   # strict, weights only
    export_onnx(model, "bundle")                   # ONNX + manifest, held against the reference
    with Runtime.open("bundle") as runtime:        # needs no PyTorch
        visual_tokens = runtime.encode(["photo.jpg"])   # float32 [1, Q, C_llm]

Names are loaded when they are first used: importing this package imports neither PyTorch nor ONNX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pargo_export._version import __version__
from pargo_export.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    ConfigError,
    ExportError,
    ImageError,
    InputError,
    IntegrityError,
    MissingDependencyError,
    PargoExportError,
    ParityError,
    StateDictError,
    UnsafeCheckpointError,
)

if TYPE_CHECKING:
    from pargo_export.bundle import Bundle
    from pargo_export.config import ModelConfig, ProjectorConfig, VisionConfig
    from pargo_export.graph.export import ExportResult, export_onnx
    from pargo_export.graph.options import ExportOptions
    from pargo_export.graph.verify import VerifyReport, verify
    from pargo_export.model.loading import load_checkpoint
    from pargo_export.model.sample import write_sample
    from pargo_export.runtime import Runtime

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "ConfigError",
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
    "Runtime",
    "StateDictError",
    "UnsafeCheckpointError",
    "VerifyReport",
    "VisionConfig",
    "__version__",
    "export_onnx",
    "load_checkpoint",
    "verify",
    "write_sample",
]

_LAZY = {
    "Bundle": "pargo_export.bundle",
    "ExportOptions": "pargo_export.graph.options",
    "ExportResult": "pargo_export.graph.export",
    "ModelConfig": "pargo_export.config",
    "ProjectorConfig": "pargo_export.config",
    "Runtime": "pargo_export.runtime",
    "VerifyReport": "pargo_export.graph.verify",
    "VisionConfig": "pargo_export.config",
    "export_onnx": "pargo_export.graph.export",
    "load_checkpoint": "pargo_export.model.loading",
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
        raise MissingDependencyError(
            f"pargo_export.{name} needs {missing}: pip install 'pargo-export[export]'", name=missing
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
