"""Whether the engines of a bundle can run on this machine, and why not."""

from __future__ import annotations

from dataclasses import dataclass

from pargo_export.bundle import Bundle, Engine, EngineDevice
from pargo_export.device.find import find_engine_device
from pargo_export.errors import BundleError, MissingDependencyError
from pargo_export.trt import load_tensorrt
from pargo_export.trt.preflight import find_refusal, is_stale
from pargo_export.trt.sidecar import check_sidecar
from pargo_export.trt.validity import find_invalidity

__all__ = ["EngineState", "find_engine_states"]

_HEADER_BYTES = 4096  # that of TensorRT for RTX 1.7 has 64


@dataclass(frozen=True)
class EngineState:
    """One engine on this machine.

    Attributes:
        is_stale: Whether the graph of its variant has changed since it was built.
        refusal: Why it would not be loaded here, with the mend; empty if it would be.
        problem: What is wrong with its sidecar; empty if nothing is.
    """

    is_stale: bool
    refusal: str
    problem: str


def find_engine_states(bundle: Bundle, device: EngineDevice | None = None) -> dict[str, EngineState]:
    """Return the state of every engine, by name. Nothing is deserialized.

    Imports the flavors of TensorRT that the engines are for; without an engine, none.

    Args:
        bundle: The bundle.
        device: The machine; by default this one.
    """
    engines = bundle.manifest.engines
    if not engines:
        return {}
    device = device or find_engine_device()
    return {name: _describe(bundle, engine, device) for name, engine in engines.items()}


def _describe(bundle: Bundle, engine: Engine, device: EngineDevice) -> EngineState:
    problem = ""
    try:
        check_sidecar(bundle, engine)
    except BundleError as error:
        problem = str(error)
    try:
        tensorrt = load_tensorrt(engine.flavor)
        refusal = find_refusal(engine, bundle.manifest, device=device, tensorrt=tensorrt, bundle=bundle.path)
        if refusal is None:
            with bundle.file(engine.file).open("rb") as file:
                refusal = find_invalidity(tensorrt, file.read(_HEADER_BYTES))
    except (MissingDependencyError, OSError) as error:
        refusal = str(error)
    return EngineState(is_stale(engine, bundle.manifest), refusal or "", problem)
