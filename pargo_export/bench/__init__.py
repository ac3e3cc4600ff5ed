"""Measure a bundle: times with their boundaries, memory, energy, load; gate first, numbers after."""

from __future__ import annotations

from pargo_export.bench.benchmark import benchmark
from pargo_export.bench.options import BenchOptions
from pargo_export.bench.records import BenchResult
from pargo_export.bench.regression import Regressions, find_regressions
from pargo_export.bench.result_file import read_result, write_result

__all__ = [
    "BenchOptions",
    "BenchResult",
    "Regressions",
    "benchmark",
    "find_regressions",
    "read_result",
    "write_result",
]
