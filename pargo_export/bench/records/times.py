"""Records of times in a closed loop."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from pargo_export.bench.records.statistics import Interval, Steadiness, Summary
from pargo_export.config import Record

__all__ = ["BOUNDARIES", "Boundary", "Clock", "Comparison", "Energy", "Measurement"]

# From where to where a time is taken.
Boundary: TypeAlias = Literal[
    "preprocess", "host_to_device", "compute", "device_to_host", "run", "end_to_end"
]
BOUNDARIES: dict[Boundary, str] = {
    "preprocess": "encoded pictures in memory to what the graph takes, on the host: decoding, fitting, normalising",
    "host_to_device": "input of the host to the memory of the device",
    "compute": "input on the device to visual tokens on the device",
    "device_to_host": "visual tokens of the device to the memory of the host",
    "run": "what the graph takes, in the memory of the host, to visual tokens there",
    "end_to_end": "encoded pictures in memory to visual tokens in the memory of the host",
}
# Which clock: `time.perf_counter_ns` around the call, or CUDA events in the stream.
Clock: TypeAlias = Literal["host", "cuda-events"]

_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Energy(Record):
    """Energy of a measurement, from power that was sampled beside it.

    Attributes:
        source: What was read, for example `"NVML board power"`, `"INA3221 VDD_IN"`, `"RAPL package"`.
        mean_power_w: Mean power while the runs went on, watts; of the whole board or package, idle included.
        idle_power_w: Mean power before anything was loaded; `None` if it was not sampled.
        energy_per_image_j: Joules of an image: mean power times the time of a run, by the images in it.
        num_samples: Power samples within the runs.
    """

    source: str
    mean_power_w: float
    idle_power_w: float | None = None
    energy_per_image_j: float
    num_samples: int


class Measurement(Record):
    """Times of one subject at one batch size, concurrency and boundary.

    Attributes:
        subject: Name of the subject.
        batch: Images in one run.
        concurrency: Callers at the same time.
        boundary: From where to where.
        clock: Who took the time.
        samples_ms: Every timed run, in the order in which they were made, outliers included.
        rounds: The round of each sample.
        summary: Of the samples.
        images_per_s: Throughput: images by the wall time of the timed blocks; with one caller at most `1000 * batch /
            mean_ms`.
        steadiness: Whether and when the times settled.
        energy: `None` if no power could be read: then `BenchResult.unavailable` says why.
    """

    subject: str
    batch: int
    concurrency: int = 1
    boundary: Boundary
    clock: Clock
    samples_ms: tuple[_Milliseconds, ...]
    rounds: tuple[int, ...]
    summary: Summary
    images_per_s: float
    steadiness: Steadiness
    energy: Energy | None = None


class Comparison(Record):
    """How long a candidate takes beside a baseline, from rounds in which both were measured in turns.

    Attributes:
        baseline: Name of a subject.
        candidate: Name of a subject.
        batch: Images in one run.
        concurrency: Callers at the same time.
        boundary: From where to where.
        ratio: Time of the candidate by the time of the baseline; below 1 the candidate is faster.
        interval: Confidence interval of the ratio.
        num_rounds: Pairs that it rests on.
        verdict: `"faster"` or `"slower"` if the interval excludes 1, else `"no difference shown"`.
    """

    baseline: str
    candidate: str
    batch: int
    concurrency: int = 1
    boundary: Boundary
    ratio: float
    interval: Interval
    num_rounds: int
    verdict: Literal["faster", "slower", "no difference shown"]
