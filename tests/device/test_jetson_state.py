"""How a Jetson is set, on boards made of files."""

from __future__ import annotations

import sys

import pytest
from machine_trees import AGX_ORIN, ORIN_NX, THOR, write_tree

from pargo_export.device import jetson_state


def _says(text):
    """A command that says something."""
    return (sys.executable, "-S", "-c", f"print({text!r})")


SILENT = ("no-such-nvpmodel",)


def test_the_power_mode_by_its_files(tmp_path):
    """The number is in one file, its name in the other; the tool is not needed."""
    root = write_tree(tmp_path, ORIN_NX)
    assert jetson_state.read_power_mode(root, SILENT) == "MAXN_SUPER"
    write_tree(root, {"var/lib/nvpmodel/status": "pmode:0000\n"})
    assert jetson_state.read_power_mode(root, SILENT) == "15W"


def test_the_power_mode_by_the_tool(tmp_path):
    """Without the files, or with a number that they do not name, the tool is asked; its default is not guessed."""
    answer = _says("NV Power Mode: MODE_30W\n2")
    assert jetson_state.read_power_mode(tmp_path, answer) == "MODE_30W"
    root = write_tree(tmp_path, ORIN_NX, {"var/lib/nvpmodel/status": "pmode:0007\n"})
    assert jetson_state.read_power_mode(root, answer) == "MODE_30W"
    assert jetson_state.read_power_mode(root, _says("NVPM ERROR: no permission")) is None
    assert jetson_state.read_power_mode(root, SILENT) is None


def test_fixed_clocks(tmp_path):
    """Clocks are fixed if CPU and GPU have one each; with one of them unknown it is not told."""
    assert jetson_state.has_fixed_clocks(write_tree(tmp_path / "nx", ORIN_NX)) is False
    agx = write_tree(tmp_path / "agx", AGX_ORIN)
    assert jetson_state.has_fixed_clocks(agx) is True
    write_tree(agx, {"sys/devices/system/cpu/cpu1/cpufreq/scaling_min_freq": "729600\n"})
    assert jetson_state.has_fixed_clocks(agx) is False
    assert jetson_state.has_fixed_clocks(write_tree(tmp_path / "thor", THOR)) is None
    assert jetson_state.has_fixed_clocks(tmp_path) is None


@pytest.mark.parametrize(
    ("board", "clock", "largest"),
    [(ORIN_NX, 612, 1173), (AGX_ORIN, 1300.5, 1300.5), (THOR, 0, 1575), ({}, None, None)],
)
def test_clocks_of_the_gpu(tmp_path, board, clock, largest):
    """The folder has another name in each JetPack."""
    root = write_tree(tmp_path, board)
    assert jetson_state.read_gpu_clock_mhz(root) == clock
    assert jetson_state.read_gpu_max_clock_mhz(root) == largest


def test_heat_and_current(tmp_path):
    """The junction is the temperature, alerts are throttling, events of over-current are counted."""
    root = write_tree(tmp_path, ORIN_NX)
    assert jetson_state.read_junction_temperature_c(root) == 52.343
    assert jetson_state.read_throttle_alerts(root) == ()
    assert jetson_state.count_overcurrent(root) == 4
    write_tree(root, {"sys/class/thermal/cooling_device1/cur_state": "1\n"})
    assert jetson_state.read_throttle_alerts(root) == ("gpu-throttle-alert",)
    (root / "sys/class/thermal/thermal_zone8/temp").write_text("")  # a part that is switched off
    assert jetson_state.read_junction_temperature_c(root) is None


def test_another_machine_does_not_tell(tmp_path):
    """What is no Jetson has none of it."""
    assert jetson_state.read_junction_temperature_c(tmp_path) is None
    assert jetson_state.read_throttle_alerts(tmp_path) is None
    assert jetson_state.count_overcurrent(tmp_path) is None
