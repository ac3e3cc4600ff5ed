"""Which TensorRT is here, and whether it is the one that belongs to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from pargo_export.bundle import EngineDevice, Flavor
from pargo_export.device.jetson import find_jetpack
from pargo_export.errors import MissingDependencyError
from pargo_export.trt import TensorRT, load_tensorrt
from pargo_export.trt.compatibility import rtx_serves

__all__ = ["TensorRTState", "find_tensorrt"]


@dataclass(frozen=True)
class TensorRTState:
    """One of the two products.

    Attributes:
        flavor: `tensorrt` or `rtx` (TensorRT for RTX).
        version: What is installed; empty if it does not load.
        reason: Why it does not load and what to do about it; empty if it does.
        note: What does not fit this machine, or what would; empty if there is nothing to say.
    """

    flavor: Flavor
    version: str
    reason: str
    note: str = ""


def find_tensorrt(device: EngineDevice) -> tuple[TensorRTState, ...]:
    """Return the state of both; imports what is installed.

    Args:
        device: This machine.
    """
    return tuple(_describe(flavor, device) for flavor in get_args(Flavor))


def _describe(flavor: Flavor, device: EngineDevice) -> TensorRTState:
    try:
        found = load_tensorrt(flavor)
    except MissingDependencyError as error:
        jetpack = find_jetpack(device.l4t) if flavor == "tensorrt" else None
        note = f"JetPack {jetpack.version} comes with TensorRT {jetpack.tensorrt}" if jetpack else ""
        return TensorRTState(flavor, "", str(error), note)
    note = note_jetpack(found.version, device.l4t) if flavor == "tensorrt" else _note_rtx(found, device)
    return TensorRTState(flavor, found.version, "", note)


def note_jetpack(version: str, l4t: str) -> str:
    """Say that a version of TensorRT is not the one of this JetPack; empty if it is, or if neither is known.

    Args:
        version: TensorRT's version.
        l4t: Release of Jetson Linux; empty on other machines.
    """
    jetpack = find_jetpack(l4t)
    if jetpack is None or f"{version}.".startswith(f"{jetpack.tensorrt}."):
        return ""
    return (
        f"JetPack {jetpack.version} comes with TensorRT {jetpack.tensorrt}, found {version}: if that is a package of pip, "
        "remove it and use the one of the system (python -m venv --system-site-packages)"
    )


def _note_rtx(tensorrt: TensorRT, device: EngineDevice) -> str:
    capability = device.compute_capability
    if not capability:
        return "builds engines here, but cannot run them: no GPU"
    if rtx_serves(capability, tensorrt.module):
        return ""
    return f"builds engines for other GPUs; it does not serve {device.name}, compute capability {capability}"
