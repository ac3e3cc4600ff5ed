"""One adapter over `tensorrt` and `tensorrt_rtx`: what building an engine and running one both need.

Two modules with the same classes under another name. What differs by flavor or version is asked of the module, never
assumed from a number, where the module can tell.
"""

from __future__ import annotations

from pargo_export.trt.log import Log
from pargo_export.trt.module import TensorRT, find_obstacle, load_tensorrt

__all__ = ["Log", "TensorRT", "find_obstacle", "load_tensorrt"]
