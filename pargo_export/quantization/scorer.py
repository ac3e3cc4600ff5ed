"""Scoring functions of the caller's: what accuracy means for the task at hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.errors import ConfigError

__all__ = ["Score", "load_scorer"]

# From the output of a graph for every evaluation image, `[1, Q, C]` each, to a number; higher is better.
Score = Callable[[list[NDArray[np.float32]]], float]


def load_scorer(text: str) -> Score:
    """Import a scoring function, given as `package.module:function`.

    Raises:
        ConfigError: There is none.
    """
    module_name, colon, name = text.partition(":")
    if not (module_name and colon and name.isidentifier()):
        raise ConfigError(f"the score is {text!r}; expected package.module:function")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigError(
            f"cannot import {module_name!r} for the score ({type(error).__name__}: {error}); its folder must be on "
            "PYTHONPATH, or the package installed"
        ) from error
    found: Any = getattr(module, name, None)
    if not callable(found):
        known = sorted(
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        )
        raise ConfigError(
            f"{module_name!r} has no function {name!r}; it has: {', '.join(known) or 'no function at all'}"
        )
    scorer: Score = found
    return scorer
