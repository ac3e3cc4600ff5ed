"""What every power sensor is: a name, and one number at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

__all__ = ["PowerSensor", "SensorError"]


class SensorError(Exception):
    """A sensor is not there or cannot be read; the message says why. It does not leave the probes."""


class PowerSensor(ABC):
    """A sensor of power, or a counter of energy.

    Attributes:
        name: What is measured, for people: `"INA3221 VDD_IN (module input)"`.
        measures: `"power"`: `read` returns watts. `"energy"`: it returns joules since some beginning, never fewer.
    """

    name: str
    measures: Literal["power", "energy"] = "power"

    @abstractmethod
    def read(self) -> float:
        """Read it, watts or joules; called from one thread at a time.

        Raises:
            SensorError: It cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - files need no closing
        """Free it; a `read` that waits in another thread returns or fails soon after."""
