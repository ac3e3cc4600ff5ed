"""What this machine is and has, as far as a plan depends on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

from pargo_export.bundle import EngineDevice, Flavor
from pargo_export.device.find import find_engine_device
from pargo_export.trt import find_obstacle

__all__ = ["MachineFacts", "find_facts"]

_NEEDED = {
    "export": ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime"),
    "quantize": ("onnx", "onnx_ir", "onnxruntime", "ml_dtypes"),
}


@dataclass(frozen=True)
class MachineFacts:
    """What decides about a plan; tests make their own.

    Attributes:
        device: The GPU and its software; without compute capability there is none.
        obstacles: Why a flavor of TensorRT cannot be used; `None` if it can.
        missing: Packages that an extra of this package would bring, by the extra: `{"export": ("torch",)}`.
    """

    device: EngineDevice
    obstacles: Mapping[Flavor, str | None]
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def find_obstacle(self, flavor: Flavor) -> str | None:
        """Return why a flavor cannot be used here; `None` if it can."""
        return self.obstacles[flavor]

    def find_missing(self, extra: str) -> tuple[str, ...]:
        """Return the packages of an extra that are not installed."""
        return self.missing.get(extra, ())


def find_facts() -> MachineFacts:
    """Describe this machine; imports the TensorRT modules that are installed."""
    return MachineFacts(
        device=find_engine_device(),
        obstacles={"tensorrt": find_obstacle("tensorrt"), "rtx": find_obstacle("rtx")},
        missing={
            extra: tuple(name for name in names if not _is_installed(name))
            for extra, names in _NEEDED.items()
        },
    )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # an import hook refuses it
        return False
