"""Which versions of TensorRT and which GPUs an engine may be loaded by, by NVIDIA's documented rules."""

from __future__ import annotations

import re
from typing import Any

from pargo_export.bundle import Engine
from pargo_export.trt.api import TensorRTModule

__all__ = ["RTX_LOWEST", "rtx_serves", "runs_on_capability", "runs_on_version", "version_parts"]

# Compute capability from which an engine of TensorRT for RTX runs if no list was asked for.
RTX_LOWEST = (8, 0)
_LOWEST_COMPATIBLE_HARDWARE = (8, 0)  # HardwareCompatibilityLevel.AMPERE_PLUS


def runs_on_version(engine: Engine, version: str) -> bool:
    """Whether a version of TensorRT may load the engine.

    By default that is the version that built it, to the patch. One that was built version compatible (only
    `tensorrt`; setting `version_compatible`) also runs in later versions of its major, and TensorRT 10's in 11;
    no other pair of majors is supported (support matrix of TensorRT 11.4.1).
    """
    built, found = version_parts(engine.tensorrt_version), version_parts(version)
    if built[:3] == found[:3]:
        return True
    if engine.flavor == "rtx" or not engine.settings.get("version_compatible"):
        return False
    return found > built and (found[0] == built[0] or (built[0], found[0]) == (10, 11))


def runs_on_capability(engine: Engine, capability: str, module: TensorRTModule) -> bool:
    """Whether a GPU may run the engine.

    Args:
        engine: The engine. One for RTX with an empty list was built for all GPUs from 8.0 on, as RTX does by default.
        capability: Compute capability of the GPU, for example `"8.7"`.
        module: TensorRT, which says which GPUs it serves.
    """
    if capability in engine.compute_capabilities:
        return True
    wanted = version_parts(capability)
    if engine.flavor == "rtx":
        return not engine.compute_capabilities and wanted >= RTX_LOWEST and rtx_serves(capability, module)
    return (
        engine.settings.get("hardware_compatibility") == "ampere_plus"
        and not engine.device.is_jetson  # not supported there
        and wanted >= _LOWEST_COMPATIBLE_HARDWARE
    )


def rtx_serves(capability: str, module: TensorRTModule) -> bool:
    """Whether TensorRT for RTX serves a GPU: those in its enum (`SM86`, `SM120`), "and later" (its documentation)."""
    rtx: Any = module  # the enum is in no stubs
    numbers = (re.fullmatch(r"SM(\d+)(\d)", name) for name in rtx.ComputeCapability.__members__)
    served = {(int(found[1]), int(found[2])) for found in numbers if found}
    wanted = version_parts(capability)
    return wanted in served or wanted > max(served)


def version_parts(version: str) -> tuple[int, ...]:
    """`"10.13.3.9"` as numbers; what follows the last one is left out (`"10.13.3.post1"`)."""
    return tuple(int(part) for part in re.findall(r"(?:^|(?<=\.))\d+(?=\.|$)", version))
