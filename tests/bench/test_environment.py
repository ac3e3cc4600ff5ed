"""The environment block: this machine, boards made of files, a fake GPU."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib import metadata

import pytest
from fake_nvml import FakeNvml
from machine_trees import AGX_ORIN, ORIN_NX, XEON, write_tree

from pargo_export import __version__
from pargo_export.bench.environment import describe_environment, find_git_commit, find_variables
from pargo_export.bench.probes.nvml import NvmlGpu
from pargo_export.bench.probes.sensor import SensorError
from pargo_export.bench.records import Environment, JetsonState
from pargo_export.device.gpu import Driver, Gpu

GIT = shutil.which("git")
NO_GPU = Driver("", "", (), "none")
H100 = Driver("580.159.04", "13.0", (Gpu("NVIDIA H100 80GB HBM3", "9.0", 80 * 10**9),), "")
ORIN = Driver("540.4.0", "12.6", (Gpu("Orin", "8.7", 16 * 10**9),), "")


def _refuse(_index):
    raise SensorError("no NVML")


def test_this_machine(monkeypatch):
    """The tests run somewhere: there are cores, memory, versions; the record survives JSON."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = describe_environment()
    assert found.python == platform.python_version()
    assert 1 <= found.cpu.num_usable_cores <= found.cpu.num_logical_cores
    assert found.memory_bytes > 10**8
    assert found.packages["numpy"] == metadata.version("numpy")
    assert found.packages["pargo-export"] == __version__
    assert all(found.packages.values())
    assert found.variables["OMP_NUM_THREADS"] == "3"
    assert found.cpu.load_average >= 0
    assert Environment.parse(json.loads(found.model_dump_json()), source="test") == found


def test_a_server_with_a_gpu(tmp_path):
    """What the driver and NVML tell of a GPU comes together, and NVML is released."""
    fake = FakeNvml.working()
    found = describe_environment(
        tmp_path,
        root=write_tree(tmp_path, XEON),
        driver=H100,
        open_nvml=lambda _index: NvmlGpu(fake, "x"),
    )
    (gpu,) = found.gpus
    assert (gpu.name, gpu.compute_capability, gpu.memory_bytes) == (
        "NVIDIA H100 80GB HBM3",
        "9.0",
        80 * 10**9,
    )
    assert (gpu.clock_mhz, gpu.max_clock_mhz, gpu.memory_clock_mhz) == (1980, 1985, 1980)
    assert (gpu.power_limit_w, gpu.temperature_c, gpu.persistence_mode) == (700, 41, True)
    assert fake.calls[-1] == "nvmlShutdown"
    assert (found.driver, found.cuda, found.jetson) == ("580.159.04", "13.0", None)
    cpu = found.cpu
    assert (cpu.governor, cpu.turbo, cpu.clock_mhz, cpu.load_average) == ("schedutil", True, 2000, 0.1)
    assert (cpu.is_virtual, found.container) == (False, None)


def test_without_nvml(tmp_path):
    """What the driver tells of a GPU is left, the rest is unknown."""
    found = describe_environment(tmp_path, root=tmp_path, driver=H100, open_nvml=_refuse)
    assert found.gpus[0].memory_bytes == 80 * 10**9
    assert (found.gpus[0].clock_mhz, found.gpus[0].power_limit_w) == (None, None)
    none = describe_environment(tmp_path, root=tmp_path, driver=NO_GPU)
    assert (none.gpus, none.driver, none.cuda) == ((), None, None)


def test_jetsons(tmp_path):
    """Power mode, clocks and JetPack of a board; NVML is not asked there."""
    nx = describe_environment(
        tmp_path, root=write_tree(tmp_path / "nx", ORIN_NX), driver=ORIN, open_nvml=_refuse
    )
    assert nx.jetson == JetsonState(
        model="NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super",
        l4t="36.4.3",
        jetpack="6.2",
        power_mode="MAXN_SUPER",
        jetson_clocks=False,
    )
    assert (nx.gpus[0].clock_mhz, nx.gpus[0].max_clock_mhz) == (612, 1173)
    agx = describe_environment(tmp_path, root=write_tree(tmp_path / "agx", AGX_ORIN), driver=ORIN)
    assert (agx.jetson.jetpack, agx.jetson.jetson_clocks) == (None, True)


def test_variables_that_change_speed():
    """Threads, spinning and precision are kept; names that only look alike, and the rest, are not."""
    environ = {
        "ORT_DISABLE_ALL": "1",
        "OMP_NUM_THREADS": "2",
        "KMP_BLOCKTIME": "0",
        "NVIDIA_TF32_OVERRIDE": "0",
        "CUDA_VISIBLE_DEVICES": "1",
        "HF_TOKEN": "secret",
        "PATH": "/bin",
        "XOMP_NUM_THREADS": "4",
        "CUDA_SECRET": "x",
    }
    assert list(find_variables(environ)) == [
        "CUDA_VISIBLE_DEVICES",
        "KMP_BLOCKTIME",
        "NVIDIA_TF32_OVERRIDE",
        "OMP_NUM_THREADS",
        "ORT_DISABLE_ALL",
    ]


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit."""
    if GIT is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repository"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("1")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "tag", "-a", "v1", "-m", "x"],
    ):
        subprocess.run([GIT, "-C", str(folder), *command], check=True)
    return folder


def test_the_commit(repository, monkeypatch):
    """The commit is named, not a tag; changes are marked; variables of git do not lead elsewhere."""
    head = subprocess.run(
        [GIT, "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert find_git_commit(repository) == head[:12]
    (repository / "file").write_text("2")
    assert find_git_commit(repository / "below") == f"{head[:12]}-dirty"


def test_what_git_is_not_asked(repository, tmp_path, monkeypatch):
    """Outside of a repository, without git, and in the repository of somebody else there is no commit."""
    assert find_git_commit(tmp_path) is None
    hook = repository.parent / "ran"
    watcher = repository.parent / "watcher"
    watcher.write_text(f"#!/bin/sh\ntouch {hook}\n")
    watcher.chmod(0o755)
    subprocess.run([GIT, "-C", str(repository), "config", "core.fsmonitor", str(watcher)], check=True)
    assert find_git_commit(repository) is not None
    assert not hook.exists()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert find_git_commit(repository) is None
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    assert find_git_commit(repository) is None
