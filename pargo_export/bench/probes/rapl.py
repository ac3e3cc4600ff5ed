"""Energy of CPU packages from RAPL, as Linux shows it in powercap.

Only whole packages are read. Cores, graphics and, on most machines, memory are parts of a package and would count
twice; `psys` is another scope that few machines have. Several packages are added up: none is part of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pargo_export.bench.probes.sensor import PowerSensor, SensorError
from pargo_export.device.files import read_int, read_text

__all__ = ["RaplSensor", "open_rapl"]

_ZONES = "sys/class/powercap"


@dataclass
class _Package:
    """A package and what its counter showed.

    Attributes:
        folder: Its folder in sysfs.
        range_uj: Where the counter begins anew, microjoules.
        last_uj: The last reading.
        total_uj: What was used since the first reading.
    """

    folder: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0


class RaplSensor(PowerSensor):
    """Energy of all CPU packages, joules since the sensor was opened."""

    measures = "energy"

    def __init__(self, folders: list[Path]) -> None:
        self.name = "RAPL package" if len(folders) == 1 else f"RAPL, {len(folders)} packages"
        self._packages = [_open(folder) for folder in folders]

    def read(self) -> float:
        """Read the counters; each begins anew after some minutes under load, which is made good."""
        for package in self._packages:
            now = _read_uj(package.folder)
            package.total_uj += (now - package.last_uj) % package.range_uj
            package.last_uj = now
        return sum(package.total_uj for package in self._packages) / 1e6


def open_rapl(root: Path = Path("/")) -> RaplSensor:
    """Open the counters of the CPU packages.

    Raises:
        SensorError: There are none, or they cannot be read.
    """
    # "intel-rapl-mmio:0" is the package "intel-rapl:0" once more; "intel-rapl:0:0" is a part of it, named otherwise.
    zones = sorted((root / _ZONES).glob("intel-rapl:*"))
    packages = [zone for zone in zones if read_text(zone / "name").startswith("package")]
    if not packages:
        raise SensorError("Linux shows no RAPL package (in virtual machines, and on Arm, there is none)")
    return RaplSensor(packages)


def _open(folder: Path) -> _Package:
    size = read_int(folder / "max_energy_range_uj")
    if not size:
        raise SensorError(f"{folder / 'max_energy_range_uj'} does not say where the counter begins anew")
    return _Package(folder, size, _read_uj(folder))


def _read_uj(folder: Path) -> int:
    path = folder / "energy_uj"
    try:
        return int(path.read_text())
    except PermissionError as error:
        raise SensorError(f"only root may read {path}: run as root, or `sudo chmod a+r {path}`") from error
    except (OSError, ValueError) as error:
        raise SensorError(f"{path} cannot be read: {error}") from error
