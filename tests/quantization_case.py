"""A calibrated golden case, for the tests that quantize."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from skimage import data

from pargo_calibration import load_recipe
from pargo_export.bundle import Bundle
from pargo_export.quantization.build import FloatPrecision, GraphBuilder
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.measure import Reference, load_evaluation
from pargo_export.quantization.statistics import Observation, unpack

__all__ = ["QuantizationCase", "quantization_case"]


@dataclass(frozen=True)
class QuantizationCase:
    """What quantization starts from.

    Attributes:
        graph: The float32 graph; do not write to it.
        observation: What calibration saw on ten crops of photographs.
        reference: Outputs of the float32 graph on two others.
    """

    graph: Path
    observation: Observation
    reference: Reference

    def builder(
        self, recipe: str = "int8", *, graph: Path | None = None, float_precision: FloatPrecision = "float32"
    ) -> GraphBuilder:
        """Return a builder of CPU graphs."""
        loaded = load_recipe(recipe)
        observation = None if loaded.precision == "int8_weight_only" else self.observation
        return GraphBuilder(graph or self.graph, loaded, observation, "cpu", float_precision, {})


def quantization_case(bundle: Path, folder: Path) -> QuantizationCase:
    """Calibrate a copy of a bundle, which has the variant `fp32`."""
    photographs = folder / "photographs"
    photographs.mkdir()
    for name, picture in (("astronaut", data.astronaut()), ("chelsea", data.chelsea())):
        for index in range(6):
            crop = picture[30 * index :, 50 * index :][:120, :120]
            Image.fromarray(crop).save(photographs / f"{name}-{index}.png")
    copy = Path(shutil.copytree(bundle, folder / "bundle"))
    calibrated = calibrate(copy, photographs, CalibrateOptions(num_evaluation=2, threads=1)).bundle
    calibration, variant = calibrated.manifest.calibrations["default"], calibrated.variant("fp32")
    images = load_evaluation(calibrated, calibration)
    return QuantizationCase(
        graph=calibrated.file(variant.graph),
        observation=unpack(calibrated.file(calibration.statistics)),
        reference=Reference.of(Bundle.open(copy), variant, images, threads=1),
    )
