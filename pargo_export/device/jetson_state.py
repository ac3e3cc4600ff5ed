"""How a Jetson is set: its power mode, its clocks, and whether it is slowed down. Only looks, needs no root."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pargo_export.device.cpufreq import clocks_are_fixed
from pargo_export.device.files import read_int, read_text

__all__ = [
    "count_overcurrent",
    "has_fixed_clocks",
    "read_gpu_clock_mhz",
    "read_gpu_max_clock_mhz",
    "read_junction_temperature_c",
    "read_power_mode",
    "read_throttle_alerts",
]

# The GPU's clock domain: Orin on JetPack 5, Orin on JetPack 6 and later, Thor.
_GPUS = ("17000000.ga10b", "17000000.gpu", "gpu-gpc-0")
_COMMAND_TIMEOUT_S = 5


def read_power_mode(root: Path = Path("/"), command: Sequence[str] = ("nvpmodel", "-q")) -> str | None:
    """Return the name of the nvpmodel mode, for example `"MAXN"`; `None` if it cannot be found out.

    Args:
        root: Where `/var/lib/nvpmodel/status` (`pmode:0002`) and `/etc/nvpmodel.conf` (the names) are.
        command: What is asked where they do not say it.
    """
    number = re.search(r"pmode:\s*(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    if number:
        for mode, name in re.findall(
            r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>",
            read_text(root / "etc/nvpmodel.conf"),
            re.MULTILINE,
        ):
            if int(mode) == int(number[1]):
                return str(name)
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # not installed, or it waits for something
        return None
    answer = re.search(r"NV Power Mode:\s*(\S+)", done.stdout)
    return answer[1] if answer else None


def has_fixed_clocks(root: Path = Path("/")) -> bool | None:
    """Return whether CPU and GPU may run at one clock only, as `jetson_clocks` sets it; `None` if unknown.

    `jetson_clocks --show` would need root. It fixes the clocks at the largest that the power mode allows.
    """
    gpu = _gpu_folder(root)
    low, high = (read_int(gpu / name) if gpu else None for name in ("min_freq", "max_freq"))
    cpu = clocks_are_fixed(root)
    if low is None or high is None or cpu is None:
        return None
    return cpu and low == high


def read_gpu_clock_mhz(root: Path = Path("/")) -> float | None:
    """Return the clock of the GPU, MHz; `None` if unknown. It is 0 while the GPU is switched off."""
    return _megahertz(root, "cur_freq")


def read_gpu_max_clock_mhz(root: Path = Path("/")) -> float | None:
    """Return the largest clock of the GPU that the power mode allows, MHz; `None` if unknown."""
    return _megahertz(root, "max_freq")


def read_junction_temperature_c(root: Path = Path("/")) -> float | None:
    """Return the temperature that throttling goes by: the hottest place of the chip; `None` if unknown."""
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if read_text(zone / "type").lower() in {"tj-thermal", "tj_thermal", "tj"}:
            value = read_int(zone / "temp")
            return None if value is None else value / 1000
    return None


def read_throttle_alerts(root: Path = Path("/")) -> tuple[str, ...] | None:
    """Return the parts that heat slows down at this moment, `("gpu-throttle-alert",)`; `None` if unknown."""
    found = {
        read_text(device / "type"): read_int(device / "cur_state")
        for device in sorted((root / "sys/class/thermal").glob("cooling_device*"))
    }
    alerts = {name: state for name, state in found.items() if name.endswith("throttle-alert")}
    return tuple(name for name, state in alerts.items() if state) if alerts else None


def count_overcurrent(root: Path = Path("/")) -> int | None:
    """Return how often too large a current slowed the chip down, since the start; `None` if unknown."""
    counts = [read_int(path) for path in (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _gpu_folder(root: Path) -> Path | None:
    folders = (root / "sys/class/devfreq" / name for name in _GPUS)
    return next((folder for folder in folders if folder.is_dir()), None)


def _megahertz(root: Path, name: str) -> float | None:
    gpu = _gpu_folder(root)
    value = read_int(gpu / name) if gpu else None
    return None if value is None else value / 1e6
