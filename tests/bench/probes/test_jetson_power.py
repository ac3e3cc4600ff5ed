"""Power of Jetsons: the input rail of each board and nothing else, from sysfs and from tegrastats."""

from __future__ import annotations

import sys

import pytest
from machine_trees import AGX_ORIN, ORIN_NX, THOR, write_tree
from waiting import wait_for

from pargo_export.bench.probes import power
from pargo_export.bench.probes.ina3221 import choose_input, find_rails, open_rail
from pargo_export.bench.probes.sensor import SensorError
from pargo_export.bench.probes.tegrastats import open_tegrastats, parse_rails

# As users of these boards posted them.
ORIN_LINE = (
    "12-31-2024 11:22:33 RAM 1839/7763MB (lfb 4x2MB) SWAP 0/3881MB (cached 0MB) CPU [22%@1497,15%@1497,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 14%@[420] APE 174 tj@46.5C "
    "VDD_IN 4521mW/4530mW VDD_CPU_GPU_CV 1320mW/1320mW VDD_SOC 1080mW/1080mW"
)
XAVIER_LINE = (
    "RAM 2673/7765MB (lfb 118x4MB) SWAP 0/3883MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [12%@1190] EMC_FREQ 7% "
    "GR3D_FREQ 33% AO@35C VDD_IN 3902/3611 VDD_CPU_GPU_CV 1331/1180 VDD_SOC 997/941\n"
)
AGX_LINE = (
    "11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) CPU [90%@2201] VDD_GPU_SOC 3150mW/2971mW "
    "VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW VDDQ_VDD2_1V8AO 1091mW/1091mW"
)


def test_the_input_rail_of_orin_nx(tmp_path):
    """VDD_IN alone is read: voltage times current, not the sum of the rails."""
    sensor = open_rail(write_tree(tmp_path, ORIN_NX))
    assert sensor.name == "INA3221 VDD_IN (module input)"
    assert sensor.measures == "power"
    assert sensor.read() == pytest.approx(4.984 * 0.960)
    write_tree(tmp_path, {"sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input": "3000\n"})
    assert sensor.read() == pytest.approx(4.984 * 3)


def test_agx_orin_has_no_input_rail(tmp_path):
    """VIN_SYS_5V0 is a part of the module's power in spite of its name: nothing is told but the rails."""
    root = write_tree(tmp_path, AGX_ORIN)
    labels = [rail.label for rail in find_rails(root)]
    assert labels == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    with pytest.raises(
        SensorError, match="VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO, none of which"
    ):
        open_rail(root)


def test_the_input_of_thor(tmp_path):
    """On Thor the monitor of the carrier board is the input, and it multiplies itself."""
    sensor = open_rail(write_tree(tmp_path, THOR))
    assert sensor.name == "INA238 VIN (board input)"
    assert sensor.read() == pytest.approx(40.1)


def test_an_unlabelled_monitor_of_another_board_is_not_guessed(tmp_path):
    """The same monitor on a board that is not known may measure anything."""
    root = write_tree(tmp_path, THOR, {"proc/device-tree/model": "NVIDIA Jetson Custom Carrier\0"})
    with pytest.raises(SensorError, match="VIN_SYS_5V0, none of which"):
        open_rail(root)


def test_both_paths_to_a_monitor_are_one(tmp_path):
    """A monitor that is found by its class and by its driver is one monitor."""
    root = write_tree(tmp_path, ORIN_NX)
    (root / "sys/class/hwmon/hwmon3").symlink_to(root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3")
    assert len(find_rails(root)) == 3
    assert open_rail(root).read() > 0


def test_what_is_no_jetson_or_has_no_rails(tmp_path):
    """Without a Jetson, or without monitors, the reason is said."""
    with pytest.raises(SensorError, match="not a Jetson"):
        open_rail(tmp_path)
    model = {"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"}
    with pytest.raises(SensorError, match="sysfs shows no power rail"):
        open_rail(write_tree(tmp_path, model))


def test_a_rail_that_breaks_says_so(tmp_path):
    """A file that is empty or gone is an error with its name, not a power of zero."""
    root = write_tree(tmp_path, ORIN_NX)
    sensor = open_rail(root)
    current = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input"
    current.write_text("")
    with pytest.raises(SensorError, match=r"VDD_IN .* cannot be read"):
        sensor.read()
    current.unlink()
    with pytest.raises(SensorError, match="curr1_input"):
        sensor.read()


def test_which_rail_is_the_input():
    """The largest scope is taken; unknown names and names that come twice are refused."""
    assert choose_input(["VDD_SOC", "VDD_IN", "VIN"], "x") == "VIN"
    assert choose_input(["POM_5V_GPU", "POM_5V_IN"], "x") == "POM_5V_IN"
    with pytest.raises(SensorError, match="x shows the rail VDD_IN 2 times"):
        choose_input(["VDD_IN", "VDD_IN"], "x")
    with pytest.raises(SensorError, match="CVB_ATX_12V, none of which"):
        choose_input(["CVB_ATX_12V"], "x")


def test_lines_of_tegrastats():
    """Rails are found with and without a unit, and nothing else is taken for one."""
    assert parse_rails(ORIN_LINE) == {"VDD_IN": 4.521, "VDD_CPU_GPU_CV": 1.32, "VDD_SOC": 1.08}
    assert parse_rails(XAVIER_LINE) == {"VDD_IN": 3.902, "VDD_CPU_GPU_CV": 1.331, "VDD_SOC": 0.997}
    assert list(parse_rails(AGX_LINE)) == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]


def _command(*lines, wait=0.0):
    """A process that prints lines one after another."""
    code = f"import time\nfor line in {lines!r}:\n    print(line, flush=True)\n    time.sleep({wait})"
    return (sys.executable, "-c", code)


def test_a_process_of_tegrastats():
    """The first line chooses the rail, each later one is a reading; its end is an error, and it can be closed twice."""
    sensor = open_tegrastats(_command(ORIN_LINE, ORIN_LINE.replace("4521", "9000"), "RAM 1/2MB"))
    assert sensor.name == "tegrastats VDD_IN (module input)"
    assert sensor.read() == pytest.approx(9.0)
    with pytest.raises(SensorError, match="no longer shows the rail VDD_IN"):
        sensor.read()
    with pytest.raises(SensorError, match="ended with status 0"):
        sensor.read()
    sensor.close()
    sensor.close()
    with pytest.raises(SensorError, match="was ended"):
        sensor.read()


def test_tegrastats_that_is_of_no_use():
    """Without the program, without an input rail and without output the reason is said."""
    with pytest.raises(SensorError, match="no-such-tegrastats is not installed"):
        open_tegrastats(("no-such-tegrastats",))
    with pytest.raises(SensorError, match="VIN_SYS_5V0, VDDQ_VDD2_1V8AO, none of which"):
        open_tegrastats(_command(AGX_LINE))
    with pytest.raises(SensorError, match="ended with status 3"):
        open_tegrastats((sys.executable, "-c", "raise SystemExit(3)"))


def test_tegrastats_beside_a_run():
    """The sampler keeps the pace of the process, and ends it while a reading waits for its next line."""
    sensor = open_tegrastats(_command(*[ORIN_LINE] * 8, wait=0.02))
    with power.PowerSampler(sensor=sensor, period_s=0.001) as sampler:
        wait_for(lambda: sampler.problem)
    assert len(sampler.samples()) == 7
    assert {watts for _, watts in sampler.samples()} == {4.521}
    assert sampler.problem == "tegrastats ended with status 0"
    waiting = open_tegrastats(_command(ORIN_LINE, wait=60))
    with power.PowerSampler(sensor=waiting, period_s=0.001) as sampler:
        pass
    assert sampler.problem == ""
    assert waiting._process.returncode is not None


def test_tegrastats_stands_in_for_sysfs(tmp_path, monkeypatch):
    """Where sysfs shows no rail tegrastats is asked, and both reasons are told if it does not help."""
    root = write_tree(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"})
    monkeypatch.setattr(power, "open_tegrastats", lambda: open_tegrastats(_command(ORIN_LINE)))
    sensor = power.find_power_sensor("gpu", root)
    assert sensor.name.startswith("tegrastats")
    sensor.close()
    monkeypatch.setattr(power, "open_tegrastats", lambda: open_tegrastats(("no-such-tegrastats",)))
    with pytest.raises(SensorError, match="sysfs: sysfs shows no power rail; tegrastats: no-such"):
        power.find_power_sensor("cpu", root)
