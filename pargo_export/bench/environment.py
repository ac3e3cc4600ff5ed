"""Describe the machine and the software that a benchmark runs on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from pargo_export._version import __version__
from pargo_export.bench.probes.nvml import NvmlGpu, open_gpu
from pargo_export.bench.probes.sensor import SensorError
from pargo_export.bench.records import CpuState, Environment, GpuState, JetsonState
from pargo_export.device import cpufreq
from pargo_export.device.files import read_text
from pargo_export.device.gpu import Driver, Gpu, detect_driver
from pargo_export.device.jetson import find_jetpack
from pargo_export.device.jetson_state import (
    has_fixed_clocks,
    read_gpu_clock_mhz,
    read_gpu_max_clock_mhz,
    read_power_mode,
)
from pargo_export.device.machine import Jetson, Machine, detect_machine
from pargo_export.device.packages import find_version
from pargo_export.device.surroundings import is_container, is_virtual

__all__ = ["describe_environment", "find_git_commit", "find_variables"]

# What computes, decodes pictures or decides which kernels run.
_PACKAGES = (
    "cuda-bindings",
    "numpy",
    "nvidia-cublas",
    "nvidia-cudnn",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "pillow",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "triton",
)
# Threads, spinning, affinity, memory allocation, precision and choice of kernels.
_PREFIXES = (
    "BLIS_",
    "DNNL_",
    "GOMP_",
    "KMP_",
    "MALLOC_",
    "MKL_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "ORT_",
    "OV_",
    "PYTORCH_",
    "TORCHINDUCTOR_",
)
_NAMES = {
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_CACHE_DISABLE",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_VISIBLE_DEVICES",
    "LD_PRELOAD",
    "NVIDIA_TF32_OVERRIDE",
    "PYTHONMALLOC",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TRITON_CACHE_DIR",
    "TRITON_INTERPRET",
}
_GIT_TIMEOUT_S = 10


def describe_environment(
    directory: Path | None = None,
    *,
    root: Path = Path("/"),
    driver: Driver | None = None,
    open_nvml: Callable[[int], NvmlGpu] = open_gpu,
) -> Environment:
    """Describe the machine, as it is set at this moment, and the software.

    Args:
        directory: Whose commit is named; by default the working directory.
        root: Where `/proc`, `/sys`, `/etc` and `/var` are.
        driver: The NVIDIA driver; by default it is asked.
        open_nvml: Opens the GPU of a number.
    """
    machine, driver = detect_machine(root), driver or detect_driver()
    return Environment(
        platform=machine.platform,
        python=machine.python,
        cpu=_describe_cpu(machine, root),
        memory_bytes=machine.memory_bytes,
        gpus=tuple(
            _describe_jetson_gpu(gpu, root) if machine.jetson else _describe_gpu(gpu, index, open_nvml)
            for index, gpu in enumerate(driver.gpus)
        ),
        jetson=_describe_jetson(machine.jetson, root) if machine.jetson else None,
        driver=driver.version or None,
        cuda=driver.cuda or None,
        packages={"pargo-export": __version__} | _find_packages(),
        variables=find_variables(os.environ),
        git_commit=find_git_commit(directory or Path.cwd()),
        container=is_container(root),
    )


def find_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that change speed, sorted by name."""
    return {
        name: value for name, value in sorted(environ.items()) if name in _NAMES or name.startswith(_PREFIXES)
    }


def find_git_commit(directory: Path) -> str | None:
    """Return the commit of a working directory, with `-dirty` if files were changed since.

    Git runs what the configuration of a repository tells it to. It is asked only about repositories of the user
    who asks, without the hook that watches files, and writes nothing.

    Returns:
        `None` outside of such a repository, or without git.
    """
    places = (place / ".git" for place in (directory.resolve(), *directory.resolve().parents))
    repository = next((place for place in places if place.exists()), None)
    if repository is None or repository.stat().st_uid != os.geteuid():
        return None
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(directory)]
    command += ["describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
            env=variables | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _describe_cpu(machine: Machine, root: Path) -> CpuState:
    load = read_text(root / "proc/loadavg").split()
    return CpuState(
        model=machine.cpu.model,
        num_usable_cores=machine.cpu.num_usable_cores,
        num_logical_cores=machine.cpu.num_logical_cores,
        features=machine.cpu.features,
        governor=cpufreq.read_governor(root),
        turbo=cpufreq.has_turbo(root),
        clock_mhz=cpufreq.read_clock_mhz(root),
        load_average=float(load[0]) if load else None,
        is_virtual=is_virtual(root),
    )


def _describe_gpu(gpu: Gpu, index: int, open_nvml: Callable[[int], NvmlGpu]) -> GpuState:
    state = GpuState(name=gpu.name, compute_capability=gpu.compute_capability, memory_bytes=gpu.memory_bytes)
    try:
        nvml = open_nvml(index)
    except SensorError:  # what the driver tells is left
        return state
    with nvml:
        return state.model_copy(
            update={
                "clock_mhz": nvml.read_clock_mhz(),
                "max_clock_mhz": nvml.read_max_clock_mhz(),
                "memory_clock_mhz": nvml.read_memory_clock_mhz(),
                "power_limit_w": nvml.read_power_limit_w(),
                "temperature_c": nvml.read_temperature_c(),
                "persistence_mode": nvml.read_persistence_mode(),
            }
        )


def _describe_jetson_gpu(gpu: Gpu, root: Path) -> GpuState:
    return GpuState(
        name=gpu.name,
        compute_capability=gpu.compute_capability,
        memory_bytes=gpu.memory_bytes,
        clock_mhz=read_gpu_clock_mhz(root),
        max_clock_mhz=read_gpu_max_clock_mhz(root),
    )


def _describe_jetson(jetson: Jetson, root: Path) -> JetsonState:
    jetpack = find_jetpack(jetson.l4t)
    return JetsonState(
        model=jetson.model,
        l4t=jetson.l4t,
        jetpack=jetpack.version if jetpack else None,
        power_mode=read_power_mode(root),
        jetson_clocks=has_fixed_clocks(root),
    )


def _find_packages() -> dict[str, str]:
    found = {name: find_version(name) for name in _PACKAGES}
    return {name: version for name, version in found.items() if version is not None}
