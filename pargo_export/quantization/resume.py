"""Progress of a calibration, kept beside the bundle so that an interrupted one can continue."""

from __future__ import annotations

import json

from pargo_calibration import DataSource
from pargo_export.bundle import Bundle, Variant, atomic_write, recipe_sha256
from pargo_export.errors import CalibrationError
from pargo_export.quantization.calibration_options import CalibrateOptions
from pargo_export.quantization.statistics import Observation, pack, unpack

__all__ = ["CalibrationState"]


class CalibrationState:
    """What an interrupted pass has seen; it counts for the same graph, data and options only.

    Args:
        bundle: The bundle; the state lies beside it.
        variant: Whose activations are observed.
        source: The data.
        options: Choices of the calibration.

    Attributes:
        path: The file.
    """

    def __init__(
        self, bundle: Bundle, variant: Variant, source: DataSource, options: CalibrateOptions
    ) -> None:
        self.path = bundle.path.with_name(f".{bundle.path.name}.calibration-{options.name}.partial")
        self._num_images = options.num_images
        self._identity = recipe_sha256(
            {
                "graph": bundle.manifest.files[variant.graph].sha256,
                "entries": [entry.name for entry in source.entries()],
                "kind": source.kind,
                "seed": options.seed,
                "shard": list(options.shard),
                "num_evaluation": options.num_evaluation,
                "smoothing": options.smoothing,
                "preprocessing": bundle.manifest.preprocessing.model_dump(mode="json"),
            }
        )

    def load(self) -> tuple[Observation, list[tuple[str, str]]] | None:
        """Return what an interrupted run of the same calibration saw; `None` if there is nothing to use."""
        if not self.path.is_file():
            return None
        try:
            observation = unpack(self.path)
        except CalibrationError:  # a damaged state is only lost time
            return None
        if observation.metadata.pop("identity", None) != self._identity:
            return None
        used = [(str(name), str(digest)) for name, digest in json.loads(observation.metadata.pop("used"))]
        return (observation, used) if len(used) <= self._num_images else None

    def save(self, observation: Observation, used: list[tuple[str, str]]) -> None:
        """Write the state; a crash leaves the old one."""
        marked = Observation(observation.activations, {"identity": self._identity, "used": json.dumps(used)})
        atomic_write(self.path, pack(marked))

    def forget(self) -> None:
        """Remove the state."""
        self.path.unlink(missing_ok=True)
