"""The accuracy gate: what a quantized graph must hold before it comes into a bundle."""

from __future__ import annotations

import onnxruntime

from pargo_export.bundle import Evidence, Limits, StageEvidence
from pargo_export.errors import AccuracyError, ParityError, QuantizationError
from pargo_export.graph.comparison import find_failures
from pargo_export.quantization.build import BuiltGraph
from pargo_export.quantization.integer_kernels import count_integer_kernels
from pargo_export.quantization.measure import Reference, measure
from pargo_export.quantization.options import QuantizeOptions
from pargo_export.quantization.overflow import OverflowReport, watch_overflow
from pargo_export.quantization.workbench import Workbench

__all__ = ["hold_against_limits", "measure_stages", "watch_for_overflow"]

_WATCHED_IMAGES = 2


def hold_against_limits(stages: tuple[StageEvidence, ...], bench: Workbench, built: BuiltGraph) -> Evidence:
    """Hold the measurements against the limits.

    Raises:
        AccuracyError: They are missed, and that was not allowed.
    """
    limits = bench.options.resolved_limits
    failures = find_failures(stages, limits)
    if failures and not bench.options.allow_below:
        raise _below(stages, failures, limits)
    notes = [*_kernel_notes(built, bench)]
    if bench.calibration.source == "random":
        notes.append("calibrated and measured on random pixels: no evidence of accuracy")
    if built.float_precision == "bfloat16":
        notes.append("bfloat16 was emulated: float32 operators, every bfloat16 value rounded")
    if bench.options.precision == "fp8":
        notes.append("FP8 was emulated: values rounded to E4M3, products computed in the float precision")
    return Evidence(
        stages=stages,
        limits=limits,
        passed=not failures,
        reference=f"variant {bench.reference_variant.name} (float32) on images that calibration did not see",
        notes=tuple(notes),
    )


def _below(stages: tuple[StageEvidence, ...], failures: list[StageEvidence], limits: Limits) -> AccuracyError:
    worst = min(failures, key=lambda item: item.mean_cosine or 0.0)
    texts = [f"{name} {value}" for name, value in limits.model_dump().items() if value is not None]
    return AccuracyError(
        f"{len(failures)} of {len(stages)} measurements miss the limits ({', '.join(texts)}); the worst: {worst.stage} "
        f"on {worst.source}: mean cosine {worst.mean_cosine:.5f}, SQNR {worst.sqnr_db:.1f} dB, worst token "
        f"{worst.cosine:.5f}; keep sensitive blocks in float (--budget cosine=0.995), calibrate on more images, choose "
        "another recipe, or write it nevertheless (--allow-below)"
    )


def measure_stages(
    built: BuiltGraph, reference: Reference, options: QuantizeOptions
) -> tuple[StageEvidence, ...]:
    """Measure all stages; if a value is not finite, say which tensor overflowed first.

    Raises:
        ParityError: A value is NaN or infinite.
        QuantizationError: It is, because of a value that float16 cannot hold.
    """
    try:
        return measure(built, reference, threads=options.threads)
    except ParityError as error:
        if built.float_precision != "float16":
            raise
        report = _find_overflow(built, reference)
        if not report.findings:
            raise
        raise QuantizationError(report.message) from error


def _find_overflow(built: BuiltGraph, reference: Reference) -> OverflowReport:
    images = [
        (reference.images.names[index], reference.images.feed(index, takes_uint8=reference.takes_uint8))
        for index in range(min(_WATCHED_IMAGES, len(reference.images)))
    ]
    return watch_overflow(built.path, "float16", images)


def watch_for_overflow(
    built: BuiltGraph, reference: Reference, options: QuantizeOptions, evidence: Evidence
) -> Evidence:
    """Look for values that float16 cannot hold; those that come near become notes.

    Raises:
        QuantizationError: A value overflows, and nothing below the limits was allowed.
    """
    report = _find_overflow(built, reference)
    if report.findings and not options.allow_below:
        raise QuantizationError(report.message)
    lines = tuple(line for line in report.message.splitlines() if line)
    return evidence.model_copy(
        update={"notes": (*evidence.notes, *lines), "passed": evidence.passed and not report.findings}
    )


def _kernel_notes(built: BuiltGraph, bench: Workbench) -> list[str]:
    """Say which kernels ONNX Runtime chose: a Q/DQ pair that fuses into none is right, but saves nothing."""
    if bench.recipe is None or bench.options.dialect != "cpu" or built.float_precision != "float32":
        return []
    found = count_integer_kernels(built.path)
    kernels = ", ".join(f"{name} {number}" for name, number in (found.integer | found.weight_only).items())
    left = f"; {found.leftover_qdq} DequantizeLinear fused into none" if found.leftover_qdq else ""
    note = (
        f"ONNX Runtime {onnxruntime.__version__} computes {found.num_quantized} products with 8-bit kernels "
        f"({kernels or 'none'}), for {len(built.quantized)} quantized modules{left}"
    )
    return [note]
