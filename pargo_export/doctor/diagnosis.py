"""Put together what the other modules find."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pargo_export._version import __version__
from pargo_export.device.find import find_engine_device
from pargo_export.device.gpu import Driver, detect_driver
from pargo_export.device.machine import Machine, detect_machine
from pargo_export.doctor.abilities import Ability, find_abilities
from pargo_export.doctor.packages import find_versions
from pargo_export.doctor.tensorrt import TensorRTState, find_tensorrt

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """This machine, as pargo-export sees it.

    Attributes:
        version: Of pargo-export.
        machine: The machine.
        driver: The NVIDIA driver and its GPUs.
        jetpack: The JetPack of a Jetson; empty elsewhere, and where this version does not know the release.
        tensorrt: TensorRT and TensorRT for RTX.
        packages: Version by package; `None` where it is not installed.
        abilities: Whether it can export, then its backends.
    """

    version: str
    machine: Machine
    driver: Driver
    jetpack: str
    tensorrt: tuple[TensorRTState, ...]
    packages: dict[str, str | None]
    abilities: tuple[Ability, ...]

    @property
    def can_run(self) -> bool:
        """Whether at least one backend works."""
        return any(ability.ok and ability.precisions for ability in self.abilities)

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis in the types of JSON."""
        return asdict(self) | {"can_run": self.can_run}


def diagnose() -> Diagnosis:
    """Look at this machine."""
    driver, machine = detect_driver(), detect_machine()
    device = find_engine_device(driver)
    return Diagnosis(
        version=__version__,
        machine=machine,
        driver=driver,
        jetpack=device.jetpack,
        tensorrt=find_tensorrt(device),
        packages=find_versions(),
        abilities=find_abilities(driver, features=machine.cpu.features),
    )
