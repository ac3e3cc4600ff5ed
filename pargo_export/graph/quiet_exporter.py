"""Keep the exporter of PyTorch from telling users what they can do nothing about."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_exporter"]

_LOGGERS = ("torch.onnx", "onnxscript")


@contextmanager
def quiet_exporter(*categories: type[Warning]) -> Iterator[None]:
    """Silence notes about packages that this project does not use, and warnings of these categories."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in categories:
                warnings.simplefilter("ignore", category=category)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
