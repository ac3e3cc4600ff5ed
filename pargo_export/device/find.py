"""This machine as an engine sees it."""

from __future__ import annotations

import platform
from pathlib import Path

from pargo_export.bundle import EngineDevice
from pargo_export.device.gpu import Driver, detect_driver
from pargo_export.device.jetson import find_jetpack
from pargo_export.device.machine import detect_jetson

__all__ = ["current_platform", "find_engine_device"]


def find_engine_device(driver: Driver | None = None, root: Path = Path("/")) -> EngineDevice:
    """Describe this machine; without a GPU its compute capability is an empty text.

    Of several GPUs it is the first one that the process may use, which engines are built for and run on;
    `CUDA_VISIBLE_DEVICES` chooses another. On a Jetson the memory is that of the whole machine.

    Args:
        driver: The driver and its GPUs; by default they are asked for.
        root: Where `/proc` and `/etc` are, which tell a Jetson.
    """
    driver, jetson = driver or detect_driver(), detect_jetson(root)
    gpu = driver.gpus[0] if driver.gpus else None
    jetpack = find_jetpack(jetson.l4t) if jetson else None
    return EngineDevice(
        name=gpu.name if gpu else "",
        compute_capability=gpu.compute_capability if gpu else "",
        memory_bytes=gpu.memory_bytes if gpu else 0,
        platform=current_platform(),
        driver=driver.version,
        cuda=driver.cuda,
        jetson=(jetson.model or "Jetson") if jetson else "",
        l4t=jetson.l4t if jetson else "",
        jetpack=jetpack.version if jetpack else "",
    )


def current_platform() -> str:
    """Operating system and processor: `"linux-x86_64"`, `"linux-aarch64"`."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"
