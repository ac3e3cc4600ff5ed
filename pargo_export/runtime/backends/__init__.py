"""The backends, GPUs first. What an automatic choice prefers is in `runtime/preferences.py`."""

from __future__ import annotations

from pargo_export.runtime.backends.backend import Backend
from pargo_export.runtime.backends.cuda import CUDA
from pargo_export.runtime.backends.onnxruntime import ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA, OnnxRuntimeRunner
from pargo_export.runtime.backends.openvino import OPENVINO, OPENVINO_BF16, OpenVinoRunner
from pargo_export.runtime.backends.tensorrt import TENSORRT, TENSORRT_RTX

__all__ = ["BACKENDS", "Backend", "OnnxRuntimeRunner", "OpenVinoRunner"]

BACKENDS: tuple[Backend, ...] = (
    TENSORRT,
    TENSORRT_RTX,
    CUDA,
    ONNXRUNTIME_CUDA,
    ONNXRUNTIME_CPU,
    OPENVINO,
    OPENVINO_BF16,
)
