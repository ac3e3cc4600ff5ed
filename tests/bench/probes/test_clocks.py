"""Clock, temperature and throttling over time, on machines made of files."""

from __future__ import annotations

import time

from fake_nvml import FakeNvml
from machine_trees import ORIN_NX, XEON, write_tree
from waiting import wait_for

from pargo_export.bench.probes import clocks
from pargo_export.bench.probes.clocks import State, StateSampler, StateSummary
from pargo_export.bench.probes.nvml import NvmlGpu
from pargo_export.bench.probes.sensor import SensorError

COUNT = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
CLOCK = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
ALERT = "sys/class/thermal/cooling_device1/cur_state"


def test_a_jetson(tmp_path):
    """Both clocks are known; a heat alert is throttling, a fan is none."""
    root = write_tree(tmp_path, ORIN_NX)
    assert StateSampler("gpu", root=root).read().clock_mhz == 612
    state = StateSampler("cpu", root=root)
    with state:
        assert state.read() == State(1190.4, 52.343, ())
        write_tree(root, {ALERT: "1\n"})
        assert state.read().throttled == ("gpu-throttle-alert",)
        write_tree(root, {ALERT: "0\n", "sys/class/hwmon/hwmon9/oc3_event_cnt": "5\n"})
        news = [state.read().throttled for _ in range(2)]
    # the thread may have seen the event before this one did
    assert ("over-current",) in [*news, *(item.throttled for _, item in state.states())]
    assert news[1] == ()


def test_states_over_time(tmp_path):
    """Within a span the mean of the clock, the largest temperature and every reason are told."""
    root = write_tree(tmp_path, XEON)
    with StateSampler("cpu", root=root, period_s=0.005) as sampler:
        wait_for(lambda: len(sampler.states()) > 2)
        quiet = (0, time.perf_counter_ns())
        write_tree(root, {COUNT: "9\n", CLOCK: "1000000\n", "sys/class/hwmon/hwmon1/temp1_input": "99000\n"})
        wait_for(lambda: [state.temperature_c for _, state in sampler.states()].count(99) > 2)
        hot = [time for time, state in sampler.states() if state.temperature_c == 99]
        hot = (hot[1], hot[-1])
    assert sampler.summarize([quiet]) == StateSummary(2000, 61, ())
    assert sampler.summarize([hot]) == StateSummary(1500, 99, ())
    whole = sampler.summarize([quiet, (quiet[1], hot[1])])
    assert (whole.temperature_c, whole.throttled) == (99, ("heat",))
    assert sampler.warnings() == ["the clocks of the CPU were lowered meanwhile: heat"]
    assert sampler.summarize([(1, 2)]) == StateSummary(None, None, None)
    assert sampler.problem == ""


def test_a_gpu():
    """A GPU is asked through NVML; its power cap is a warning. The caller's GPU stays open."""
    fake = FakeNvml.working()
    with StateSampler("gpu", gpu=NvmlGpu(fake, "x"), period_s=0.005) as sampler:
        wait_for(sampler.states)
    assert sampler.states()[0][1] == State(1980, 41, ("power cap", "hardware thermal slowdown"))
    assert sampler.warnings() == [
        "the clocks of the GPU were lowered meanwhile: hardware thermal slowdown, power cap"
    ]
    assert "nvmlShutdown" not in fake.calls


def test_its_own_gpu_is_closed(monkeypatch, tmp_path):
    """A GPU that the sampler opened is closed at the end; without one the reason is told."""
    fake = FakeNvml.working()
    monkeypatch.setattr(clocks, "open_gpu", lambda: NvmlGpu(fake, "x"))
    with StateSampler("gpu", root=tmp_path):
        pass
    assert fake.calls.count("nvmlShutdown") == 1

    def fail():
        raise SensorError("no GPU")

    monkeypatch.setattr(clocks, "open_gpu", fail)
    with StateSampler("gpu", root=tmp_path, period_s=0.005) as sampler:
        time.sleep(0.02)
    assert sampler.problem == "no GPU"
    assert sampler.summarize([(0, time.perf_counter_ns())]) == StateSummary(None, None, None)
    assert sampler.warnings() == []


def test_this_machine():
    """The real files are read without an error."""
    with StateSampler("cpu", period_s=0.01) as sampler:
        wait_for(sampler.states)
    assert sampler.problem == ""
