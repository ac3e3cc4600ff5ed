"""Memory of a process, of real ones as far as Linux tells, of a fake GPU for the rest."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fake_nvml import FakeNvml
from machine_trees import ORIN_NX, write_tree

from pargo_export.bench.probes.memory import read_memory
from pargo_export.bench.probes.nvml import NvmlGpu
from pargo_export.bench.records import MemoryUse

MB = 10**6
CHILD = """
import sys
for line in sys.stdin:
    memory = bytearray(int(line))  # zeros are not resident until they are touched
    memory[::4096] = b"x" * len(memory[::4096])
    print(flush=True)
    del memory
    print(flush=True)
    sys.stdin.readline()
"""


def test_the_peak_grows_when_memory_is_touched():
    """Memory that a process touched and gave back is in its peak, and not in what it held before."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        before = read_memory(child.pid)
        child.stdin.write(f"{80 * MB}\n")
        child.stdin.flush()
        child.stdout.readline()
        child.stdout.readline()
        after = read_memory(child.pid, earlier=before)
        child.stdin.close()
    assert after.peak_rss_bytes - before.peak_rss_bytes > 60 * MB
    assert after.loaded_rss_bytes == before.loaded_rss_bytes <= before.peak_rss_bytes
    assert after.gpu_peak_bytes is None
    ended = read_memory(child.pid, earlier=after)
    assert (ended.peak_rss_bytes, ended.loaded_rss_bytes) == (after.peak_rss_bytes, after.loaded_rss_bytes)


def test_the_peak_is_not_inherited():
    """A small process that a large one starts has a small peak: VmHWM begins anew, `ru_maxrss` does not."""
    code = (
        "import resource, subprocess, sys\n"
        f"memory = bytearray({150 * MB}); memory[::4096] = b'x' * len(memory[::4096])\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import resource;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True); input()'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline().strip(), flush=True); input(); child.communicate('x')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline().split()[0])
        large, small = read_memory(parent.pid).peak_rss_bytes, read_memory(child).peak_rss_bytes
        parent.communicate("x")
    assert large > 150 * MB
    assert small < 60 * MB


def test_the_largest_memory_on_the_gpu():
    """The GPU keeps no peak: the largest of what was seen is one."""
    fake, pid = FakeNvml.working(), os.getpid()
    gpu = NvmlGpu(fake, "x")
    assert read_memory(8, gpu=gpu).gpu_peak_bytes == 10**9
    assert read_memory(8, gpu=gpu, earlier=MemoryUse(gpu_peak_bytes=3 * 10**9)).gpu_peak_bytes == 3 * 10**9
    assert read_memory(8, gpu=gpu, earlier=MemoryUse(gpu_peak_bytes=5)).gpu_peak_bytes == 10**9
    assert read_memory(pid, gpu=gpu).gpu_peak_bytes is None


def test_a_process_that_is_not_there_and_a_jetson(tmp_path):
    """What cannot be read is `None`; on a Jetson CPU and GPU share the memory."""
    assert read_memory(4_000_000) == MemoryUse()
    status = {"proc/12/status": "Name:\tpython\nVmHWM:\t  2000 kB\nVmRSS:\t  1500 kB\n"}
    found = read_memory(12, root=write_tree(tmp_path, ORIN_NX, status))
    assert found == MemoryUse(peak_rss_bytes=2_048_000, loaded_rss_bytes=1_536_000, is_unified=True)


@pytest.mark.parametrize("status", ["", "VmHWM: many kB\n"])
def test_a_status_without_numbers(tmp_path, status):
    """A kernel thread has no memory of its own."""
    assert read_memory(12, root=write_tree(tmp_path, {"proc/12/status": status})) == MemoryUse()
