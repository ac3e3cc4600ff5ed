"""What a benchmark found, as typed records: the JSON of `pargo-export bench`.

The schema version is `MAJOR.MINOR`. A minor version adds fields, which older readers keep; a major version changes the
meaning of existing ones, and is refused by readers of another major. What could not be measured is `None`, never zero.
Times are milliseconds unless a name says otherwise.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pargo_export.bench.records.environment import Environment
from pargo_export.bench.records.load import LoadSweep, SustainedRun
from pargo_export.bench.records.subjects import BundleFacts, InputFacts, Settings, Subject
from pargo_export.bench.records.times import Comparison, Measurement
from pargo_export.config import Record

__all__ = ["SCHEMA_VERSION", "BenchResult"]

SCHEMA_VERSION = "1.1"


class BenchResult(Record):
    """Everything that one run of `pargo-export bench` found.

    Attributes:
        kind: Tells such a file from others.
        schema_version: `MAJOR.MINOR`.
        created: When it ended, ISO 8601, UTC.
        settings: How it was measured.
        environment: On what.
        bundle: Of which bundle.
        inputs: On which pictures.
        subjects: What was measured, baselines last.
        measurements: Times.
        comparisons: Every subject against every baseline.
        loads: Latency against load.
        sustained: Long runs.
        unavailable: What could not be measured, and why: `{"energy": "no power sensor: ..."}`.
        warnings: What makes the numbers doubtful: a noisy machine, throttling, times that did not settle.
        other_load: Share of the CPU time that other processes, or other virtual machines, used while it was measured;
            `None` if unknown.
    """

    kind: Literal["pargo-export benchmark"] = "pargo-export benchmark"
    schema_version: str = SCHEMA_VERSION
    created: str
    settings: Settings
    environment: Environment
    bundle: BundleFacts
    inputs: InputFacts
    subjects: tuple[Subject, ...]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...] = ()
    loads: tuple[LoadSweep, ...] = ()
    sustained: tuple[SustainedRun, ...] = ()
    unavailable: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    other_load: float | None = None
