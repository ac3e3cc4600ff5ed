"""The quantize command's work: float graph + calibration -> quantized graph -> accuracy gate -> bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from pargo_calibration import QuantRecipe

from pargo_export._version import __version__
from pargo_export.bundle import (
    Bundle,
    BundleTransaction,
    Calibration,
    Evidence,
    Manifest,
    Quantization,
    Variant,
    recipe_sha256,
)
from pargo_export.errors import AccuracyError, CalibrationError, ConfigError, QuantizationError
from pargo_export.graph.comparison import find_failures
from pargo_export.quantize.base import find_base, find_reference, require_match
from pargo_export.quantize.budget import Budget, BudgetStep, fit_budget
from pargo_export.quantize.build import BuiltGraph, GraphBuilder
from pargo_export.quantize.linears import find_linears
from pargo_export.quantize.measure import Reference, load_evaluation, measure
from pargo_export.quantize.options import QuantizeOptions
from pargo_export.quantize.overflow import watch_overflow
from pargo_export.quantize.sensitivity import Sensitivity, block_sensitivity
from pargo_export.quantize.statistics import unpack

__all__ = ["QuantizeResult", "quantize"]

_STAGE = "quantize"
_TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy", "ml-dtypes")
Score = Callable[..., float]


@dataclass(frozen=True)
class QuantizeResult:
    """What `quantize` did.

    Attributes:
        bundle: The bundle, with the variant in it.
        variant: The variant that was asked for.
        reused: The bundle already held exactly this variant, so nothing was done.
        sensitivities: Accuracy with one block quantized at a time, the worst first, if a budget asked for it.
        steps: The path that the budget took.
    """

    bundle: Bundle
    variant: Variant
    reused: bool
    sensitivities: tuple[Sensitivity, ...] = ()
    steps: tuple[BudgetStep, ...] = ()


def quantize(
    bundle: Bundle | str | os.PathLike[str],
    options: QuantizeOptions | None = None,
    *,
    budget: Budget | str | None = None,
    score: Score | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    **overrides: Any,
) -> QuantizeResult:
    """Make a quantized variant of a bundle, if it is accurate on images that calibration did not see.

    Args:
        bundle: A bundle with a float32 variant and a calibration.
        options: What kind of variant.
        budget: Accuracy to keep, for example `"cosine=0.995"`: the most sensitive blocks stay in float until it holds.
        score: For the budget `score=...`: takes the visual tokens of every evaluation image, returns a number.
        force: Replace a variant of that name that was made otherwise, and redo one that is up to date.
        progress: Called with a short text at the start of each step.
        advance: Called with the blocks done and in all, during the search for a budget.
        **overrides: Fields of `QuantizeOptions`, for example `precision="int8"`.

    Raises:
        AccuracyError: The variant misses its limits or the budget; nothing was written.
        BundleError: There is no bundle, or no such variant.
        CalibrationError: The calibration is missing or for another graph.
        ConfigError: An option is unknown or two contradict each other.
        QuantizationError: The graph cannot be quantized as asked.
    """
    options = _with_overrides(options or QuantizeOptions(), overrides)
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    recipe = options.load_recipe()
    float_precision = options.resolved_float_precision
    base = find_base(
        bundle,
        options.base,
        target=options.target,
        float_precision=float_precision,
        convert=not options.quantizes,
    )
    calibration = _find_calibration(bundle, options.calibration, base)
    own_recipe = _hash(bundle, base, calibration, recipe, options, budget)
    existing = bundle.manifest.variants.get(options.variant_name)
    if existing is not None and not force:
        if existing.recipe_sha256 == own_recipe:
            return QuantizeResult(bundle, existing, reused=True)
        raise QuantizationError(
            f"the bundle already has a variant {existing.name!r}, made otherwise; choose another name (--name), or "
            "replace it (--force, force=True)"
        )
    reference_variant = find_reference(bundle, base)
    progress("running the float32 graph on the evaluation images")
    images = load_evaluation(bundle, calibration)
    reference = Reference.of(bundle, reference_variant, images, threads=options.threads)
    builder = GraphBuilder(
        base=bundle.check(base.graph),
        recipe=recipe,
        observation=unpack(bundle.check(calibration.statistics)) if _needs_ranges(recipe) else None,
        dialect=options.dialect,
        float_precision=float_precision,
        metadata=_graph_metadata(options, recipe, float_precision),
    )
    keep = _match_keep(builder.base, options.keep)

    with BundleTransaction(bundle.path) as transaction:
        previous = _require_unchanged(transaction.previous, bundle.manifest, base, calibration)
        graph = f"onnx/{options.variant_name}.onnx"
        path = transaction.stage(graph)
        sensitivities: tuple[Sensitivity, ...] = ()
        steps: tuple[BudgetStep, ...] = ()
        if budget is None:
            progress("quantizing" if recipe else "converting")
            built = builder.build(path, keep)
            progress("measuring accuracy")
            stages = measure(built, reference, threads=options.threads)
        else:
            progress("measuring the sensitivity of the blocks")
            sensitivities = block_sensitivity(
                builder, reference, path.parent, threads=options.threads, advance=advance
            )
            progress("searching for the budget")
            found = fit_budget(
                builder,
                reference,
                path,
                budget,
                sensitivities=sensitivities,
                score=score,
                threads=options.threads,
            )
            built, stages, steps = found.built, found.evidence, found.steps
        limits = options.resolved_limits
        evidence = Evidence(
            stages=stages,
            limits=limits,
            passed=not find_failures(stages, limits),
            reference=f"variant {reference_variant.name} (float32), {len(images)} images that calibration did not see",
            notes=_notes(calibration, built, options),
        )
        if not evidence.passed and not options.allow_below:
            raise _below(evidence)
        if float_precision == "float16":
            progress("looking for overflow")
            _require_no_overflow(built, reference, options)
        progress("writing the bundle")
        names = [f"onnx/{item.name}" for item in built.files]
        parents = [base.graph, calibration.statistics]
        records = {name: transaction.record(name, stage=_STAGE, parents=parents) for name in names}
        variant = base.model_copy(
            update={
                "name": options.variant_name,
                "precision": options.precision,
                "graph": graph,
                "target": options.target,
                "opset": _opset(path),
                "evidence": evidence,
                "recipe_sha256": own_recipe,
                "quantization": Quantization(
                    base=base.name,
                    float_precision=float_precision,
                    recipe=recipe.name if recipe else "",
                    dialect=options.dialect,
                    calibration=calibration.name,
                    quantized=built.quantized,
                    kept=built.kept,
                    smoothed=built.smoothed,
                ),
            }
        )
        stale = [name for name in previous.files_of(graph) if name not in records]
        tools = {name: metadata.version(name) for name in _TOOLS}
        transaction.commit(previous.merged(variants=[variant], files=records, tools=tools, without=stale))
    return QuantizeResult(Bundle.open(bundle.path), variant, False, sensitivities, steps)


def _with_overrides(options: QuantizeOptions, overrides: dict[str, Any]) -> QuantizeOptions:
    known = [field.name for field in dataclasses.fields(QuantizeOptions)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ConfigError(f"unknown quantization option {', '.join(unknown)}; known: {', '.join(known)}")
    return dataclasses.replace(options, **overrides)


def _find_calibration(bundle: Bundle, name: str, base: Variant) -> Calibration:
    found = bundle.manifest.calibrations.get(name)
    if found is None:
        known = ", ".join(sorted(bundle.manifest.calibrations)) or "none"
        raise CalibrationError(
            f"the bundle has no calibration {name!r} (it has: {known}); make one first: "
            "pargo-export calibrate BUNDLE --data PHOTOS"
        )
    require_match(found, base, bundle)
    return found


def _needs_ranges(recipe: QuantRecipe | None) -> bool:
    return recipe is not None and recipe.precision != "int8_weight_only"


def _hash(
    bundle: Bundle,
    base: Variant,
    calibration: Calibration,
    recipe: QuantRecipe | None,
    options: QuantizeOptions,
    budget: Budget | None,
) -> str:
    """Hash everything that decides the bytes of the graph."""
    files = bundle.manifest.files
    return recipe_sha256(
        {
            "base": [files[name].sha256 for name in bundle.manifest.files_of(base.graph)],
            "statistics": files[calibration.statistics].sha256,
            "evaluation": files[calibration.evaluation].sha256 if budget else "",
            "recipe": recipe.to_json() if recipe else "",
            "precision": options.precision,
            "float_precision": options.resolved_float_precision,
            "target": options.target,
            "keep": list(options.keep),
            "budget": dataclasses.asdict(budget) if budget else {},
            "tools": {name: metadata.version(name) for name in _TOOLS} | {"pargo-export": __version__},
        }
    )


def _match_keep(graph: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Return the linears that match, with the reason.

    Raises:
        QuantizationError: A pattern matches nothing.
    """
    paths = [linear.path for linear in find_linears(ir.load(graph))]
    unknown = [pattern for pattern in patterns if not any(fnmatchcase(path, pattern) for path in paths)]
    if unknown:
        raise QuantizationError(
            f"keep names {', '.join(unknown)}, which the graph does not have; it has {', '.join(paths[:6])}, ..."
        )
    return {
        path: f"kept by {pattern!r}" for pattern in patterns for path in paths if fnmatchcase(path, pattern)
    }


def _graph_metadata(
    options: QuantizeOptions, recipe: QuantRecipe | None, float_precision: str
) -> dict[str, str]:
    values = {
        "pargo.precision": options.precision,
        "pargo.target": options.target,
        "pargo.float_precision": float_precision,
    }
    if recipe is not None:
        values |= {"pargo.dialect": options.dialect, "pargo.recipe": recipe.to_json()}
    return values


def _require_unchanged(
    previous: Manifest | None, manifest: Manifest, base: Variant, calibration: Calibration
) -> Manifest:
    names = (*manifest.files_of(base.graph), *calibration.files)
    if previous is None or any(previous.files.get(name) != manifest.files[name] for name in names):
        raise QuantizationError("the bundle was changed meanwhile; quantize again")
    return previous


def _notes(calibration: Calibration, built: BuiltGraph, options: QuantizeOptions) -> tuple[str, ...]:
    notes = []
    if calibration.source == "random":
        notes.append("calibrated and measured on random pixels: no evidence of accuracy")
    if built.float_precision == "bfloat16":
        notes.append("bfloat16 was emulated: float32 operators, every bfloat16 value rounded")
    if options.precision == "fp8":
        notes.append("FP8 was emulated: values rounded to E4M3, products computed in the float precision")
    return tuple(notes)


def _below(evidence: Evidence) -> AccuracyError:
    failures = find_failures(evidence.stages, evidence.limits)
    worst = min(failures, key=lambda item: item.mean_cosine or 0.0)
    limits = ", ".join(f"{name} {value}" for name, value in evidence.limits.model_dump().items() if value is not None)
    return AccuracyError(
        f"{len(failures)} of {len(evidence.stages)} measurements miss the limits ({limits}); the worst: {worst.stage} on "
        f"{worst.source}: mean cosine {worst.mean_cosine:.5f}, SQNR {worst.sqnr_db:.1f} dB, worst token {worst.cosine:.5f}; "
        "keep sensitive blocks in float (--budget cosine=0.995), calibrate on more images, choose another recipe, or "
        "write it nevertheless (--allow-below)"
    )


def _require_no_overflow(built: BuiltGraph, reference: Reference, options: QuantizeOptions) -> None:
    images = [
        (reference.images.names[index], reference.images.feed(index, takes_uint8=reference.takes_uint8))
        for index in range(min(2, len(reference.images)))
    ]
    report = watch_overflow(built.path, "float16", images)
    if report.findings and not options.allow_below:
        raise QuantizationError(report.message)


def _opset(path: Path) -> int:
    model = onnx.load(path, load_external_data=False)
    return next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
