"""What the studies share: the environment of a result, and the summary of interleaved times."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pargo_export import __version__
from pargo_export.bundle import atomic_write

__all__ = ["describe_environment", "markdown_table", "summarize_times", "write_json"]

_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
)
_REPOSITORY = Path(__file__).resolve().parent.parent


def describe_environment(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return the CPU, the versions, the commit and the date."""
    return {
        "cpu": _describe_cpu(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"pargo-export": __version__} | _versions(packages),
        "commit": _describe_commit(),
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
    }


def summarize_times(times_ms: Sequence[float]) -> dict[str, float | int]:
    """Return median and percentiles of the times of one configuration, milliseconds."""
    low, median, high = np.percentile(times_ms, [10, 50, 90])
    return {
        "median_ms": round(float(median), 3),
        "p10_ms": round(float(low), 3),
        "p90_ms": round(float(high), 3),
        "runs": len(times_ms),
    }


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_json(path: Path, content: object) -> None:
    """Write a result; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def _describe_cpu() -> dict[str, Any]:
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "model": fields.get("model name", platform.processor()),
        "family": fields.get("cpu family", ""),
        "model_number": fields.get("model", ""),
        "cores_used": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _CPU_FLAGS if flag in flags],
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _describe_commit() -> str:
    """Return the commit, marked if files were changed since."""
    command = ["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # a source archive has no repository
        return "unknown"
