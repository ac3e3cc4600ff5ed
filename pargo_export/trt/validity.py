"""Ask TensorRT for RTX itself whether it would load an engine, from the engine's header alone."""

from __future__ import annotations

from typing import Any

from pargo_export.trt.module import TensorRT

__all__ = ["find_invalidity"]

_REASONS = {
    "VERSION_MISMATCH": "it was built by another version",
    "UNSUPPORTED_CC": "it was not built for the compute capability of this GPU",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "it needs more GPU memory than there is",
    "MALFORMED_ENGINE": "it is not a serialized engine",
    "CUDA_ERROR": "CUDA does not work here",
}


def find_invalidity(tensorrt: TensorRT, serialized: bytes | memoryview) -> str | None:
    """Return why TensorRT would refuse an engine; `None` if it would not, or cannot tell.

    Only TensorRT for RTX can tell (from 1.1 on), and only where there is a GPU: without one every engine is invalid to
    it, and the log says that CUDA does not work.

    Args:
        tensorrt: Which one would load it.
        serialized: The engine, or its header (`Runtime.engine_header_size`).
    """
    rtx: Any = tensorrt.module  # its enums of validity are in no stubs
    with tensorrt.log.watch() as log:
        runtime = tensorrt.module.Runtime(tensorrt.logger)
        if not hasattr(runtime, "get_engine_validity"):
            return None
        validity, diagnostics = runtime.get_engine_validity(serialized)
        if validity != rtx.EngineValidity.INVALID:
            return None
        flags = rtx.EngineInvalidityDiagnostics.__members__.items()
        reasons = [_REASONS.get(name, name) for name, flag in flags if int(diagnostics) & int(flag)]
        return f"{tensorrt.title} cannot load it: {'; '.join(reasons) or log.reason('it gives no reason')}"
