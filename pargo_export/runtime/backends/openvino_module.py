"""Import OpenVINO without its telemetry."""

from __future__ import annotations

import sys
from types import ModuleType

from pargo_export.optional import require

__all__ = ["require_openvino"]

_TELEMETRY = "openvino_telemetry"


def require_openvino(submodule: str = "") -> ModuleType:
    """Import OpenVINO, or one of its sub-modules.

    OpenVINO reports its import to a web service, from a process that it forks, and notes it in the home
    directory. A device that computes visual tokens shall do neither, so the package that sends is hidden during the
    import; OpenVINO then uses the stub that it brings for machines without that package. A process that
    imported OpenVINO before is left as it is.

    Args:
        submodule: For example `"opset13"`.

    Raises:
        MissingDependencyError: It is not installed or fails to import.
    """
    name = f"openvino.{submodule}" if submodule else "openvino"
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return require(name, extra="openvino", purpose="run graphs in OpenVINO")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # how Python marks a module that must not be found
    try:
        return require(name, extra="openvino", purpose="run graphs in OpenVINO")
    finally:
        del sys.modules[_TELEMETRY]
