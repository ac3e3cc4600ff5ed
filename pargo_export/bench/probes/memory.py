"""Memory of one process, seen from outside."""

from __future__ import annotations

import re
from pathlib import Path

from pargo_export.bench.probes.nvml import NvmlGpu
from pargo_export.bench.records import MemoryUse
from pargo_export.device.files import read_text
from pargo_export.device.machine import detect_jetson

__all__ = ["read_memory"]


def read_memory(
    pid: int,
    *,
    earlier: MemoryUse | None = None,
    gpu: NvmlGpu | None = None,
    root: Path = Path("/"),
) -> MemoryUse:
    """Return the memory of a process at this moment, and its peak.

    Call it once after loading and warm-up, and again with the result as `earlier` after each block of runs: the peak of
    the GPU is the largest of what was seen. That of the CPU (VmHWM) is kept by the kernel; a process does not
    inherit it from the one that started it, unlike `ru_maxrss`.

    Args:
        pid: The process.
        earlier: What was read of the same process before.
        gpu: The GPU that it uses, if any.
        root: Where `/proc` is.
    """
    status = read_text(root / "proc" / str(pid) / "status")
    loaded, peak = _bytes(status, "VmRSS"), _bytes(status, "VmHWM")
    held = [gpu.read_memory_bytes(pid) if gpu else None]
    if earlier is not None:
        loaded = earlier.loaded_rss_bytes
        peak = earlier.peak_rss_bytes if peak is None else peak  # it has ended
        held.append(earlier.gpu_peak_bytes)
    return MemoryUse(
        peak_rss_bytes=peak,
        loaded_rss_bytes=loaded,
        gpu_peak_bytes=max((size for size in held if size is not None), default=None),
        is_unified=detect_jetson(root) is not None,
    )


def _bytes(status: str, field: str) -> int | None:
    match = re.search(rf"^{field}:\s*(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(match[1]) if match else None
