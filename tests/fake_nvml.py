"""A `pynvml` that answers what it is told, to drive our own code without a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

__all__ = ["FakeNvml", "FakeNvmlError"]


class FakeNvmlError(Exception):
    """As `pynvml.NVMLError`: made of a number, or here of a text."""


class FakeNvml:
    """As much of `pynvml` as the probes call.

    Args:
        answers: Returned value by name of the function; an exception is raised, and what is missing is not supported.
    """

    NVMLError = FakeNvmlError
    NVML_SUCCESS = 0
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = "sm", "memory", "gpu"
    NVML_FI_DEV_POWER_INSTANT = 186

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[str] = []

    @classmethod
    def working(cls, **answers: Any) -> FakeNvml:
        """Return one that knows everything, but for what `answers` changes."""
        known = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetHandleByPciBusId": "handle",
            "nvmlDeviceGetTotalEnergyConsumption": 123_456,
            "nvmlDeviceGetFieldValues": [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=210_000))],
            "nvmlDeviceGetPowerUsage": 200_000,
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetMaxClockInfo": 1985,
            "nvmlDeviceGetTemperature": 41,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x1 | 0x4 | 0x40,
            "nvmlDeviceGetComputeRunningProcesses": [
                SimpleNamespace(pid=7, usedGpuMemory=5),
                SimpleNamespace(pid=8, usedGpuMemory=10**9),
            ],
        }
        return cls(**(known | answers))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def answer(*_: object) -> Any:
            self.calls.append(name)
            value = self.answers.get(name, FakeNvmlError("Not Supported"))
            if isinstance(value, Exception):
                raise value
            return value() if callable(value) else value

        return answer
