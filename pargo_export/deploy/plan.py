"""Which steps lead from what stands there to the engine that was asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pargo_export.bundle import Bundle, Flavor, Manifest, Variant
from pargo_export.deploy.facts import MachineFacts
from pargo_export.deploy.graph_plan import GraphPlan, plan_graphs
from pargo_export.deploy.options import QUANTIZED, DeployOptions, word_of
from pargo_export.deploy.steps import BuildStep, CompareStep, PrepareStep, Step, VerifyStep
from pargo_export.deploy.target import CAPABILITIES, Target, find_mismatch, resolve_flavor, resolve_target
from pargo_export.engine.number_formats import find_format_refusal
from pargo_export.errors import BundleError, ConfigError, EngineError, MissingDependencyError
from pargo_export.trt.module import TITLES

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """What has to be done, in order.

    Attributes:
        source: The checkpoint or the bundle.
        bundle: The bundle that is made or extended.
        from_checkpoint: Whether the source is a checkpoint.
        target: What the engine is for.
        flavor: Which TensorRT builds it.
        precision: Precision of the engine.
        variant: The variant that it is built from.
        baseline: The FP16 variant that it is compared with; `None` if it is not.
        elsewhere: Why it cannot be built on this machine; empty if it can.
        steps: What has to be done.
        reuses: What is there already.
        notes: Remarks for the reader.
    """

    source: Path
    bundle: Path
    from_checkpoint: bool
    target: Target
    flavor: Flavor
    precision: str
    variant: str
    baseline: str | None
    elsewhere: str
    steps: tuple[Step, ...]
    reuses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def make_plan(
    source: str | os.PathLike[str],
    options: DeployOptions,
    *,
    output: str | os.PathLike[str] | None = None,
    facts: MachineFacts,
) -> Plan:
    """Decide on the steps; nothing is written, and of a checkpoint nothing is read.

    Args:
        source: A checkpoint or a bundle.
        options: What is wanted.
        output: The bundle to make or extend, for a checkpoint.
        facts: This machine.

    Raises:
        BundleError: There is nothing at `source`, or the bundle cannot be read or has no such variant.
        CalibrationError: Activations have to be quantized, and there is neither a calibration nor data for one.
        ConfigError: Two choices contradict each other.
        EngineError: This machine can build nothing and no other was named, or a GPU lacks the number format.
        MissingDependencyError: A step needs a package that is not here.
        QuantizationError: The target cannot compute the precision, or no variant can be quantized.
    """
    source = Path(source)
    target = resolve_target(
        options.target, flavor=options.flavor, device=facts.device, find_obstacle=facts.find_obstacle
    )
    flavor = resolve_flavor(target, options.flavor, find_obstacle=facts.find_obstacle)
    bundle, manifest = _open(source, output, options)
    elsewhere = find_mismatch(target, flavor, facts.device) or ""
    if not elsewhere and (obstacle := facts.find_obstacle(flavor)):
        raise MissingDependencyError(obstacle)
    _require_number_formats(options, target, flavor, facts)
    runs_here = not elsewhere and _runs_here(target, flavor, facts)
    graphs = plan_graphs(
        bundle,
        manifest,
        options,
        target,
        facts,
        from_checkpoint=not Bundle.exists(source),
        compares=runs_here or bool(elsewhere) or options.keep == "fastest",
    )
    if options.keep == "fastest" and graphs.precision not in QUANTIZED:
        raise ConfigError(
            f"keep 'fastest' chooses between a quantized engine and the FP16 one; {word_of(graphs.precision)} was asked "
            "for: leave it away, or choose int8, int8-weight-only or fp8"
        )
    steps, notes = _engine_steps(graphs, options, target, flavor, elsewhere=elsewhere, runs_here=runs_here)
    return Plan(
        source=source,
        bundle=bundle,
        from_checkpoint=not Bundle.exists(source),
        target=target,
        flavor=flavor,
        precision=graphs.precision,
        variant=graphs.variant,
        baseline=graphs.baseline,
        elsewhere=elsewhere,
        steps=(*graphs.steps, *steps),
        reuses=graphs.reuses,
        notes=(*graphs.notes, *notes),
    )


def _open(
    source: Path, output: str | os.PathLike[str] | None, options: DeployOptions
) -> tuple[Path, Manifest | None]:
    """Return where the bundle is or will be, and its manifest if it is there."""
    if Bundle.exists(source):
        if output is not None and Path(output).resolve() != source.resolve():
            raise ConfigError(
                f"{source} is a bundle, which is extended where it is; leave the output {output} away, or copy the bundle "
                "first"
            )
        return source, Bundle.open(source).manifest
    if not source.exists():
        raise BundleError(f"{source} does not exist; expected a bundle or a checkpoint")
    if output is None:
        raise ConfigError(
            f"{source} is no bundle, and a checkpoint needs a bundle to export to: name one (-o BUNDLE, output=...)"
        )
    if options.variant is not None:
        raise ConfigError(
            f"variant {options.variant!r} names a graph of a bundle, but {source} is a checkpoint; give the bundle"
        )
    bundle = Path(output)
    return bundle, Bundle.open(bundle).manifest if Bundle.exists(bundle) else None


def _require_number_formats(
    options: DeployOptions, target: Target, flavor: Flavor, facts: MachineFacts
) -> None:
    """See that the GPUs have the number format, before hours of work on a graph in it.

    Raises:
        EngineError: One does not.
    """
    capabilities = target.capabilities
    if flavor == "tensorrt":
        capabilities = tuple(filter(None, [facts.device.compute_capability]))
    if target.name in CAPABILITIES:
        capabilities = (CAPABILITIES[target.name],)
    # Only what the check reads: the variant need not exist yet, and a named one is checked by the build.
    name = f"{word_of(options.precision)}-{target.name}"
    fields: dict[str, Any] = {"name": name, "precision": options.precision, "quantization": None}
    planned = Variant.model_construct(**fields)
    refusal = None if options.variant else find_format_refusal(planned, capabilities)
    if refusal is not None:
        raise EngineError(refusal)


def _runs_here(target: Target, flavor: Flavor, facts: MachineFacts) -> bool:
    """Whether the GPU of this machine is one that the engine is for."""
    capability = facts.device.compute_capability
    if not capability:
        return False
    return flavor == "tensorrt" or not target.capabilities or capability in target.capabilities


def _engine_steps(
    graphs: GraphPlan,
    options: DeployOptions,
    target: Target,
    flavor: Flavor,
    *,
    elsewhere: str,
    runs_here: bool,
) -> tuple[Sequence[Step], Sequence[str]]:
    variant, baseline = graphs.variant, graphs.baseline
    title = TITLES[flavor]
    if elsewhere:
        return [PrepareStep(variant, target.name, baseline)], []
    steps: list[Step] = [BuildStep(variant, title)]
    if not runs_here:
        notes = ["the engine is built and not run: no GPU that it is for is in this machine"]
        if baseline is not None and options.keep == "fastest":
            steps.append(BuildStep(baseline, title))
            notes.append(
                "both engines are kept: the same command on the device takes them as they are, times them, and keeps the "
                "faster"
            )
        return steps, notes
    steps.append(VerifyStep(variant))
    if baseline is not None:
        steps += [
            BuildStep(baseline, title),
            VerifyStep(baseline),
            CompareStep(variant, baseline, drops_slower=options.keep == "fastest"),
        ]
    return steps, []
