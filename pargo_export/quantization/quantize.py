"""The quantize command's work: float graph + calibration -> quantized graph -> accuracy gate -> bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx

from pargo_export._version import __version__
from pargo_export.bundle import (
    Bundle,
    BundleTransaction,
    Evidence,
    Manifest,
    Quantization,
    Variant,
    recipe_sha256,
)
from pargo_export.errors import AccuracyError, ConfigError, QuantizationError
from pargo_export.overrides import with_overrides
from pargo_export.quantization.budget import Budget, BudgetResult, BudgetStep, fit_budget, require_measure
from pargo_export.quantization.build import BuiltGraph
from pargo_export.quantization.gate import hold_against_limits, measure_stages, watch_for_overflow
from pargo_export.quantization.measure import Reference
from pargo_export.quantization.options import QuantizeOptions
from pargo_export.quantization.scorer import Score
from pargo_export.quantization.sensitivity import Sensitivity, block_sensitivity
from pargo_export.quantization.task import Task, TaskBaseline, describe_task
from pargo_export.quantization.workbench import Workbench

__all__ = ["QuantizeResult", "quantize"]

_STAGE = "quantize"
_TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy", "ml-dtypes")
_WATCHED_IMAGES = 2


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
    task: Task | None = None,
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
        task: For the budget `mme-drop=...`: questions and who answers them, `evaluation.task_budget.MmeDrop`.
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
    options = with_overrides(options or QuantizeOptions(), overrides, kind="quantization")
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    if budget is not None:
        require_measure(budget, score, task)
    bench = Workbench.of(bundle, options)
    if task is not None:
        _require_fitting(task, budget, bench)
    own_recipe = _hash(bench, budget, task)
    existing = bundle.manifest.variants.get(options.variant_name)
    if existing is not None and not force:
        if existing.recipe_sha256 == own_recipe:
            _require_passed(existing, options)
            return QuantizeResult(bundle, existing, reused=True)
        raise QuantizationError(
            f"the bundle already has a variant {existing.name!r}, made otherwise; choose another name (--name), or "
            "replace it (--force, force=True)"
        )
    progress("running the float32 graph on the evaluation images")
    reference, builder, keep = bench.reference(), bench.builder(), bench.keep()

    with BundleTransaction(bundle.path) as transaction:
        previous = _require_unchanged(transaction.previous, bench)
        graph = f"onnx/{options.variant_name}.onnx"
        path = transaction.stage(graph)
        sensitivities: tuple[Sensitivity, ...] = ()
        found: BudgetResult | None = None
        if budget is None:
            progress("quantizing" if bench.recipe else "converting")
            built = builder.build(path, keep)
            progress("measuring accuracy")
            stages = measure_stages(built, reference, options)
        else:
            baseline = _score_baseline(task, bench, reference, progress) if task is not None else None
            progress("measuring the sensitivity of the blocks")
            sensitivities = block_sensitivity(
                builder, reference, keep=keep, threads=options.threads, advance=advance
            )
            progress("searching for the budget")
            found = fit_budget(
                builder,
                reference,
                path,
                budget,
                sensitivities=sensitivities,
                keep=keep,
                score=score,
                task=baseline,
                threads=options.threads,
                progress=progress,
                advance=advance,
            )
            built, stages = found.built, found.evidence
        evidence = _with_task(hold_against_limits(stages, bench, built), found)
        if built.float_precision == "float16":
            progress("looking for overflow")
            evidence = watch_for_overflow(built, reference, options, evidence)
        progress("writing the bundle")
        names = [f"onnx/{item.name}" for item in built.files]
        parents = [bench.base.graph, *([bench.calibration.statistics] if bench.needs_ranges else [])]
        records = {name: transaction.record(name, stage=_STAGE, parents=parents) for name in names}
        variant = bench.base.model_copy(
            update={
                "name": options.variant_name,
                "precision": options.precision,
                "graph": graph,
                "target": options.target,
                "opset": _opset(path),
                "evidence": evidence,
                "recipe_sha256": own_recipe,
                "quantization": _record(bench, built),
            }
        )
        stale = [name for name in previous.files_of(graph) if name not in records]
        tools = {name: metadata.version(name) for name in _TOOLS}
        transaction.commit(previous.merged(variants=[variant], files=records, tools=tools, without=stale))
    steps = found.steps if found is not None else ()
    return QuantizeResult(Bundle.open(bundle.path), variant, False, sensitivities, steps)


def _require_fitting(task: Task, budget: Budget | None, bench: Workbench) -> None:
    """See that a task has a budget, and a graph that it can ask.

    Raises:
        ConfigError: There is no budget.
        QuantizationError: The graph is a part of the model.
    """
    if budget is None:
        raise ConfigError(f"a task was given, but no budget; ask for {task.metric}=NUMBER, or leave it out")
    if bench.base.component != "all":
        raise QuantizationError(
            f"variant {bench.base.name!r} is the {bench.base.component} alone, but {task.metric} needs a graph from pictures "
            "to visual tokens; choose another base (--base), or set a budget on cosine or sqnr"
        )


def _with_task(evidence: Evidence, found: BudgetResult | None) -> Evidence:
    """Add the score on the task, if the budget was on one."""
    if found is None or found.task is None:
        return evidence
    notes = (*evidence.notes, describe_task(found.task))
    return evidence.model_copy(update={"task": found.task, "notes": notes})


def _score_baseline(
    task: Task, bench: Workbench, reference: Reference, progress: Callable[[str], None]
) -> TaskBaseline:
    """Score the float32 graph on a task."""
    progress("scoring the float32 graph on the task")
    graph = bench.bundle.check(bench.reference_variant.graph)
    return TaskBaseline.of(
        task,
        graph,
        reference.images.spec,
        takes_uint8=reference.takes_uint8,
        max_batch=min(bench.base.max_batch, bench.reference_variant.max_batch),
        threads=bench.options.threads,
    )


def _hash(bench: Workbench, budget: Budget | None, task: Task | None) -> str:
    """Hash everything that decides the bytes of the graph."""
    manifest, options, calibration = bench.bundle.manifest, bench.options, bench.calibration
    # Without a task the key is not there, so that the hashes of before stay the same.
    asked = {"task": task.fingerprint()} if task is not None else {}
    return recipe_sha256(
        asked
        | {
            "base": [manifest.files[name].sha256 for name in manifest.files_of(bench.base.graph)],
            "statistics": manifest.files[calibration.statistics].sha256,
            "evaluation": manifest.files[calibration.evaluation].sha256,
            "recipe": bench.recipe.to_json() if bench.recipe else "",
            "precision": options.precision,
            "float_precision": options.resolved_float_precision,
            "target": options.target,
            "keep": list(options.keep),
            "limits": options.resolved_limits.model_dump(),
            "budget": str(budget or ""),
            "tools": {name: metadata.version(name) for name in _TOOLS} | {"pargo-export": __version__},
        }
    )


def _require_unchanged(previous: Manifest | None, bench: Workbench) -> Manifest:
    manifest = bench.bundle.manifest
    names = (*manifest.files_of(bench.base.graph), *bench.calibration.files)
    if previous is None or any(previous.files.get(name) != manifest.files[name] for name in names):
        raise QuantizationError("the bundle was changed meanwhile; quantize again")
    return previous


def _require_passed(existing: Variant, options: QuantizeOptions) -> None:
    """See that a variant that was written below its limits is not taken for a good one.

    Raises:
        AccuracyError: It is below them, and that was not allowed again.
    """
    if existing.evidence is not None and not existing.evidence.passed and not options.allow_below:
        raise AccuracyError(
            f"the bundle already has variant {existing.name!r}, made this way, and it misses its limits; choose other "
            "options, or accept it (--allow-below)"
        )


def _record(bench: Workbench, built: BuiltGraph) -> Quantization:
    return Quantization(
        base=bench.base.name,
        float_precision=built.float_precision,
        recipe=bench.recipe.name if bench.recipe else "",
        dialect=bench.options.dialect,
        calibration=bench.calibration.name if bench.needs_ranges else None,
        quantized=built.quantized,
        kept=built.kept,
        smoothed=built.smoothed,
    )


def _opset(path: Path) -> int:
    model = onnx.load(path, load_external_data=False)
    return next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
