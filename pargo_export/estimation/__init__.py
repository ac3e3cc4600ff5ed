"""Predict time and memory on a device that is not at hand, from a device table and a roofline of each block.

Needs neither PyTorch nor onnx. Everything that comes out is an estimate, and a range: `docs/estimate.md` says how far
such ranges were off where times were known.
"""

from __future__ import annotations

from pargo_export.estimation.devices import Device, find_device, list_devices
from pargo_export.estimation.memory import MemoryEstimate
from pargo_export.estimation.precisions import PRECISIONS, Precision
from pargo_export.estimation.predict import BlockEstimate, Estimate, TimeRange, estimate, time_range

__all__ = [
    "PRECISIONS",
    "BlockEstimate",
    "Device",
    "Estimate",
    "MemoryEstimate",
    "Precision",
    "TimeRange",
    "estimate",
    "find_device",
    "list_devices",
    "time_range",
]
