"""What goes on beside the measurement: power, clocks, temperature, and whoever else uses the machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from typing_extensions import Self

from pargo_export.bench.probes.clocks import StateSampler
from pargo_export.bench.probes.energy import Sample, Span
from pargo_export.bench.probes.noise import find_noise, measure_other_load, take_snapshot
from pargo_export.bench.probes.nvml import NvmlGpu, open_gpu
from pargo_export.bench.probes.power import PERIOD_S, PowerSampler, Target
from pargo_export.bench.probes.sensor import SensorError
from pargo_export.bench.records import Energy, Environment, Subject
from pargo_export.bench.sustained import DeviceState

__all__ = ["Monitor", "target_of"]


def target_of(subject: Subject) -> Target:
    """Return what computes a subject."""
    return "cpu" if not subject.device or subject.device.startswith("CPU") else "gpu"


class Monitor:
    """Samples the processor, and the GPU if there is one, from `with` to its end.

    Args:
        environment: Of the machine.

    Attributes:
        gpu: For the memory of processes; `None` without one, or if the driver cannot be asked.
    """

    def __init__(self, environment: Environment) -> None:
        targets: tuple[Target, ...] = ("cpu", "gpu") if environment.gpus else ("cpu",)
        self._power = {target: PowerSampler(target) for target in targets}
        self._states = {target: StateSampler(target) for target in targets}
        self._stack = ExitStack()
        self.gpu: NvmlGpu | None = None
        if environment.gpus and environment.jetson is None:
            try:
                self.gpu = open_gpu()
            except SensorError:
                self.gpu = None  # the samplers say why

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.gpu is not None:
                stack.callback(self.gpu.close)
            for states in self._states.values():
                stack.enter_context(states)
            for power in self._power.values():
                stack.enter_context(power).measure_idle()
            self._stack = stack.pop_all()
        self._before = take_snapshot()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settle(self) -> None:
        """Wait until a power reading lies behind what was timed last; at once where no power is read."""
        if any(power.source is not None for power in self._power.values()):
            time.sleep(2 * PERIOD_S)

    def warnings(self) -> list[str]:
        """Return what makes the times since the begin doubtful; to be called before the subjects are ended."""
        found = find_noise(self._before, take_snapshot())
        return found + [text for states in self._states.values() for text in states.warnings()]

    def other_load(self) -> float | None:
        """Return the share of the CPU time that others used since the begin; to be called as `warnings` is."""
        return measure_other_load(self._before, take_snapshot())

    def measure_energy(
        self, target: Target, spans: Sequence[Span], num_images: int
    ) -> tuple[Energy | None, str]:
        """Return the energy of what was computed within spans, or `None` and why it is not available."""
        return self._power[target if target in self._power else "cpu"].measure(spans, num_images)

    def power(self, target: Target) -> list[Sample]:
        """Return the power so far."""
        return self._power[target].samples() if target in self._power else []

    def states(self, target: Target) -> list[DeviceState]:
        """Return clocks, temperatures and throttling so far."""
        if target not in self._states:
            return []
        return [
            DeviceState(moment, state.clock_mhz, state.temperature_c, state.throttled)
            for moment, state in self._states[target].states()
        ]
