"""From a bundle to a result: plan, measure, summarize."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pargo_export.bench.environment import describe_environment
from pargo_export.bench.inputs import Pictures, load_pictures
from pargo_export.bench.load_sweep import load_warnings
from pargo_export.bench.measuring import Findings, measure
from pargo_export.bench.monitor import Monitor, target_of
from pargo_export.bench.options import BenchOptions
from pargo_export.bench.records import BenchResult, BundleFacts, Environment, Settings, Subject
from pargo_export.bench.subjects import Plan, choose_batches, plan_reference, plan_subjects
from pargo_export.bench.summaries import compare_subjects, describe_measurements, find_doubts
from pargo_export.bench.sustained import describe_sustained
from pargo_export.bundle import Bundle, sha256_file
from pargo_export.bundle.paths import MANIFEST_NAME
from pargo_export.config import ModelConfig, VisionConfig
from pargo_export.optional import require
from pargo_export.overrides import with_overrides

__all__ = ["benchmark", "describe_bundle"]


def benchmark(
    bundle: Bundle | str | os.PathLike[str],
    options: BenchOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
    command: str = "",
    **overrides: Any,
) -> BenchResult:
    """Measure graphs of a bundle beside each other and beside baselines.

    Each runs in a process of its own. Its output is held against the float32 variant first; what misses the limits is
    not timed, and says so in `failure`. Then all are timed in turns, round by round.

    Args:
        bundle: The bundle, or its directory.
        options: What to measure, and how.
        progress: Called with a short text at the start of each step.
        command: The command line, for the record.
        **overrides: Options, one by one.

    Returns:
        Everything that was found; `write_result` keeps it.

    Raises:
        BackendError: Nothing of what was asked for can run here, or the reference cannot.
        BundleError: There is no bundle, or no such variant or engine.
        ConfigError: A choice is out of range or unknown.
        ImageError: A picture cannot be read.
        MissingDependencyError: SciPy is not installed.
    """
    options = with_overrides(options or BenchOptions(), overrides, kind="bench")
    require(
        "scipy.stats", extra="bench", purpose="compute confidence intervals"
    )  # before the work, not after it
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    plan = plan_subjects(bundle, options)
    batches = choose_batches(bundle, plan.subjects, options)
    pictures = load_pictures(options.inputs)
    first = plan.subjects[0].facts.variant
    reference = plan_reference(bundle, first or bundle.variant().name, options)
    progress("looking at the machine")
    environment = describe_environment()
    with tempfile.TemporaryDirectory(prefix="pargo-bench-") as folder, Monitor(environment) as monitor:
        findings = measure(
            plan.subjects,
            reference,
            batches,
            pictures,
            options,
            folder=Path(folder),
            monitor=monitor,
            progress=progress,
        )
        progress("summarizing")
        monitor.settle()
        return _summarize(bundle, plan, batches, pictures, options, environment, monitor, findings, command)


def _summarize(
    bundle: Bundle,
    plan: Plan,
    batches: tuple[int, ...],
    pictures: Pictures,
    options: BenchOptions,
    environment: Environment,
    monitor: Monitor,
    findings: Findings,
    command: str,
) -> BenchResult:
    subjects = tuple(_name_device(subject, environment) for subject in findings.subjects)
    measurements, unavailable = describe_measurements(
        findings.times.series, subjects, monitor, seed=options.seed
    )
    if measurements and not findings.has_stages:
        unavailable["device stages"] = (
            "host_to_device, compute and device_to_host come from backends that run on a GPU by themselves; none of them was measured"
        )
    if not environment.gpus:
        unavailable["memory of the GPU"] = "there is no GPU"
    by_name = {subject.name: subject for subject in subjects}
    sustained = []
    for name, (batch, log) in findings.sustained.items():
        target = target_of(by_name[name])
        states, power = monitor.states(target), monitor.power(target)
        sustained.append(describe_sustained(log, subject=name, batch=batch, states=states, power=power))
    num_rounds = options.effective_rounds
    return BenchResult(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=Settings(
            batches=batches,
            concurrencies=options.concurrencies,
            num_rounds=num_rounds,
            iterations=options.iterations,
            duration_s=options.effective_duration_s,
            num_warmup=options.num_warmup,
            threads=options.threads,
            seed=options.seed,
            command=command,
        ),
        environment=environment,
        bundle=describe_bundle(bundle),
        inputs=pictures.facts,
        subjects=subjects,
        measurements=measurements,
        comparisons=compare_subjects(measurements, subjects),
        loads=tuple(findings.loads),
        sustained=tuple(sustained),
        unavailable=unavailable,
        other_load=findings.other_load,
        warnings=(
            *(f"left out: {text}" for text in plan.left_out),
            *findings.warnings,
            *find_doubts(measurements, num_rounds),
            *(text for load in findings.loads for text in load_warnings(load)),
        ),
    )


def _name_device(subject: Subject, environment: Environment) -> Subject:
    """Put the name of the GPU in the place of what kind of device it is."""
    if target_of(subject) == "gpu" and environment.gpus:
        return subject.model_copy(update={"device": environment.gpus[0].name})
    return subject


def describe_bundle(bundle: Bundle) -> BundleFacts:
    """Describe a bundle for the record."""
    manifest = bundle.manifest
    return BundleFacts(
        path=str(bundle.path),
        manifest_sha256=sha256_file(bundle.path / MANIFEST_NAME),
        model=_describe_model(manifest.model),
        num_parameters=manifest.source.num_parameters,
        image_size=manifest.model.input_size,
        num_visual_tokens=manifest.model.num_visual_tokens,
    )


def _describe_model(model: ModelConfig) -> str:
    vision, projector = model.vision, model.projector
    name = "EVA-02" if isinstance(vision, VisionConfig) else {"clip": "CLIP", "siglip": "SigLIP"}[vision.kind]
    return f"{name} tower {vision.num_layers} x {vision.width}, {projector.kind} projector, {model.num_tiles} tile(s)"
