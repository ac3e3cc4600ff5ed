"""From a float graph and calibration images to a quantized graph whose accuracy was measured.

Needs NumPy, onnx, onnx_ir and ONNX Runtime, never PyTorch: it also runs on a device.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from pargo_export.errors import MissingDependencyError


class _CallableStage(ModuleType):
    """`pargo_export.quantize` is this stage and its function: importing any module of it binds that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `pargo_export.quantize.quantize.quantize`."""
        try:
            from pargo_export.quantize.quantize import quantize
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing == "pargo_export":
                raise
            raise MissingDependencyError(
                f"pargo_export.quantize needs {missing}: pip install 'pargo-export[quantize]'", name=missing
            ) from error
        return quantize(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableStage
