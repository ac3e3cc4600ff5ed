"""What NVML, the management library of NVIDIA's driver, tells of one GPU. Needs the package `nvidia-ml-py`.

Everything may fail for itself: a GPU that knows its temperature need not know its power, and on a Jetson NVML knows
next to nothing. What fails raises `SensorError` with NVML's words, or is `None` where a record has room for that.

On power: the counter of energy is preferred (Volta and later). It is renewed every 10 to 100 ms. Without it, power is
read; since Ampere (but for A100) `nvmlDeviceGetPowerUsage` is the mean of the last second, so the instantaneous field
is asked for first. The number covers the board with its memory, not the GPU alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

from pargo_export.bench.probes.sensor import PowerSensor, SensorError
from pargo_export.device.pci import find_pci_addresses
from pargo_export.errors import MissingDependencyError
from pargo_export.optional import require

__all__ = ["NvmlEnergy", "NvmlGpu", "NvmlPower", "open_gpu", "open_gpu_power"]

Value = TypeVar("Value")

# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean "slower than it could be". The others (idle, clocks that the
# user set, sync boost, display clock) are a choice.
_THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


class NvmlGpu:
    """One GPU, as NVML sees it. A context manager: NVML is released at its end.

    Args:
        module: `pynvml`.
        pci_address: Of the GPU, `"00000000:01:00.0"`.

    Raises:
        SensorError: NVML cannot be started, or does not know the GPU.
    """

    def __init__(self, module: ModuleType | Any, pci_address: str) -> None:
        self._nvml, self._handle = module, None
        self._ask(module.nvmlInit)
        try:
            self._handle = self._ask(lambda: module.nvmlDeviceGetHandleByPciBusId(pci_address.encode()))
        except SensorError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_energy_j(self) -> float:
        """Return the energy since the driver was loaded, joules."""
        return self._ask(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000

    def read_instant_power_w(self) -> float:
        """Return the power at this moment, watts."""
        nvml = self._nvml
        (field,) = self._ask(
            lambda: nvml.nvmlDeviceGetFieldValues(self._handle, [nvml.NVML_FI_DEV_POWER_INSTANT])
        )
        if field.nvmlReturn != nvml.NVML_SUCCESS:
            raise SensorError(f"NVML: {nvml.NVMLError(field.nvmlReturn)}")
        return field.value.uiVal / 1000

    def read_power_w(self) -> float:
        """Return the power, watts: on most GPUs the mean of the last second."""
        return self._ask(lambda: self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000

    def read_clock_mhz(self) -> float | None:
        """Return the clock of its cores, MHz; `None` if unknown."""
        nvml = self._nvml
        return self._or_none(lambda: float(nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM)))

    def read_max_clock_mhz(self) -> float | None:
        """Return the largest clock of its cores, MHz; `None` if unknown."""
        nvml = self._nvml
        return self._or_none(lambda: float(nvml.nvmlDeviceGetMaxClockInfo(self._handle, nvml.NVML_CLOCK_SM)))

    def read_memory_clock_mhz(self) -> float | None:
        """Return the clock of its memory, MHz; `None` if unknown."""
        nvml = self._nvml
        return self._or_none(lambda: float(nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_MEM)))

    def read_temperature_c(self) -> float | None:
        """Return its temperature; `None` if unknown."""
        nvml = self._nvml
        return self._or_none(
            lambda: float(nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU))
        )

    def read_power_limit_w(self) -> float | None:
        """Return the power limit in force, watts; `None` if unknown."""
        return self._or_none(lambda: self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle) / 1000)

    def read_persistence_mode(self) -> bool | None:
        """Return whether the driver stays loaded without a user; `None` if unknown."""
        return self._or_none(lambda: bool(self._nvml.nvmlDeviceGetPersistenceMode(self._handle)))

    def read_throttling(self) -> tuple[str, ...] | None:
        """Return why its clocks are lower than they could be, `("power cap",)`; `None` if unknown."""
        nvml = self._nvml
        # Named "throttle reasons" by drivers and bindings before CUDA 12.2.
        bits = self._or_none(lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle)))
        if bits is None:
            bits = self._or_none(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)))
        return None if bits is None else tuple(name for bit, name in _THROTTLING.items() if bits & bit)

    def read_memory_bytes(self, pid: int) -> int | None:
        """Return the memory that a process holds on the GPU; `None` if NVML does not see it, as in some containers."""
        processes = self._or_none(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        held = [item.usedGpuMemory for item in processes or () if item.pid == pid]
        return held[0] if held else None

    def close(self) -> None:
        """Release NVML; once."""
        self._or_none(self._nvml.nvmlShutdown)

    def _ask(self, question: Callable[[], Value]) -> Value:
        try:
            return question()
        except self._nvml.NVMLError as error:
            raise SensorError(f"NVML: {error}") from error
        except AttributeError as error:  # bindings that are older than the question
            raise SensorError(f"nvidia-ml-py is too old: {error}") from error

    def _or_none(self, question: Callable[[], Value]) -> Value | None:
        try:
            return self._ask(question)
        except SensorError:
            return None


class NvmlEnergy(PowerSensor):
    """The energy counter of a board."""

    name = "NVML board energy"
    measures = "energy"

    def __init__(self, gpu: NvmlGpu) -> None:
        self._gpu = gpu

    def read(self) -> float:
        """Read it, joules."""
        return self._gpu.read_energy_j()

    def close(self) -> None:
        """Release NVML."""
        self._gpu.close()


class NvmlPower(PowerSensor):
    """The power of a board.

    Args:
        gpu: The GPU.
        instant: Whether to read the instantaneous field.
    """

    def __init__(self, gpu: NvmlGpu, *, instant: bool) -> None:
        self.name = (
            "NVML board power, instantaneous" if instant else "NVML board power, mean of the last second"
        )
        self._gpu, self._read = gpu, gpu.read_instant_power_w if instant else gpu.read_power_w

    def read(self) -> float:
        """Read it, watts."""
        return self._read()

    def close(self) -> None:
        """Release NVML."""
        self._gpu.close()


def open_gpu(
    index: int = 0,
    module: ModuleType | Any | None = None,
    find: Callable[[], tuple[str, ...]] = find_pci_addresses,
) -> NvmlGpu:
    """Open the GPU that CUDA calls `index`.

    Args:
        index: Of the GPUs that the process may use.
        module: `pynvml`; by default it is imported.
        find: Returns the PCI addresses of these GPUs.

    Raises:
        SensorError: There is no such GPU, `nvidia-ml-py` is not installed, or NVML does not work.
    """
    addresses = find()
    if index >= len(addresses):
        raise SensorError(f"CUDA shows {len(addresses)} GPUs, number {index} was asked for")
    if module is None:
        try:
            module = require("pynvml", extra="bench", purpose="read the power of NVIDIA GPUs")
        except MissingDependencyError as error:
            raise SensorError(str(error)) from error
    return NvmlGpu(module, addresses[index])


def open_gpu_power(gpu: NvmlGpu) -> PowerSensor:
    """Return the best that a GPU has: counter of energy, instantaneous power, power; it takes over the GPU.

    Raises:
        SensorError: It has none of them; the GPU is closed then.
    """
    reasons: list[str] = []
    for sensor in (NvmlEnergy(gpu), NvmlPower(gpu, instant=True), NvmlPower(gpu, instant=False)):
        try:
            sensor.read()
        except SensorError as error:  # noqa: PERF203 - three of them
            reasons.append(f"{sensor.name}: {error}")
        else:
            return sensor
    gpu.close()
    raise SensorError("; ".join(reasons))
