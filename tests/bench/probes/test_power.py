"""The sampler: which sensor for what computes, readings joined with what was timed, and the end of it all."""

from __future__ import annotations

import time

import pytest
from fake_nvml import FakeNvml
from machine_trees import AGX_ORIN, ORIN_NX, RAPL, write_tree
from waiting import wait_for

from pargo_export.bench.probes import power
from pargo_export.bench.probes.nvml import NvmlGpu
from pargo_export.bench.probes.power import PowerSampler
from pargo_export.bench.probes.sensor import PowerSensor, SensorError

CURRENT = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input"


class Counter(PowerSensor):
    """Joules of 20 W, by the clock of the machine."""

    name, measures = "counter", "energy"

    def __init__(self):
        self.is_closed = False

    def read(self):
        """The clock decides."""
        return 20 * time.perf_counter()

    def close(self):
        """Remember it."""
        self.is_closed = True


def test_the_power_of_a_jetson_beside_a_run(tmp_path):
    """Idle before, more during the run: both come out, and the energy of an image."""
    root = write_tree(tmp_path, ORIN_NX)
    with PowerSampler("gpu", root=root, period_s=0.005) as sampler:
        assert sampler.source == "INA3221 VDD_IN (module input)"
        assert sampler.measure_idle(0.1) == pytest.approx(4.984 * 0.96)
        write_tree(root, {CURRENT: "4000\n"})
        wait_for(lambda: sampler.samples()[-1][1] > 10)
        begin = time.perf_counter_ns()
        time.sleep(0.2)
        span = (begin, time.perf_counter_ns())
        time.sleep(0.05)
        energy, reason = sampler.measure([span], 10)
    assert (reason, sampler.problem) == ("", "")
    assert energy.mean_power_w == pytest.approx(4.984 * 4)
    assert energy.idle_power_w == pytest.approx(4.984 * 0.96)
    assert energy.energy_per_image_j == pytest.approx(4.984 * 4 * (span[1] - span[0]) / 1e9 / 10)
    assert energy.num_samples >= 5


def test_a_counter_beside_a_run():
    """Of a counter the power is the difference; the sensor is closed at the end."""
    with PowerSampler(sensor=Counter(), period_s=0.005) as sampler:
        begin = time.perf_counter_ns()
        time.sleep(0.4)
        span = (begin, time.perf_counter_ns())
        time.sleep(0.02)
        energy, reason = sampler.measure([span], 1)
    assert reason == ""
    assert energy.mean_power_w == pytest.approx(20, rel=0.1)
    assert sampler.mean_power([span]) == pytest.approx(20, rel=0.1)
    assert sampler._sensor.is_closed


def test_too_short_a_run_has_no_energy(tmp_path):
    """A run between two readings cannot be told from what was around it."""
    with PowerSampler(root=write_tree(tmp_path, ORIN_NX), period_s=0.05) as sampler:
        time.sleep(0.12)
        begin = time.perf_counter_ns()
        energy, reason = sampler.measure([(begin, begin + 1000)], 1)
    assert energy is None
    assert reason.startswith("0 power readings fell into 1e-06 s of timed runs")


def test_without_a_sensor_it_says_why(tmp_path):
    """A machine without a sensor has no source, no samples and a reason, and nothing waits for it."""
    with PowerSampler("cpu", root=tmp_path) as sampler:
        begin = time.monotonic()
        assert sampler.measure_idle(60) is None
        assert time.monotonic() - begin < 5
        assert sampler.measure([(0, 10**9)], 1) == (None, sampler.problem)
    assert (sampler.source, sampler.samples(), sampler.mean_power([(0, 1)])) == (None, [], None)
    assert sampler.problem.startswith("no power sensor: RAPL: Linux shows no RAPL package")
    with PowerSampler("gpu", root=write_tree(tmp_path, AGX_ORIN)) as sampler:
        pass
    assert "none of which is known to feed the whole board" in sampler.problem


def test_a_sensor_that_fails_is_told_with_the_missing_energy(tmp_path):
    """If readings stop, the reason is the failure too."""
    root = write_tree(tmp_path, ORIN_NX)
    with PowerSampler(root=root, period_s=0.005) as sampler:
        wait_for(sampler.samples)
        (root / CURRENT).unlink()
        begin = time.perf_counter_ns()
        wait_for(lambda: sampler.problem)
        energy, reason = sampler.measure([(begin, time.perf_counter_ns())], 1)
    assert energy is None
    assert "power readings fell into" in reason
    assert "VDD_IN (module input) cannot be read" in reason


def test_cpu_and_gpu_are_not_taken_for_each_other(tmp_path, monkeypatch):
    """RAPL is for the CPU and NVML for the GPU, also where only the other one is there."""
    root = write_tree(tmp_path, RAPL)
    sensor = power.find_power_sensor("cpu", root)
    assert sensor.name == "RAPL, 2 packages"
    monkeypatch.setattr(power, "open_gpu", lambda: NvmlGpu(FakeNvml.working(), "x"))
    assert power.find_power_sensor("gpu", root).name == "NVML board energy"
    (root / "sys/class/powercap/intel-rapl:0/name").write_text("dram")
    (root / "sys/class/powercap/intel-rapl:1/name").write_text("dram")
    with pytest.raises(SensorError, match="RAPL: Linux shows no RAPL package"):
        power.find_power_sensor("cpu", root)


def test_this_machine():
    """Whatever the tests run on: there are samples, or a reason why not."""
    with PowerSampler("cpu", period_s=0.01) as sampler:
        time.sleep(0.05)
    assert (sampler.source is None) == bool(sampler.problem)
