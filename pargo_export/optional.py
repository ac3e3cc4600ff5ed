"""Import optional packages with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from pargo_export.errors import MissingDependencyError

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or say which extra provides it.

    Args:
        module: Dotted name, for example `"onnxruntime"`.
        extra: The extra of this package that installs it, for example `"ort"`.
        purpose: What it is needed for, completing "... is needed to ...".

    Raises:
        MissingDependencyError: The module is not installed or fails to import.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"{module} is needed to {purpose}: pip install 'pargo-export[{extra}]' ({error})"
        raise MissingDependencyError(message) from error
