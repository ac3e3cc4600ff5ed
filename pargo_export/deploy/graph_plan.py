"""Which graphs a deployment needs, and how those that are missing are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pargo_export.bundle import Bundle, Manifest, Variant
from pargo_export.deploy.facts import MachineFacts
from pargo_export.deploy.options import QUANTIZED, DeployOptions, word_of
from pargo_export.deploy.steps import CalibrateStep, ExportStep, QuantizeStep, Step
from pargo_export.deploy.target import Target
from pargo_export.deploy.variants import describe_fit, find_variant
from pargo_export.errors import (
    CalibrationError,
    MissingDependencyError,
    PargoExportError,
    QuantizationError,
)
from pargo_export.quantization.base import find_base, find_calibration_base
from pargo_export.quantization.options import QuantizeOptions

__all__ = ["GraphPlan", "plan_graphs"]

_BASELINE = "float16"


@dataclass(frozen=True)
class GraphPlan:
    """The graphs of a deployment.

    Attributes:
        variant: The variant to build from; it is there, or a step makes it.
        precision: Its precision.
        baseline: The FP16 variant to compare with; `None` if there is and will be none.
        steps: What makes what is missing.
        reuses: What is there.
        notes: Remarks for the reader.
    """

    variant: str
    precision: str
    baseline: str | None
    steps: tuple[Step, ...]
    reuses: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Planner:
    """Collects steps; names of variants are decided as it goes."""

    bundle: Path
    manifest: Manifest | None
    options: DeployOptions
    target: Target
    facts: MachineFacts
    from_checkpoint: bool
    steps: list[Step] = field(default_factory=list)
    reuses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, variant: Variant) -> str:
        """Use a variant that is there."""
        self.reuse(f"variant {variant.name}")
        return variant.name

    def reuse(self, text: str) -> None:
        """Note once that something is there."""
        if text not in self.reuses:
            self.reuses.append(text)

    def find(self, precision: str) -> Variant | None:
        """Return the variant of the bundle to take; one made for another target only where no checkpoint is at hand."""
        if self.manifest is None:
            return None
        allow_failed = self.options.allow_below
        found = find_variant(self.manifest, precision, self.target.name, allow_failed=allow_failed)
        if found is None or not self.from_checkpoint:
            return found
        fits = found.target == self.target.name and found.max_batch >= self.options.largest_batch
        return found if fits else None

    def export(self, precision: str, target: str) -> str:
        """Export a float graph; `fp32` for CPUs keeps the name that every stage knows."""
        name = word_of(precision) if target == "cpu" else f"{word_of(precision)}-{target}"
        step = ExportStep(name, precision, target, self.options.exported_batch)  # type: ignore[arg-type]
        if step not in self.steps:
            self.steps.append(step)
        return name

    def export_reference(self) -> None:
        """See that there will be a float32 graph to calibrate and to hold others against."""
        found = [
            item
            for item in (self.manifest.variants.values() if self.manifest else ())
            if (item.precision, item.component, item.input) == ("float32", "all", "float")
        ]
        if found:
            self.take(found[0])
        else:
            self.export("float32", "cpu")

    def calibrate(self) -> None:
        """See that there will be a calibration.

        Raises:
            CalibrationError: There is neither one nor data for one.
        """
        name, data = self.options.calibration, self.options.calibration_data
        if self.manifest is not None and name in self.manifest.calibrations:
            note = f"{data} was not read: the bundle has calibration {name}; another name observes again"
            if data is not None and note not in self.notes:
                self.notes.append(note)
            self.reuse(f"calibration {name}")
            return
        if any(isinstance(step, CalibrateStep) for step in self.steps):
            return
        if data is None:
            known = ", ".join(self.manifest.calibrations) if self.manifest else ""
            raise CalibrationError(
                f"the bundle has no calibration {name!r} (it has: {known or 'none'}), which {word_of(self.options.precision)} "
                "needs to set or to measure its ranges; give photographs of what the model will see (--calibration-data "
                f"PHOTOS), or calibrate first: pargo-export calibrate {self.bundle} --data PHOTOS"
            )
        self.steps.append(CalibrateStep(name, data))

    def quantize(self, precision: str) -> str:
        """Make a variant from a float one.

        Raises:
            CalibrationError: There is no calibration, no data for one, or nothing to observe.
            MissingDependencyError: A package is missing.
            QuantizationError: The target cannot compute the precision, or nothing can be quantized.
        """
        options = QuantizeOptions(precision=precision, target=self.target.name, base=self.options.base)
        missing = self.facts.find_missing("quantize")
        if missing:
            raise MissingDependencyError(
                f"the bundle has no variant in {word_of(precision)} for {self.target.name}, and making one needs "
                f"{', '.join(missing)}: pip install 'pargo-export[quantize]', or make it on another machine (pargo-export "
                f"quantize {self.bundle} --{word_of(precision)} --target {self.target.name}) and copy the bundle"
            )
        self.calibrate()
        if not self.from_checkpoint:
            bundle = Bundle.open(self.bundle)
            find_base(
                bundle,
                options.base,
                target=options.target,
                float_precision=options.resolved_float_precision,
                convert=not options.quantizes,
            )
            find_calibration_base(bundle, None)
        name = options.variant_name if options.quantizes else f"{word_of(precision)}-{self.target.name}"
        step = QuantizeStep(name, precision, self.target.name, options.base, self.options.calibration)
        self.steps.append(step)
        return name


def plan_graphs(
    bundle: Path,
    manifest: Manifest | None,
    options: DeployOptions,
    target: Target,
    facts: MachineFacts,
    *,
    from_checkpoint: bool,
    compares: bool,
) -> GraphPlan:
    """Decide on the graphs, and on the steps that make what is missing.

    Args:
        bundle: The bundle, which need not exist for a checkpoint.
        manifest: Its manifest, if it exists.
        options: What is wanted.
        target: What the engine is for.
        facts: This machine.
        from_checkpoint: Whether graphs can be exported.
        compares: Whether a quantized engine is to be compared with an FP16 one.

    Raises:
        As `make_plan`.
    """
    planner = _Planner(bundle, manifest, options, target, facts, from_checkpoint)
    if options.variant is not None:
        found = Bundle.open(bundle).variant(options.variant)
        _require_computable(found.precision, target)
        variant, precision = planner.take(found), str(found.precision)
        planner.notes += describe_fit(found, target.name)
    else:
        precision = options.precision
        _require_computable(precision, target)
        if from_checkpoint:
            _require_export(facts, bundle)
        variant = _plan_variant(planner, precision)
    baseline = None
    if compares and precision in QUANTIZED:
        baseline = _plan_baseline(planner, required=options.keep == "fastest")
    return GraphPlan(
        variant, precision, baseline, tuple(planner.steps), tuple(planner.reuses), tuple(planner.notes)
    )


def _plan_variant(planner: _Planner, precision: str) -> str:
    found = planner.find(precision)
    if planner.from_checkpoint:
        if precision != "float32":
            planner.export_reference()
        if found is not None:
            return planner.take(found)  # made for this target
        if precision not in QUANTIZED:
            return planner.export(precision, planner.target.name)
        if planner.options.base is None:
            base = planner.find(_BASELINE)
            _ = planner.take(base) if base else planner.export(_BASELINE, planner.target.name)
        return planner.quantize(precision)
    if found is not None:
        planner.notes += describe_fit(found, planner.target.name)
        return planner.take(found)
    if precision == "float32":
        raise QuantizationError(
            f"bundle {planner.bundle} has no variant of the whole model in float32; export one: pargo-export onnx CHECKPOINT "
            f"-o {planner.bundle} --target {planner.target.name} --name fp32-{planner.target.name}"
        )
    return planner.quantize(precision)


def _plan_baseline(planner: _Planner, *, required: bool) -> str | None:
    """Return the FP16 variant to compare with; where none can be made, `None` with a note unless it is required."""
    found = planner.find(_BASELINE)
    if found is not None:
        return planner.take(found)
    planned = next(
        (step.name for step in planner.steps if isinstance(step, ExportStep) and step.precision == _BASELINE),
        None,
    )
    if planned is not None:
        return planned
    if planner.from_checkpoint:
        return planner.export(_BASELINE, planner.target.name)
    before = len(planner.steps)
    try:
        return planner.quantize(_BASELINE)
    except PargoExportError as error:
        if required:
            raise
        del planner.steps[before:]
        planner.notes.append(f"no comparison with FP16: {error}")
        return None


def _require_computable(precision: str, target: Target) -> None:
    """Refuse what the target cannot compute, before any work.

    Raises:
        QuantizationError: It cannot.
    """
    if precision in QUANTIZED:
        QuantizeOptions(precision=precision, target=target.name)


def _require_export(facts: MachineFacts, bundle: Path) -> None:
    """See that a checkpoint can be exported here.

    Raises:
        MissingDependencyError: A package is missing.
    """
    missing = facts.find_missing("export")
    if missing:
        raise MissingDependencyError(
            f"exporting a checkpoint needs {', '.join(missing)}: pip install 'pargo-export[export]'; on a device without "
            f"PyTorch export on another machine (pargo-export trt CHECKPOINT -o {bundle} --target ...), copy the bundle, and "
            "give the bundle here"
        )
