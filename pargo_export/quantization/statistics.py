"""What calibration saw of every activation, and how it is kept in a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from pargo_calibration import TensorStatistics
from pargo_calibration import errors as calibration_errors
from pargo_export.errors import CalibrationError

__all__ = ["ActivationStatistics", "Observation", "pack", "unpack"]

_SEPARATOR = "|"
_PLAIN, _SMOOTHED, _FACTORS = "plain", "smoothed", "factors"


@dataclass
class ActivationStatistics:
    """One activation, as it is and divided by its smoothing factors.

    Attributes:
        plain: Statistics of the values.
        smoothed: Statistics of the values divided by `factors`; `None` where smoothing is not possible.
        factors: float32 `[C]`.
    """

    plain: TensorStatistics
    smoothed: TensorStatistics | None = None
    factors: NDArray[np.float32] | None = None


@dataclass
class Observation:
    """Everything that a pass over calibration images yields.

    Attributes:
        activations: By module path of the linear that reads the activation, or `<attention>/<input>`.
        metadata: Strings to keep beside the numbers.
    """

    activations: dict[str, ActivationStatistics] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def pack(observation: Observation) -> bytes:
    """Everything as one safetensors file; the same bytes for the same activations, if there is no metadata."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, item in observation.activations.items():
        for part, statistics in ((_PLAIN, item.plain), (_SMOOTHED, item.smoothed)):
            if statistics is not None:
                for key, values in statistics.to_arrays().items():
                    arrays[_SEPARATOR.join((name, part, key))] = np.asarray(values, order="C")  # keeps rank 0
        if item.factors is not None:
            arrays[_SEPARATOR.join((name, _FACTORS, ""))] = item.factors
    return save(arrays, metadata={"order": json.dumps(list(observation.activations)), **observation.metadata})


def unpack(path: Path) -> Observation:
    """Inverse of `pack`.

    Raises:
        CalibrationError: The file is damaged or of another version.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        order = json.loads(metadata.pop("order"))
        observation = Observation(metadata=metadata)
        for name in order:
            observation.activations[name] = _unpack_one(name, arrays)
    except (
        safetensors.SafetensorError,
        calibration_errors.CalibrationError,
        KeyError,
        ValueError,
        OSError,
    ) as error:
        raise CalibrationError(f"{path.name} cannot be read ({error}); calibrate again") from error
    return observation


def _unpack_one(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> ActivationStatistics:
    def part(which: str) -> TensorStatistics | None:
        prefix = _SEPARATOR.join((name, which, ""))
        found = {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}
        return TensorStatistics.from_arrays(found) if found else None

    plain = part(_PLAIN)
    if plain is None:
        raise KeyError(name)
    factors = arrays.get(_SEPARATOR.join((name, _FACTORS, "")))
    return ActivationStatistics(
        plain, part(_SMOOTHED), None if factors is None else np.asarray(factors, np.float32)
    )
