"""Clocks of the CPU, on machines made of files."""

from __future__ import annotations

import pytest
from machine_trees import XEON, write_tree

from pargo_export.device import cpufreq

CPU = "sys/devices/system/cpu"


def test_a_server(tmp_path):
    """Governor, turbo, clock and throttling are read; the clock is a mean over the cores."""
    root = write_tree(tmp_path, XEON, {f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "3000000\n"})
    assert cpufreq.read_governor(root) == "schedutil"
    assert cpufreq.has_turbo(root) is True
    assert cpufreq.read_clock_mhz(root) == 2500
    assert cpufreq.count_throttling(root) == 7
    assert cpufreq.clocks_are_fixed(root) is False


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({f"{CPU}/intel_pstate/no_turbo": "1"}, False),
        ({f"{CPU}/intel_pstate/no_turbo": "0"}, True),
        ({f"{CPU}/cpufreq/boost": "1"}, True),
        ({f"{CPU}/cpufreq/boost": "0"}, False),
        ({}, None),
    ],
)
def test_turbo(tmp_path, files, turbo):
    """Intel's driver says what is off, the others what is on."""
    assert cpufreq.has_turbo(write_tree(tmp_path, files)) is turbo


def test_two_governors(tmp_path):
    """Cores may be governed differently."""
    root = write_tree(tmp_path, XEON, {f"{CPU}/cpu1/cpufreq/scaling_governor": "performance\n"})
    assert cpufreq.read_governor(root) == "performance, schedutil"


def test_without_cpufreq(tmp_path):
    """The clock is then in /proc/cpuinfo, but that of a virtual machine is a constant."""
    listed = XEON["proc/cpuinfo"]
    root = write_tree(tmp_path, {"proc/cpuinfo": listed})
    assert cpufreq.read_clock_mhz(root) == 2600
    write_tree(root, {"proc/cpuinfo": listed.replace("fpu", "fpu hypervisor")})
    assert cpufreq.read_clock_mhz(root) is None
    assert cpufreq.read_governor(root) is None
    assert cpufreq.clocks_are_fixed(root) is None
    assert cpufreq.count_throttling(root) is None
