"""Sample the power of the machine beside a run, and tell the energy of what was timed meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from typing_extensions import Self

from pargo_export.bench.probes.energy import PowerCurve, Sample, Span, mean_power
from pargo_export.bench.probes.ina3221 import open_rail
from pargo_export.bench.probes.nvml import open_gpu, open_gpu_power
from pargo_export.bench.probes.periodic import PeriodicReader
from pargo_export.bench.probes.rapl import open_rapl
from pargo_export.bench.probes.sensor import PowerSensor, SensorError
from pargo_export.bench.probes.tegrastats import open_tegrastats
from pargo_export.bench.records import Energy
from pargo_export.device.machine import detect_jetson

__all__ = ["PERIOD_S", "PowerSampler", "Target", "find_power_sensor"]

# What computes: "gpu" an NVIDIA GPU, "cpu" the processor. On a Jetson both are fed by the same rail.
Target: TypeAlias = Literal["cpu", "gpu"]

PERIOD_S = 0.05


def find_power_sensor(target: Target, root: Path = Path("/")) -> PowerSensor:
    """Open the power sensor of what computes.

    On a Jetson the input rail, from sysfs or else tegrastats, whatever computes; elsewhere NVML for a GPU and RAPL for
    the CPU. One is never taken for the other: the CPU beside a GPU, or the GPU beside a CPU, is another number.

    Raises:
        SensorError: There is none; the message has the reason of each.
    """
    candidates: dict[str, Callable[[], PowerSensor]]
    if detect_jetson(root) is not None:
        candidates = {"sysfs": lambda: open_rail(root), "tegrastats": open_tegrastats}
    elif target == "gpu":
        candidates = {"NVML": lambda: open_gpu_power(open_gpu())}
    else:
        candidates = {"RAPL": lambda: open_rapl(root)}
    reasons = []
    for name, open_sensor in candidates.items():
        try:
            return open_sensor()
        except SensorError as error:  # noqa: PERF203 - two of them
            reasons.append(f"{name}: {error}")
    raise SensorError("; ".join(reasons))


class PowerSampler:
    """Reads a power sensor at a fixed period, in a thread of this process, from `with` to its end.

    Without a sensor it does nothing, and says why: a benchmark goes on without energy. A period shorter than the sensor
    is renewed (INA3221: some ms; NVML: 10 to 100 ms, and the power of older ones is a mean of one second) reads the same
    again, which is harmless; runs of a few periods cannot be told apart from what went on around them.

    Args:
        target: What computes.
        period_s: Seconds from one reading to the next.
        root: Where `/sys` and `/proc` are.
        sensor: The sensor; by default the one of `target`. It is closed at the end.

    Attributes:
        source: What is read; `None` without a sensor.
        idle_power_w: What `measure_idle` found; `None` before.
    """

    def __init__(
        self,
        target: Target = "cpu",
        *,
        period_s: float = PERIOD_S,
        root: Path = Path("/"),
        sensor: PowerSensor | None = None,
    ) -> None:
        self.source: str | None = None
        self.idle_power_w: float | None = None
        self._target, self._period_s, self._root = target, period_s, root
        self._sensor, self._reader, self._missing = sensor, None, ""

    _sensor: PowerSensor | None
    _reader: PeriodicReader[float] | None

    def __enter__(self) -> Self:
        if self._sensor is None:
            try:
                self._sensor = find_power_sensor(self._target, self._root)
            except SensorError as error:
                self._missing = f"no power sensor: {error}"
                return self
        self.source = self._sensor.name
        self._reader = PeriodicReader(self._sensor.read, self._period_s)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None and self._sensor is not None:
            self._reader.stop(self._sensor.close)

    @property
    def problem(self) -> str:
        """Why there is no sensor, or what failed first while it was read; empty if all is well."""
        return self._missing or (self._reader.problem if self._reader else "")

    def samples(self) -> list[Sample]:
        """Return the power so far: `time.perf_counter_ns()` and watts, ascending.

        Of a counter it is the mean power between two readings, in the middle between them.
        """
        if self._sensor is not None and self._sensor.measures == "energy":
            return self._curve().samples()
        return self._readings()

    def measure_idle(self, duration_s: float = 1.0) -> float | None:
        """Wait, and keep the mean power meanwhile as `idle_power_w`; to be called before anything is loaded.

        Returns:
            The power, watts; `None` without a sensor, then it does not wait, or if it could not be read.
        """
        if self._reader is None:
            return None
        begin = time.perf_counter_ns()
        time.sleep(duration_s)
        self.idle_power_w = self.mean_power([(begin, time.perf_counter_ns())])
        return self.idle_power_w

    def mean_power(self, spans: Sequence[Span]) -> float | None:
        """Return the mean power within spans of time, watts; `None` if it was not read then."""
        return mean_power(self.samples(), spans)

    def measure(self, spans: Sequence[Span], num_images: int) -> tuple[Energy | None, str]:
        """Return the energy of the images that were computed within the timed blocks.

        To be called a period or more after the last block, so that a reading lies behind it.

        Args:
            spans: Begin and end of each block by `time.perf_counter_ns()`, of whatever process.
            num_images: Images that were computed within them.

        Returns:
            The energy and an empty text; or `None` and why it is not available.

        Raises:
            ValueError: There are no images.
        """
        if self.source is None or not self._readings():
            return None, self.problem or "the power was never read"
        curve = self._curve()
        energy = curve.measure(spans, num_images, source=self.source, idle_power_w=self.idle_power_w)
        reasons = (curve.explain(spans), self.problem)
        return energy, "" if energy else "; ".join(reason for reason in reasons if reason)

    def _readings(self) -> list[Sample]:
        return self._reader.readings() if self._reader else []

    def _curve(self) -> PowerCurve:
        is_counter = self._sensor is not None and self._sensor.measures == "energy"
        return (PowerCurve.from_counter if is_counter else PowerCurve.from_power)(self._readings())
