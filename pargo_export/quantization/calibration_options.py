"""Which images a calibration observes, and how many."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pargo_export.bundle import VARIANT_NAME
from pargo_export.errors import ConfigError

__all__ = ["MIN_IMAGES", "RANDOM", "CalibrateOptions"]

MIN_IMAGES = 4  # fewer say nothing about a range, and one of them is held out
RANDOM = "random"  # what is given instead of data to calibrate on noise


@dataclass(frozen=True)
class CalibrateOptions:
    """Choices of one calibration.

    Attributes:
        num_images: Images to observe, at most.
        num_evaluation: Further images to keep for measuring accuracy, at most; a quarter of a small data set.
        seed: Decides which images are used.
        shard: Part of the data, (index, number of parts).
        smoothing: Largest exponent of the smoothing whose ranges are observed too; 0 for none. Each activation gets
            the exponent with the least predicted noise.
        name: Name of the calibration in the bundle.
        variant: Float32 variant to observe; by default the one that fits.
        allow_random: Accept `random` as data.
        threads: CPU threads; by default those that ONNX Runtime takes.

    Raises:
        ConfigError: A number is out of range, or the name cannot be one.
    """

    num_images: int = 128
    num_evaluation: int = 8
    seed: int = 0
    shard: tuple[int, int] = (0, 1)
    smoothing: float = 1.0
    name: str = "default"
    variant: str | None = None
    allow_random: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        for field, low in (("num_images", MIN_IMAGES - 1), ("num_evaluation", 1)):
            if getattr(self, field) < low:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least {low}")
        if not re.fullmatch(VARIANT_NAME, self.name):
            raise ConfigError(
                f"name is {self.name!r}; expected a letter or digit, then letters, digits, '.', '_' or '-'"
            )
        if not 0 <= self.smoothing <= 1:
            raise ConfigError(f"smoothing is {self.smoothing}; expected 0 (none) to 1")
        if not 0 <= self.shard[0] < self.shard[1]:
            raise ConfigError(f"shard is {self.shard}; expected (index, number) with 0 <= index < number")
