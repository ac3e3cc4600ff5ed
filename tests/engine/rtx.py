"""TensorRT for RTX with parts exchanged, to drive error paths of our own code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pargo_export.trt import TensorRT, load_tensorrt

__all__ = ["Delegate", "rtx_with"]


def rtx_with(flavor: str = "rtx", **parts: Any) -> TensorRT:
    """Return TensorRT for RTX whose module has `parts` in the place of its own; `None` removes a name."""
    real = load_tensorrt("rtx")
    names = {name: getattr(real.module, name) for name in dir(real.module)} | parts
    module = SimpleNamespace(**{name: value for name, value in names.items() if value is not None})
    tensorrt = TensorRT(flavor, module, real.log)
    tensorrt.__dict__["logger"] = real.logger  # TensorRT takes one for the whole process
    return tensorrt


class Delegate:
    """An object of the bindings with some methods exchanged; deriving from its class would call deprecated ones."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)
