"""Look at the machine beside a run: power and energy, memory, clocks and throttling, and who else uses it.

All of it reads files and counters. What a machine does not tell is left out with the reason, never zero.
"""

from __future__ import annotations

from pargo_export.bench.probes.clocks import State, StateSampler, StateSummary
from pargo_export.bench.probes.energy import explain_missing, integrate, mean_power
from pargo_export.bench.probes.memory import read_memory
from pargo_export.bench.probes.noise import Snapshot, find_noise, take_snapshot
from pargo_export.bench.probes.nvml import NvmlGpu, open_gpu
from pargo_export.bench.probes.power import PowerSampler, Target, find_power_sensor
from pargo_export.bench.probes.sensor import PowerSensor, SensorError

__all__ = [
    "NvmlGpu",
    "PowerSampler",
    "PowerSensor",
    "SensorError",
    "Snapshot",
    "State",
    "StateSampler",
    "StateSummary",
    "Target",
    "explain_missing",
    "find_noise",
    "find_power_sensor",
    "integrate",
    "mean_power",
    "open_gpu",
    "read_memory",
    "take_snapshot",
]
