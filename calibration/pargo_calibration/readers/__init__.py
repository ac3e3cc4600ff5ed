"""Calibration images, wherever they lie."""

from pargo_calibration.readers.noise import random_source
from pargo_calibration.readers.opening import open_source
from pargo_calibration.readers.source import DataSource, Entry, Item, SourceKind

__all__ = ["DataSource", "Entry", "Item", "SourceKind", "open_source", "random_source"]
