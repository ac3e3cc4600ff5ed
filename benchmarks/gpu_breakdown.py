"""Where the time of a CUDA graph goes: kernels by kind, and the gaps between them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from gpu_timing import Captured
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

__all__ = ["KINDS", "break_down"]

KINDS = ("GEMM", "attention", "elementwise", "copy", "gaps")
_REPLAYS = 20

# What is in a kernel's name; the first that fits.
_NAMES = (
    ("attention", ("attention", "flash", "fmha", "sdpa", "cudnn_generated")),
    ("GEMM", ("gemm", "nvjet", "cutlass", "linear_kernel", "xmma", "splitk", "cublas")),
    ("copy", ("memcpy", "memset")),
)


def break_down(candidate: Captured, median_ms: float) -> dict[str, Any]:
    """Profile replays of a graph.

    Kernels that overlap (dependent launches) are counted in full, so that gaps may come out below zero.

    Args:
        candidate: The captured graph.
        median_ms: Its time without a profiler, from which the gaps are computed.

    Returns:
        `kinds_ms` by kind, `kernels`: calls and microseconds a replay by name, the slowest first.
    """
    candidate.replay()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(_REPLAYS):
            candidate.replay()
        torch.cuda.synchronize()
    microseconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in profiler.events() or ():
        if event.device_type == DeviceType.CUDA:
            microseconds[event.name] += event.device_time
            calls[event.name] += 1
    kinds = dict.fromkeys(KINDS, 0.0)
    for name, total in microseconds.items():
        kinds[_kind(name)] += total / _REPLAYS / 1000
    kinds["gaps"] = median_ms - sum(kinds.values())
    kernels = [
        {
            "name": name[:120],
            "kind": _kind(name),
            "calls": calls[name] / _REPLAYS,
            "us": round(total / _REPLAYS, 2),
        }
        for name, total in microseconds.most_common()
    ]
    return {"kinds_ms": {kind: round(value, 4) for kind, value in kinds.items()}, "kernels": kernels}


def _kind(name: str) -> str:
    lowered = name.lower()
    return next((kind for kind, parts in _NAMES if any(part in lowered for part in parts)), "elementwise")
