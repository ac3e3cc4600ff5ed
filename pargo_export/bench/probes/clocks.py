"""Clock, temperature and throttling of what computes, over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import Self

from pargo_export.bench.probes.energy import Span
from pargo_export.bench.probes.nvml import NvmlGpu, open_gpu
from pargo_export.bench.probes.periodic import PeriodicReader
from pargo_export.bench.probes.power import Target
from pargo_export.bench.probes.sensor import SensorError
from pargo_export.device import cpufreq, jetson_state
from pargo_export.device.files import read_int, read_text
from pargo_export.device.machine import detect_jetson

__all__ = ["State", "StateSampler", "StateSummary"]

PERIOD_S = 0.5
# Sensors of the CPU package on x86: Intel, AMD.
_CPU_SENSORS = {"coretemp": "Package id 0", "k10temp": "Tctl"}


@dataclass(frozen=True)
class State:
    """How fast and how hot something is; `None` where it does not tell.

    Attributes:
        clock_mhz: Clock of its cores.
        temperature_c: Temperature.
        throttled: Why it is slower than it could be, at this moment or since the state before.
    """

    clock_mhz: float | None
    temperature_c: float | None
    throttled: tuple[str, ...] | None


@dataclass(frozen=True)
class StateSummary:
    """States of a span of time; `None` where none of them tells.

    Attributes:
        clock_mhz: Mean clock.
        temperature_c: Highest temperature.
        throttled: All reasons that were given.
    """

    clock_mhz: float | None
    temperature_c: float | None
    throttled: tuple[str, ...] | None


class StateSampler:
    """Reads clock, temperature and throttling at a fixed period, in a thread of this process, from `with` to its end.

    Args:
        target: What computes.
        period_s: Seconds from one state to the next.
        root: Where `/sys` and `/proc` are.
        gpu: The GPU, kept open by the caller; by default the first one is opened for `target="gpu"`, but on a Jetson.
    """

    def __init__(
        self,
        target: Target = "cpu",
        *,
        period_s: float = PERIOD_S,
        root: Path = Path("/"),
        gpu: NvmlGpu | None = None,
    ) -> None:
        self._target, self._root, self._gpu, self._own = target, root, gpu, False
        self._is_jetson = detect_jetson(root) is not None
        self._events = 0
        self._missing = ""
        self._reader = PeriodicReader(self.read, period_s)

    def __enter__(self) -> Self:
        if self._target == "gpu" and not self._is_jetson and self._gpu is None:
            try:
                self._gpu, self._own = open_gpu(), True
            except SensorError as error:
                self._missing = str(error)
        self._events = self._count_events() or 0
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.stop()
        if self._own and self._gpu is not None:
            self._gpu.close()

    @property
    def problem(self) -> str:
        """Why a GPU cannot be asked; empty if all is well."""
        return self._missing or self._reader.problem

    def read(self) -> State:
        """Read the state at this moment."""
        if self._is_jetson:
            gpu = self._target == "gpu"
            clock = (jetson_state.read_gpu_clock_mhz if gpu else cpufreq.read_clock_mhz)(self._root)
            alerts = jetson_state.read_throttle_alerts(self._root)
            return State(
                clock,
                jetson_state.read_junction_temperature_c(self._root),
                self._add_events(alerts, "over-current"),
            )
        if self._target == "gpu":
            if self._gpu is None:
                return State(None, None, None)
            return State(
                self._gpu.read_clock_mhz(), self._gpu.read_temperature_c(), self._gpu.read_throttling()
            )
        return State(
            cpufreq.read_clock_mhz(self._root),
            _read_cpu_temperature_c(self._root),
            self._add_events(None, "heat"),
        )

    def states(self) -> list[tuple[int, State]]:
        """Return the states so far, each with its `time.perf_counter_ns()`."""
        return self._reader.readings()

    def summarize(self, spans: Sequence[Span]) -> StateSummary:
        """Summarize the states within spans of time."""
        return _summarize(
            [state for time, state in self.states() if any(begin <= time <= end for begin, end in spans)]
        )

    def warnings(self) -> list[str]:
        """Return what was throttled so far, for people."""
        found = _summarize([state for _, state in self.states()]).throttled
        name = "GPU" if self._target == "gpu" else "CPU"
        return [f"the clocks of the {name} were lowered meanwhile: {', '.join(found)}"] if found else []

    def _add_events(self, reasons: tuple[str, ...] | None, name: str) -> tuple[str, ...] | None:
        """Add a reason if its counter went on since the last time."""
        count = self._count_events()
        if count is None:
            return reasons
        news, self._events = count > self._events, count
        return (*(reasons or ()), *((name,) if news else ()))

    def _count_events(self) -> int | None:
        if self._is_jetson:
            return jetson_state.count_overcurrent(self._root)
        return cpufreq.count_throttling(self._root) if self._target == "cpu" else None


def _summarize(states: Sequence[State]) -> StateSummary:
    clocks = [state.clock_mhz for state in states if state.clock_mhz is not None]
    temperatures = [state.temperature_c for state in states if state.temperature_c is not None]
    reasons = [state.throttled for state in states if state.throttled is not None]
    return StateSummary(
        clock_mhz=sum(clocks) / len(clocks) if clocks else None,
        temperature_c=max(temperatures, default=None),
        throttled=tuple(sorted({name for names in reasons for name in names})) if reasons else None,
    )


def _read_cpu_temperature_c(root: Path) -> float | None:
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        wanted = _CPU_SENSORS.get(read_text(folder / "name"))
        for label in sorted(folder.glob("temp*_label")) if wanted else ():
            value = read_int(folder / label.name.replace("_label", "_input"))
            if read_text(label) == wanted and value is not None:
                return value / 1000
    return None
