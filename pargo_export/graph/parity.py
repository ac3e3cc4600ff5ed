"""The parity gate: the exported graph against the float32 PyTorch reference, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Evidence, Limits
from pargo_export.errors import ExportError
from pargo_export.graph.comparison import PARITY_LIMITS, compare, find_failures
from pargo_export.graph.component import IMAGE_FEATURES, NORMALIZED_FEATURES
from pargo_export.graph.emulate_half import emulate_half
from pargo_export.graph.options import ExportOptions, FloatPrecision
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.preprocessing import ImageSource, PreprocessSpec, normalize, preprocess_uint8

__all__ = ["ParityCase", "measure_parity", "reference_cases"]

Array = NDArray[np.float32]
_SEED = 20240823  # the day the paper appeared


@dataclass(frozen=True)
class ParityCase:
    """One input and what the reference makes of it.

    Attributes:
        source: What the input is.
        values: The graph's input, `[B, ...]`.
        expected: Reference outputs by stage, float32.
    """

    source: str
    values: NDArray[np.generic]
    expected: dict[str, Array]


def _pixel_batches(
    spec: PreprocessSpec, photographs: Sequence[ImageSource], noise_batches: Sequence[int]
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Photographs one at a time, then uniform noise in batches, as `[B, 3, H, W]`, uint8."""
    batches = [("photograph", preprocess_uint8([photograph], spec)) for photograph in photographs]
    generator = np.random.default_rng(_SEED)
    for size in noise_batches:
        shape = (size, 3, spec.height, spec.width)
        batches.append(("noise", generator.integers(0, 256, shape, dtype=np.uint8)))
    return batches


def reference_cases(
    model: VisualFrontEnd,
    options: ExportOptions,
    spec: PreprocessSpec,
    *,
    photographs: Sequence[ImageSource] = (PHOTOGRAPH,),
    noise_batches: Sequence[int] = (2, 3),
) -> list[ParityCase]:
    """Run the reference on photographs and noise.

    Args:
        model: The float32 reference.
        options: Decide what the graph takes.
        spec: Preprocessing of the bundle.
        photographs: One case of batch 1 each.
        noise_batches: One case of each batch size; sizes above `options.max_batch` are left out;
            if that leaves none, one of batch 1. Empty for no noise.
    """
    cases = []
    sizes = [size for size in noise_batches if size <= options.max_batch]
    if noise_batches and not sizes:
        sizes = [1]
    for source, pixels in _pixel_batches(spec, photographs, sizes):
        normalised = normalize(pixels, spec)
        stages = model.encode_images(torch.from_numpy(normalised), return_intermediates=True)
        expected = {
            IMAGE_FEATURES: stages.image_features.numpy(),
            "visual_tokens": stages.visual_tokens.numpy(),
            **{f"query_layer_{layer}": state.numpy() for layer, state in enumerate(stages.layers)},
        }
        values: NDArray[np.generic] = pixels if options.input_kind == "uint8" else normalised
        if options.component == "projector":
            values = expected[IMAGE_FEATURES]
        cases.append(ParityCase(source, values, expected))
    return cases


def _session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its notes on optimisations it skipped help nobody here
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Prepacking would hold a second copy of all weights, for a handful of runs.
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no other base
        raise ExportError(
            f"ONNX Runtime refuses the exported graph: {str(error).splitlines()[-1]}"
        ) from error


def measure_parity(
    probe: Path,
    holders: dict[str, str],
    cases: Sequence[ParityCase],
    precision: FloatPrecision | str,
    affine: tuple[Array, Array] | None,
    limits: Limits | None = None,
) -> Evidence:
    """Run the probe on every case.

    Args:
        probe: Graph with the stage boundaries as further outputs (`boundaries.write_probe`).
        holders: Value name by boundary.
        cases: Inputs with the reference's outputs.
        precision: Of the graph; decides the limits.
        affine: Gain and offset `[C]` of `ln_vision` if they were folded away, to restore the image features.
        limits: Instead of those of the precision.

    Raises:
        ExportError: ONNX Runtime cannot run the graph.
        ParityError: A stage is not finite or has another shape.
    """
    notes = []
    if precision == "bfloat16":
        emulate_half(probe, "bfloat16")
        notes.append("bfloat16 was emulated: float32 operators, every bfloat16 value rounded")
    session = _session(probe)
    feed_name = session.get_inputs()[0].name
    own, *inner = (output.name for output in session.get_outputs())
    names = [*inner, own]  # in the order of the network
    stage_of = {holder: stage for stage, holder in holders.items()}
    measured = []
    for case in cases:
        for name, found in zip(names, session.run(names, {feed_name: case.values}), strict=True):
            stage = stage_of.get(name, name)
            if stage == NORMALIZED_FEATURES and affine is not None:
                stage, found = IMAGE_FEATURES, found.astype(np.float32) * affine[0] + affine[1]  # noqa: PLW2901
            measured.append(compare(stage, case.source, case.expected[stage], found))
    limits = limits or PARITY_LIMITS[precision]
    return Evidence(
        stages=tuple(measured),
        limits=limits,
        passed=not find_failures(measured, limits),
        reference="float32 PyTorch reference, CPU",
        notes=tuple(notes),
    )
