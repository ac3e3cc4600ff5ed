"""What a benchmark found: the records behind the JSON of `pargo-export bench`."""

from __future__ import annotations

from pargo_export.bench.records.environment import CpuState, Environment, GpuState, JetsonState
from pargo_export.bench.records.load import LoadPoint, LoadSweep, SustainedRun, Window
from pargo_export.bench.records.result import SCHEMA_VERSION, BenchResult
from pargo_export.bench.records.statistics import Interval, Steadiness, Summary
from pargo_export.bench.records.subjects import (
    BundleFacts,
    InputFacts,
    MemoryUse,
    Settings,
    Subject,
    SubjectKind,
)
from pargo_export.bench.records.times import BOUNDARIES, Boundary, Clock, Comparison, Energy, Measurement

__all__ = [
    "BOUNDARIES",
    "SCHEMA_VERSION",
    "BenchResult",
    "Boundary",
    "BundleFacts",
    "Clock",
    "Comparison",
    "CpuState",
    "Energy",
    "Environment",
    "GpuState",
    "InputFacts",
    "Interval",
    "JetsonState",
    "LoadPoint",
    "LoadSweep",
    "Measurement",
    "MemoryUse",
    "Settings",
    "Steadiness",
    "Subject",
    "SubjectKind",
    "Summary",
    "SustainedRun",
    "Window",
]
