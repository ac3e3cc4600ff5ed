"""Every error that pargo_calibration raises on purpose.

CalibrationError                statistics, ranges or weights that have no answer
├── CalibrationDataError        calibration data cannot be found, read or understood
└── RecipeError                 a recipe is unknown, incomplete or contradicts itself

Each message says what was found, what was expected and how to mend it.
"""

from __future__ import annotations

__all__ = ["CalibrationDataError", "CalibrationError", "RecipeError"]


class CalibrationError(Exception):
    """Base of all errors of this package; by itself: numbers that have no answer."""


class CalibrationDataError(CalibrationError):
    """Calibration data cannot be found, read or understood."""


class RecipeError(CalibrationError, ValueError):
    """A recipe is unknown, incomplete or contradicts itself."""
