"""Who else used the machine: counters of files, and of this machine while it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from machine_trees import ORIN_NX, XEON, write_tree

from pargo_export.bench.probes.noise import find_noise, measure_other_load, take_snapshot

QUIET = {
    "proc/stat": "cpu  1000 0 500 8000 100 0 0 20 0 0\ncpu0 500 0 250 4000 50 0 0 10 0 0\ncpu1 500 0 250 4000 50 0 0 10\n",
    "proc/loadavg": "0.10 0.20 0.30 1/200 4242\n",
    "proc/vmstat": "pgpgin 5\npswpin 7\npswpout 9\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_periods 3\nnr_throttled 2\n",
    # 50 is the benchmark, 51 its worker, 52 the worker's, 60 somebody else; the second name is a hostile one
    "proc/50/stat": "50 (python) S 1 50 50 0 -1 0 0 0 0 0 100 20 5 5 20 0 1\n",
    "proc/51/stat": "51 (a) b 7 (c) S 50 50 50 0 -1 0 0 0 0 0 200 40 0 0 20 0 1\n",
    "proc/52/stat": "52 (x) R 51 50 50 0 -1 0 0 0 0 0 7 3 0 0 20 0 1\n",
    "proc/60/stat": "60 (other) R 1 60 60 0 -1 0 0 0 0 0 900 9 0 0 20 0 1\n",
}


@pytest.fixture
def quiet(tmp_path):
    """A snapshot of a quiet machine."""
    return take_snapshot(write_tree(tmp_path, XEON, QUIET), pid=50)


def test_counters_of_a_machine(quiet):
    """The fields of /proc are the right ones, and descendants of the benchmark are its own."""
    assert (quiet.num_cores, quiet.load_average) == (2, 0.1)
    assert (quiet.total_ticks, quiet.busy_ticks, quiet.steal_ticks) == (9620, 1520, 20)
    assert quiet.own_ticks == 130 + 240 + 10
    assert (quiet.swapped_pages, quiet.quota_pauses, quiet.heat_events) == (7, 2, 7)
    assert (quiet.governor, quiet.has_fixed_clocks) == ("schedutil", None)


@pytest.mark.parametrize(
    ("change", "share"),
    [
        ({"busy_ticks": 2020, "own_ticks": 780}, 0.1),
        ({"busy_ticks": 1720, "steal_ticks": 120}, 0.2),  # 100 of others, 100 that the hypervisor took
        ({"busy_ticks": 1600, "own_ticks": 2000}, 0),  # a process that had ended is counted late
        ({"total_ticks": 9620}, None),
    ],
)
def test_the_share_of_others_is_told(quiet, change, share):
    """It is what neither idled nor was the benchmark's own, other virtual machines included."""
    after = replace(quiet, **({"total_ticks": 10620} | change))
    assert measure_other_load(quiet, after) == (None if share is None else pytest.approx(share))


def test_a_quiet_machine_has_no_warnings(quiet):
    """The benchmark's own work is no noise."""
    before = replace(quiet, governor="performance")
    after = replace(before, total_ticks=10620, busy_ticks=2510, own_ticks=380 + 980, steal_ticks=25)
    assert find_noise(before, after) == []
    assert find_noise(before, before) == []


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"busy_ticks": 2020, "own_ticks": 780}, "other processes used 10% of the CPU time"),
        (
            {"busy_ticks": 1620, "steal_ticks": 120},
            "the hypervisor gave 10% of the CPU time to other machines",
        ),
        ({"swapped_pages": 19}, "12 pages of memory came back from swap"),
        ({"quota_pauses": 6}, "the CPU limit of the container paused its processes 4 times"),
        ({"heat_events": 8}, "heat lowered the clocks of the CPU 1 times"),
    ],
)
def test_each_noise_is_found_alone(quiet, change, warning):
    """Each counter that went on is one warning; what the hypervisor took is no process."""
    before = replace(quiet, governor=None)
    found = find_noise(before, replace(before, **({"total_ticks": 10620} | change)))
    assert len(found) == 1
    assert found[0].startswith(warning)


def test_settings_and_load_before(quiet, tmp_path):
    """A governor that follows the load, and a load that was there before, are warnings; a Jetson has its own."""
    (warning,) = find_noise(quiet, quiet)
    assert warning.startswith("the frequency governor is schedutil, clocks follow the load")
    busy = replace(quiet, governor=None, load_average=0.7)
    assert "the load average was 0.70 on 2 cores" in find_noise(busy, busy)[0]
    orin = take_snapshot(write_tree(tmp_path / "orin", ORIN_NX, QUIET), pid=50)
    assert find_noise(orin, orin) == [
        "the clocks of the Jetson follow the load: `sudo jetson_clocks` fixes them"
    ]
    fixed = replace(orin, has_fixed_clocks=True)
    assert find_noise(fixed, fixed) == []


def test_a_machine_that_tells_nothing(tmp_path):
    """Without /proc there are no warnings."""
    nothing = take_snapshot(tmp_path, pid=50)
    assert find_noise(nothing, nothing) == []


def test_time_of_real_processes():
    """What a child of this process computes is its own, also after it has ended."""
    before = take_snapshot(pid=os.getpid())
    spin = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        child.stdout.readline()
        during = take_snapshot(pid=os.getpid())
        child.communicate("x")
    after = take_snapshot(pid=os.getpid())
    tick = os.sysconf("SC_CLK_TCK")
    assert 0.25 * tick <= during.own_ticks - before.own_ticks <= 3 * tick
    assert after.own_ticks >= during.own_ticks
    assert after.total_ticks > before.total_ticks
    alone = take_snapshot(pid=child.pid)
    assert alone.own_ticks == 0
