"""What is asked of NVML, in which order, and what its errors become. The GPU is a fake: no number here was measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fake_nvml import FakeNvml, FakeNvmlError

from pargo_export.bench.probes import nvml as probe
from pargo_export.bench.probes.nvml import NvmlGpu, open_gpu, open_gpu_power
from pargo_export.bench.probes.sensor import SensorError
from pargo_export.errors import MissingDependencyError

ADDRESS = "00000000:01:00.0"
UNSUPPORTED = FakeNvmlError("Not Supported")
NO_FIELD = [SimpleNamespace(nvmlReturn=3, value=None)]


def test_everything_that_a_gpu_tells():
    """Units are watts, joules, MHz and bytes; idle is no throttling."""
    with NvmlGpu(FakeNvml.working(), ADDRESS) as gpu:
        assert gpu.read_energy_j() == pytest.approx(123.456)
        assert (gpu.read_instant_power_w(), gpu.read_power_w()) == (210, 200)
        assert (gpu.read_clock_mhz(), gpu.read_max_clock_mhz(), gpu.read_memory_clock_mhz()) == (
            1980,
            1985,
            1980,
        )
        assert (gpu.read_temperature_c(), gpu.read_power_limit_w()) == (41, 700)
        assert gpu.read_persistence_mode() is True
        assert gpu.read_throttling() == ("power cap", "hardware thermal slowdown")
        assert (gpu.read_memory_bytes(8), gpu.read_memory_bytes(9)) == (10**9, None)


def test_a_jetson_that_knows_nothing():
    """What NVML does not support is `None` or an error with its words, never zero."""
    with NvmlGpu(
        FakeNvml(nvmlInit=None, nvmlDeviceGetHandleByPciBusId="x", nvmlShutdown=None), ADDRESS
    ) as gpu:
        for ask in (
            gpu.read_clock_mhz,
            gpu.read_max_clock_mhz,
            gpu.read_memory_clock_mhz,
            gpu.read_temperature_c,
            gpu.read_power_limit_w,
            gpu.read_persistence_mode,
            gpu.read_throttling,
        ):
            assert ask() is None, ask
        assert gpu.read_memory_bytes(7) is None
        for ask in (gpu.read_energy_j, gpu.read_instant_power_w, gpu.read_power_w):
            with pytest.raises(SensorError, match="NVML: Not Supported"):
                ask()


def test_older_drivers_call_it_throttling():
    """Where the newer name is not known, the older one is asked."""
    fake = FakeNvml.working(
        nvmlDeviceGetCurrentClocksEventReasons=FakeNvmlError("Function Not Found"),
        nvmlDeviceGetCurrentClocksThrottleReasons=0x8,
    )
    assert NvmlGpu(fake, ADDRESS).read_throttling() == ("hardware slowdown",)
    fake.answers["nvmlDeviceGetCurrentClocksEventReasons"] = AttributeError("no such function")
    assert NvmlGpu(fake, ADDRESS).read_throttling() == ("hardware slowdown",)


@pytest.mark.parametrize(
    ("answers", "name", "measures"),
    [
        ({}, "NVML board energy", "energy"),
        (
            {"nvmlDeviceGetTotalEnergyConsumption": UNSUPPORTED},
            "NVML board power, instantaneous",
            "power",
        ),
        (
            {"nvmlDeviceGetTotalEnergyConsumption": UNSUPPORTED, "nvmlDeviceGetFieldValues": NO_FIELD},
            "NVML board power, mean of the last second",
            "power",
        ),
    ],
)
def test_the_best_power_that_there_is(answers, name, measures):
    """The counter comes first, then the power of this moment, then its mean."""
    sensor = open_gpu_power(NvmlGpu(FakeNvml.working(**answers), ADDRESS))
    assert (sensor.name, sensor.measures) == (name, measures)
    assert sensor.read() == {"energy": 123.456, "power": 200 if "mean" in name else 210}[measures]
    sensor.close()


def test_a_gpu_without_power():
    """Every reason is told, and NVML is released."""
    fake = FakeNvml.working(
        nvmlDeviceGetTotalEnergyConsumption=UNSUPPORTED,
        nvmlDeviceGetFieldValues=UNSUPPORTED,
        nvmlDeviceGetPowerUsage=FakeNvmlError("Insufficient Permissions"),
    )
    with pytest.raises(
        SensorError, match=r"energy: NVML: Not Supported; .*last second: NVML: Insufficient Perm"
    ):
        open_gpu_power(NvmlGpu(fake, ADDRESS))
    assert fake.calls[-1] == "nvmlShutdown"


def test_nvml_that_does_not_start(monkeypatch):
    """No GPU, no package, no library, unknown GPU: each has its reason, and what was started is released."""
    with pytest.raises(SensorError, match="CUDA shows 0 GPUs, number 0 was asked for"):
        open_gpu(module=FakeNvml.working(), find=tuple)

    def missing(*_, **__):
        raise MissingDependencyError("pip install 'pargo-export[bench]'")

    monkeypatch.setattr(probe, "require", missing)
    with pytest.raises(SensorError, match=r"pip install 'pargo-export\[bench\]'"):
        open_gpu(find=lambda: (ADDRESS,))
    fake = FakeNvml.working(nvmlInit=FakeNvmlError("NVML Shared Library Not Found"))
    with pytest.raises(SensorError, match="NVML: NVML Shared Library Not Found"):
        open_gpu(module=fake, find=lambda: (ADDRESS,))
    assert fake.calls == ["nvmlInit"]
    fake = FakeNvml.working(nvmlDeviceGetHandleByPciBusId=FakeNvmlError("Not Found"))
    with pytest.raises(SensorError, match="NVML: Not Found"):
        open_gpu(module=fake, find=lambda: (ADDRESS,))
    assert fake.calls[-1] == "nvmlShutdown"


def test_the_gpu_of_cuda_is_opened():
    """NVML counts differently from CUDA: the GPU is found by its address."""
    asked = []

    class Nvml(FakeNvml):
        def nvmlDeviceGetHandleByPciBusId(self, address):  # noqa: N802
            asked.append(address)

    fake = Nvml(nvmlInit=None, nvmlShutdown=None)
    open_gpu(1, fake, lambda: ("0000:01:00.0", "0000:41:00.0")).close()
    assert asked == [b"0000:41:00.0"]


def test_the_names_are_those_of_the_bindings():
    """Every function and constant that is asked for exists in `nvidia-ml-py`; without a driver it says why."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    names = set(FakeNvml.working().answers) | {"nvmlDeviceGetCurrentClocksThrottleReasons"}
    names |= {name for name in vars(FakeNvml) if name.startswith("NVML")}
    assert [name for name in names if not hasattr(pynvml, name)] == []
    fields = pynvml.c_nvmlFieldValue_t()
    assert (fields.nvmlReturn, fields.value.uiVal) == (0, 0)
    if not probe.find_pci_addresses():
        with pytest.raises(SensorError, match="CUDA shows 0 GPUs"):
            open_gpu()
