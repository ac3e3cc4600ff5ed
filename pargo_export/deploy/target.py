"""What an engine is made for, and whether this machine can build it.

TensorRT times kernels on the GPU that it builds for, so an engine for a Jetson is built on that Jetson. TensorRT for RTX
builds without a GPU for the compute capabilities that it is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from pargo_export.bundle import EngineDevice, Flavor
from pargo_export.errors import ConfigError, EngineError

__all__ = [
    "CAPABILITIES",
    "TARGETS",
    "GpuTarget",
    "Target",
    "find_mismatch",
    "resolve_flavor",
    "resolve_target",
]

GpuTarget = Literal["cuda", "orin", "thor", "rtx"]
TARGETS: tuple[GpuTarget, ...] = get_args(GpuTarget)

# Thor was listed as 10.1 before CUDA 13, as 11.0 since; no other device has one of these three.
_JETSONS: dict[str, GpuTarget] = {"8.7": "orin", "10.1": "thor", "11.0": "thor"}
# Compute capability of the devices that have one.
CAPABILITIES: dict[str, str] = {"orin": "8.7", "thor": "11.0"}


@dataclass(frozen=True)
class Target:
    """A device family.

    Attributes:
        name: `cuda` (a discrete GPU, of this machine if TensorRT builds), `orin`, `thor`, `rtx`.
        capabilities: For `rtx`, the compute capabilities to build for, such as `("8.6", "8.9")`; empty: the builder's
            own choice.
    """

    name: GpuTarget
    capabilities: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = ",".join(f"sm{item.replace('.', '')}" for item in self.capabilities)
        return f"{self.name}:{words}" if words else self.name

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `orin`, `rtx`, `rtx:sm86,sm120`, `rtx:8.6`.

        Raises:
            ConfigError: It is no target.
        """
        name, colon, rest = text.partition(":")
        if name not in TARGETS:
            raise ConfigError(
                f"target is {text!r}; known: auto, {', '.join(TARGETS)}, and rtx:sm86,sm89 with compute capabilities"
            )
        if colon and name != "rtx":
            raise ConfigError(
                f"target is {text!r}; compute capabilities are for rtx alone, TensorRT builds for the GPU it runs on"
            )
        words = [word.strip() for word in rest.split(",")] if colon else []
        return cls(name, tuple(dict.fromkeys(_parse_capability(word, text) for word in words)))


def _parse_capability(word: str, text: str) -> str:
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", word)
    if match is None:
        raise ConfigError(f"target is {text!r}; expected compute capabilities such as rtx:sm86,sm120")
    return f"{match[1]}.{match[2]}"


def resolve_target(
    text: str,
    *,
    flavor: Literal["auto"] | Flavor,
    device: EngineDevice,
    find_obstacle: Callable[[Flavor], str | None],
) -> Target:
    """Return the target that was named; for `auto` the one of this machine.

    Args:
        text: `auto` or a target.
        flavor: What was asked for.
        device: This machine.
        find_obstacle: Says why a flavor cannot be used here.

    Raises:
        ConfigError: It is no target.
        EngineError: This machine has no GPU, and no TensorRT for RTX to do without.
    """
    if text != "auto":
        return Target.parse(text)
    capability = device.compute_capability
    if flavor != "rtx":
        if capability in _JETSONS:
            return Target(_JETSONS[capability])
        if device.jetson:
            raise EngineError(
                f"this is a {device.jetson}, whose GPU has compute capability {capability or 'unknown'}; expected one of "
                f"{', '.join(_JETSONS)}: name the target (--target orin or thor), and see pargo-export doctor"
            )
        if capability and (flavor == "tensorrt" or not find_obstacle("tensorrt")):
            return Target("cuda")
    obstacle = None if flavor == "tensorrt" else find_obstacle("rtx")
    if flavor == "rtx" or (flavor == "auto" and obstacle is None):
        return Target("rtx")
    if capability:
        return Target("cuda")
    raise EngineError(
        "this machine has no NVIDIA GPU, and TensorRT builds only on the GPU that the engine is for; name the device to "
        "prepare the bundle for it (--target orin, thor or cuda), or build for GeForce and RTX GPUs, which needs none "
        f"(--target rtx{': ' + obstacle if obstacle else ''})"
    )


def resolve_flavor(
    target: Target, flavor: Literal["auto"] | Flavor, *, find_obstacle: Callable[[Flavor], str | None]
) -> Flavor:
    """Return the flavor of TensorRT that builds for a target.

    Raises:
        ConfigError: The one that was asked for does not.
    """
    if target.name == "rtx":
        if flavor == "tensorrt":
            raise ConfigError(
                f"target {target} is for TensorRT for RTX, flavor tensorrt was asked for; build with TensorRT for the "
                "GPU of this machine (--target cuda), or leave the flavor away"
            )
        return "rtx"
    if target.name in {"orin", "thor"}:
        if flavor == "rtx":
            raise ConfigError(
                f"TensorRT for RTX does not run on a Jetson, target {target} needs flavor tensorrt; leave the flavor away"
            )
        return "tensorrt"
    if flavor != "auto":
        return flavor
    usable: tuple[Flavor, ...] = ("tensorrt", "rtx")
    return next((item for item in usable if find_obstacle(item) is None), "tensorrt")


def find_mismatch(target: Target, flavor: Flavor, device: EngineDevice) -> str | None:
    """Return why an engine for the target cannot be built on this machine; `None` if it can."""
    if flavor == "rtx":
        return None  # builds without a GPU
    capability = device.compute_capability
    found = f"{device.name} of compute capability {capability}" if capability else "no NVIDIA GPU"
    if target.name == "cuda":
        if not capability or capability in _JETSONS:
            return f"TensorRT builds on the GPU that the engine is for; this machine has {found}"
        return None
    if _JETSONS.get(capability) != target.name:
        return (
            f"TensorRT has no cross build: an engine for {target} is built on one (compute capability "
            f"{CAPABILITIES[target.name]}); this machine has {found}"
        )
    return None
