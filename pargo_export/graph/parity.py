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
from pargo_export.bundle import Evidence, Limits, StageEvidence
from pargo_export.errors import ExportError, ParityError
from pargo_export.graph.component import IMAGE_FEATURES, NORMALIZED_FEATURES
from pargo_export.graph.emulate_bfloat16 import emulate_bfloat16
from pargo_export.graph.options import ExportOptions, FloatPrecision
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.preprocessing import ImageSource, PreprocessSpec, normalize, preprocess_uint8

__all__ = ["PARITY_LIMITS", "ParityCase", "compare", "measure_parity", "reference_cases", "require_parity"]

Array = NDArray[np.float32]
_SEED = 20240823  # the day the paper appeared

# max_abs is held against limit * max(1, standard deviation of the reference); cosine is the worst token's.
# Measured on the golden cases and the full size: docs/verified.md.
PARITY_LIMITS: dict[str, Limits] = {
    "float32": Limits(max_abs=1e-4, cosine=0.99999),
    "float16": Limits(max_abs=5e-2, cosine=0.999),
    "bfloat16": Limits(max_abs=4e-1, cosine=0.99),
}


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
        noise_batches: One case of each batch size; sizes above `options.max_batch` are left out.
    """
    cases = []
    sizes = [size for size in noise_batches if size <= options.max_batch] or [1]
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


def compare(stage: str, source: str, expected: Array, found: NDArray[np.generic]) -> StageEvidence:
    """Measure the agreement of one stage on one input; differences and cosines in float64.

    Raises:
        ParityError: The shapes differ or `found` holds NaN or infinity.
    """
    if expected.shape != found.shape:
        raise ParityError(
            f"{stage} on {source}: the graph gives {found.shape}, the reference {expected.shape}"
        )
    left, right = expected.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(right).all():
        bad = np.count_nonzero(~np.isfinite(right))
        raise ParityError(
            f"{stage} on {source}: {bad} of {right.size} values are NaN or infinite (largest reference value "
            f"{np.abs(left).max():.3g}); a half-precision overflow calls for bf16 or fp32"
        )
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    cosine = np.divide((left * right).sum(axis=-1), norms, out=np.ones_like(norms), where=norms > 0)
    return StageEvidence(
        stage=stage,
        batch=expected.shape[0],
        source=source,
        max_abs=float(np.abs(left - right).max()),
        cosine=float(cosine.min()),
        reference_std=float(left.std()),
    )


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
) -> Evidence:
    """Run the probe on every case.

    Args:
        probe: Graph with the stage boundaries as further outputs (`boundaries.write_probe`).
        holders: Value name by boundary.
        cases: Inputs with the reference's outputs.
        precision: Of the graph; decides the limits.
        affine: Gain and offset `[C]` of `ln_vision` if they were folded away, to restore the image features.

    Raises:
        ExportError: ONNX Runtime cannot run the graph.
        ParityError: A stage is not finite or has another shape.
    """
    notes = []
    if precision == "bfloat16":
        emulate_bfloat16(probe)
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
    limits = PARITY_LIMITS[precision]
    return Evidence(
        stages=tuple(measured),
        limits=limits,
        passed=not _failures(measured, limits),
        reference="float32 PyTorch reference, CPU",
        notes=tuple(notes),
    )


def _failures(stages: Sequence[StageEvidence], limits: Limits) -> list[StageEvidence]:
    def fails(item: StageEvidence) -> bool:
        allowed = (limits.max_abs or np.inf) * max(1.0, item.reference_std)
        return item.max_abs > allowed or item.cosine < (limits.cosine or -1.0)

    return [item for item in stages if fails(item)]


def require_parity(evidence: Evidence) -> None:
    """Turn failed evidence into an error.

    Raises:
        ParityError: Lists every stage past the limits, the first one in the network first.
    """
    failures = _failures(evidence.stages, evidence.limits)
    if failures:
        lines = "; ".join(
            f"{item.stage} (batch {item.batch}, {item.source}): max abs {item.max_abs:.3g}, cosine {item.cosine:.6f}"
            for item in failures
        )
        raise ParityError(
            f"the graph does not compute what the reference computes (limits: max abs {evidence.limits.max_abs} "
            f"per unit of standard deviation, cosine {evidence.limits.cosine}): {lines}"
        )
