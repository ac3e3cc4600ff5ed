"""The backends, in the order in which an automatic choice prefers them."""

from __future__ import annotations

from pargo_export.runtime.backends.backend import Backend
from pargo_export.runtime.backends.onnxruntime import ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA, OnnxRuntimeRunner

__all__ = ["BACKENDS", "Backend", "OnnxRuntimeRunner"]

BACKENDS: tuple[Backend, ...] = (ONNXRUNTIME_CUDA, ONNXRUNTIME_CPU)
