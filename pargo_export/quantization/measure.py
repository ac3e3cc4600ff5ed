"""Accuracy of a graph on images that calibration did not see, against the float32 graph of the same bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import safetensors
from numpy.typing import NDArray

from pargo_export.bundle import Bundle, Calibration, StageEvidence, Variant
from pargo_export.errors import CalibrationError
from pargo_export.graph.comparison import compare
from pargo_export.graph.emulate_half import emulated
from pargo_export.preprocessing import PreprocessSpec, normalize
from pargo_export.quantization.build import BuiltGraph
from pargo_export.quantization.sessions import open_session
from pargo_export.quantization.stages import find_blocks, find_stages

__all__ = ["EvaluationImages", "Reference", "load_evaluation", "measure"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class EvaluationImages:
    """Images kept for measuring.

    Attributes:
        names: Names in the calibration data.
        pixels: uint8 or normalised float32 `[N, 3, H, W]`.
        spec: Preprocessing of the bundle.
    """

    names: tuple[str, ...]
    pixels: NDArray[np.generic]
    spec: PreprocessSpec

    def __len__(self) -> int:
        return len(self.names)

    def values(self, index: int) -> Array:
        """One image as normalised pixels, float32 `[1, 3, H, W]`."""
        image = self.pixels[index : index + 1]
        if image.dtype == np.uint8:
            return normalize(image.astype(np.uint8, copy=False), self.spec)
        return np.asarray(image, np.float32)

    def feed(self, index: int, *, takes_uint8: bool) -> NDArray[np.generic]:
        """One image as a graph takes it.

        Raises:
            CalibrationError: The graph takes uint8 pixels, but the data were normalised pixels.
        """
        if not takes_uint8:
            return self.values(index)
        if self.pixels.dtype != np.uint8:
            raise CalibrationError(
                "the evaluation images are normalised pixels, but the graph takes uint8 ones; calibrate on pictures"
            )
        return self.pixels[index : index + 1]


def load_evaluation(bundle: Bundle, calibration: Calibration) -> EvaluationImages:
    """Read the images that a calibration kept.

    Raises:
        CalibrationError: The file is damaged.
        IntegrityError: It is not the file that the manifest describes.
    """
    path = bundle.check(calibration.evaluation)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = json.loads((file.metadata() or {})["names"])
            return EvaluationImages(tuple(names), file.get_tensor("pixels"), calibration.preprocessing)
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise CalibrationError(f"{path.name} cannot be read ({error}); calibrate again") from error


@dataclass(frozen=True)
class Reference:
    """Outputs of the float32 graph on the evaluation images, at every stage and after every block.

    Attributes:
        images: The images.
        outputs: For each image the values by stage or block name.
        takes_uint8: Whether the graphs of this input kind normalise by themselves.
    """

    images: EvaluationImages
    outputs: tuple[dict[str, Array], ...]
    takes_uint8: bool

    @classmethod
    def of(
        cls, bundle: Bundle, variant: Variant, images: EvaluationImages, *, threads: int | None = None
    ) -> Reference:
        """Run a float32 variant on the images."""
        graph = bundle.check(variant.graph)
        model = ir.load(graph)
        places = {**find_blocks(model), **find_stages(model)}
        session = open_session(
            graph, graph.parent, outputs=list(places.values()), threads=threads, prepack=False
        )
        takes_uint8 = variant.input == "uint8"
        outputs = []
        for index in range(len(images)):
            feed = {session.get_inputs()[0].name: images.feed(index, takes_uint8=takes_uint8)}
            found = session.run(list(places.values()), feed)
            outputs.append(
                {place: values.astype(np.float32) for place, values in zip(places, found, strict=True)}
            )
        return cls(images, tuple(outputs), takes_uint8)


def measure(
    built: BuiltGraph,
    reference: Reference,
    *,
    places: Mapping[str, str] | None = None,
    images: Sequence[int] | None = None,
    threads: int | None = None,
) -> tuple[StageEvidence, ...]:
    """Compare a graph with the reference, one measurement for each place and image.

    BFloat16 parts are emulated: ONNX Runtime has no such products on a CPU.

    Args:
        built: The graph.
        reference: What it is held against.
        places: Values to compare, by stage or block name; by default the stages.
        images: Indices of the images; by default all.
        threads: CPU threads.

    Raises:
        ParityError: A value is NaN or infinite.
        QuantizationError: ONNX Runtime refuses the graph.
    """
    places = built.stages if places is None else places
    session = open_session(
        _runnable(built), built.path.parent, outputs=list(places.values()), threads=threads
    )
    measured = []
    for index in range(len(reference.images)) if images is None else images:
        name = reference.images.names[index]
        feed = {session.get_inputs()[0].name: reference.images.feed(index, takes_uint8=reference.takes_uint8)}
        for place, found in zip(places, session.run(list(places.values()), feed), strict=True):
            values = found.astype(np.float32)
            factors = built.factors.get(places[place])
            if factors is not None:
                values = values * factors
            measured.append(compare(place, name, reference.outputs[index][place], values))
    return tuple(measured)


def _runnable(built: BuiltGraph) -> Path | onnx.ModelProto:
    """Return a graph that ONNX Runtime computes as a device would: the file itself, or an emulation of it."""
    if built.float_precision != "bfloat16":
        return built.path
    return emulated(onnx.load(built.path, load_external_data=False), "bfloat16")
