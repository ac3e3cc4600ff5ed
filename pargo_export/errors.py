"""Every error that pargo-export raises on purpose.

PargoExportError
├── ConfigError                 a configuration is unknown, incomplete or contradicts itself
├── CheckpointError             a checkpoint cannot be read
│   ├── UnsafeCheckpointError   reading it would execute code
│   └── StateDictError          missing, unexpected, misshapen or non-finite tensors
├── ImageError                  a picture cannot be read
├── InputError                  an array handed to the runtime has the wrong shape, dtype or range
├── BundleError                 a bundle is missing, incomplete or from another schema
│   └── IntegrityError          a file of a bundle is not the file the manifest describes
├── ExportError                 a graph cannot be made as asked
│   └── ParityError             the graph does not compute what the reference computes
├── CalibrationError            calibration data are missing, useless or made for another graph
├── QuantizationError           a graph cannot be quantized as asked
│   └── AccuracyError           the quantized graph misses its accuracy limit
├── EngineError                 an engine cannot be built as asked
├── BackendError                no backend can run this bundle on this machine, or one failed
├── OverloadError               a submission found no room in the queue, or gave way to a later one
├── DeadlineError               a submission was not begun before its deadline
└── MissingDependencyError      an optional package is needed

Each message says what was found, what was expected and how to mend it. The command line prints
it as one red line and exits with status 1.
"""

from __future__ import annotations

__all__ = [
    "AccuracyError",
    "BackendError",
    "BundleError",
    "CalibrationError",
    "CheckpointError",
    "ConfigError",
    "DeadlineError",
    "EngineError",
    "ExportError",
    "ImageError",
    "InputError",
    "IntegrityError",
    "MissingDependencyError",
    "OverloadError",
    "PargoExportError",
    "ParityError",
    "QuantizationError",
    "StateDictError",
    "UnsafeCheckpointError",
]


class PargoExportError(Exception):
    """Base of all errors of this package."""


class ConfigError(PargoExportError, ValueError):
    """A configuration is unknown, incomplete or contradicts itself."""


class CheckpointError(PargoExportError):
    """A checkpoint cannot be read."""


class UnsafeCheckpointError(CheckpointError):
    """Reading the checkpoint would execute code; it was refused."""


class StateDictError(CheckpointError):
    """Tensors are missing, unexpected, misshapen or not finite."""


class ImageError(PargoExportError, ValueError):
    """A picture cannot be read."""


class InputError(PargoExportError, ValueError):
    """An array handed to the runtime has the wrong shape, dtype or range."""


class BundleError(PargoExportError):
    """A bundle is missing, incomplete or written for another schema."""


class IntegrityError(BundleError):
    """A file of a bundle is not the file that the manifest describes."""


class ExportError(PargoExportError):
    """A graph cannot be made as asked."""


class ParityError(ExportError):
    """The graph does not compute what the PyTorch reference computes."""


class CalibrationError(PargoExportError):
    """Calibration data are missing, useless, or made for another graph."""


class QuantizationError(PargoExportError):
    """A graph cannot be quantized as asked."""


class AccuracyError(QuantizationError):
    """The quantized graph misses its accuracy limit; nothing was written."""


class EngineError(PargoExportError):
    """A TensorRT engine cannot be built, or was not built as asked."""


class BackendError(PargoExportError):
    """No backend can run this bundle on this machine, or one failed."""


class OverloadError(PargoExportError):
    """More was submitted than the backend computes: there was no room in the queue, or a later submission took it."""


class DeadlineError(PargoExportError):
    """The computation of a submission did not begin before its deadline; it was not computed."""


class MissingDependencyError(PargoExportError, ImportError):
    """An optional package is needed for what was asked."""
