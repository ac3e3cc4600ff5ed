"""The trt command's work: do the steps of a plan, and say what was done."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pargo_export.bundle import Bundle, Engine, EngineTiming
from pargo_export.deploy.device_check import (
    check_agreement,
    describe_failure,
    find_run_obstacle,
    time_engines,
)
from pargo_export.deploy.device_command import device_command
from pargo_export.deploy.engine_options import resolve_engine_options
from pargo_export.deploy.facts import MachineFacts, find_facts
from pargo_export.deploy.make_graphs import GraphMaker
from pargo_export.deploy.options import DeployOptions
from pargo_export.deploy.plan import Plan, make_plan
from pargo_export.deploy.prepare import probe_variant
from pargo_export.deploy.records import drop_engine
from pargo_export.deploy.steps import (
    BuildStep,
    CalibrateStep,
    CompareStep,
    ExportStep,
    PrepareStep,
    QuantizeStep,
    Step,
    VerifyStep,
)
from pargo_export.engine.build import build_engine
from pargo_export.errors import EngineError
from pargo_export.overrides import with_overrides
from pargo_export.trt.sidecar import store_record

__all__ = ["DeployResult", "DoneStep", "deploy_engine"]

Status = Literal["prepared", "built", "verified"]


@dataclass(frozen=True)
class DoneStep:
    """What became of a step.

    Attributes:
        step: The step.
        detail: What was found or made.
        reused: Everything was up to date, so nothing was done.
    """

    step: Step
    detail: str
    reused: bool = False


@dataclass(frozen=True)
class DeployResult:
    """What `deploy_engine` did.

    Attributes:
        plan: What was to be done.
        bundle: The bundle as it is now.
        status: `prepared`: to be built on another device, by `command`; `built`: built, not run here; `verified`: built,
            run, and held against the float32 variant.
        engine: The engine that is to be used; `None` if prepared.
        baseline: The FP16 engine that it was compared with, if it is still there.
        dropped: Name of the engine that was slower and is gone; empty if both were kept.
        command: What to run on the device, if prepared.
        steps: What was done.
        notes: Remarks for the reader.
    """

    plan: Plan
    bundle: Bundle
    status: Status
    engine: Engine | None = None
    baseline: Engine | None = None
    dropped: str = ""
    command: str = ""
    steps: tuple[DoneStep, ...] = ()
    notes: tuple[str, ...] = ()


def deploy_engine(
    source: str | os.PathLike[str],
    options: DeployOptions | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    facts: MachineFacts | None = None,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    cancel: threading.Event | None = None,
    **overrides: Any,
) -> DeployResult:
    """Make an engine from a checkpoint or a bundle: export, calibrate, quantize, build, verify, compare, as needed.

    What is up to date is taken as it is. For a device that this machine is not, the bundle is prepared and the result has
    the command to run there.

    Args:
        source: A checkpoint or a bundle.
        options: What is wanted.
        output: The bundle to make or extend, for a checkpoint.
        force: Do again what is up to date, and replace an engine or variant of the same name.
        facts: This machine; found out by default.
        progress: Called with a short text at the start of each step.
        advance: Called with what is done and what there is in all, during calibration and the build.
        cancel: Set it from another thread to stop a build; Ctrl-C in the main thread stops it too.
        **overrides: Fields of `DeployOptions`, for example `precision="int8"`.

    Raises:
        EngineError: The engine cannot be built, was not built as asked, was cancelled, or misses its accuracy limits on
            the device; it is not in the bundle then.
        KeyboardInterrupt: Ctrl-C was pressed; the bundle is whole.
        PargoExportError: As `make_plan`, and as every step (`export_onnx`, `calibrate`, `quantize`, `build_engine`).
    """
    options = with_overrides(options or DeployOptions(), overrides, kind="deployment")
    facts = facts or find_facts()
    plan = make_plan(source, options, output=output, facts=facts)
    work = _Deployment(plan, options, force, progress, advance, cancel or threading.Event())
    for step in plan.steps:
        work.do(step)
    return work.result()


class _Deployment:
    """The state between the steps of one plan."""

    def __init__(
        self,
        plan: Plan,
        options: DeployOptions,
        force: bool,
        progress: Callable[[str], None],
        advance: Callable[[int, int], None],
        cancel: threading.Event,
    ) -> None:
        self.plan, self.options, self.force = plan, options, force
        self.progress, self.advance, self.cancel = progress, advance, cancel
        self.graphs = GraphMaker(plan, options, force=force, progress=progress, advance=advance)
        self.engines: dict[str, Engine] = {}  # by variant
        self.done: list[DoneStep] = []
        self.notes: list[str] = list(plan.notes)
        self.obstacle = ""  # why what was built cannot be run here
        self.dropped = ""
        self.verified = False

    @property
    def bundle(self) -> Bundle:
        """The bundle as it is on disk."""
        return Bundle.open(self.plan.bundle)

    def do(self, step: Step) -> None:
        """Do one step and note what became of it."""
        if self.cancel.is_set():
            raise EngineError("cancelled; what was finished before is in the bundle, run again to continue")
        if isinstance(step, ExportStep | CalibrateStep | QuantizeStep):
            detail, reused = self.graphs.make(step)
        elif isinstance(step, BuildStep):
            detail, reused = self._build(step)
        elif isinstance(step, VerifyStep):
            detail, reused = self._verify(step)
        elif isinstance(step, CompareStep):
            detail, reused = self._compare(step), False
        else:
            detail, reused = self._prepare(step), False
        if detail:
            self.done.append(DoneStep(step, detail, reused))

    def _build(self, step: BuildStep) -> tuple[str, bool]:
        if self.obstacle and self.options.keep != "fastest":
            return "", False  # the FP16 engine is for a comparison that cannot be made
        self.graphs.require_same_model()
        self.progress(f"building an engine from {step.name}")
        options = resolve_engine_options(self.options, self.plan, self.bundle.variant(step.name))
        result = build_engine(
            self.plan.bundle,
            step.name,
            options,
            force=self.force,
            progress=self.progress,
            advance=self.advance,
            cancel=self.cancel,
        )
        self.engines[step.name] = result.engine
        return result.engine.name, result.reused

    def _verify(self, step: VerifyStep) -> tuple[str, bool]:
        engine = self.engines.get(step.name)
        if engine is None:
            return "", False
        obstacle = find_run_obstacle(self.bundle, engine)
        if obstacle:
            self.obstacle = obstacle
            self.notes.append(f"{engine.name} was built and not run here: {obstacle}")
            return "", False
        if engine.evidence is not None and engine.evidence.passed and not self.force:
            self.verified = True
            return engine.name, True
        self.progress(f"running {engine.name} against float32")
        try:
            self.engines[step.name] = self._hold_against_limits(engine)
        except EngineError as error:
            if step.name == self.plan.variant:
                raise
            del self.engines[step.name]  # the engine that was asked for is none the worse
            self.notes.append(f"no comparison with {step.name}: {error}")
            return "", False
        self.verified = True
        return engine.name, False

    def _hold_against_limits(self, engine: Engine) -> Engine:
        """Run an engine; return its record with the evidence, which is in the bundle.

        Raises:
            EngineError: It misses the limits, and that was not allowed; it is out of the bundle.
        """
        try:
            evidence = check_agreement(self.bundle, engine)
        except EngineError as error:
            drop_engine(self.plan.bundle, engine.name)
            raise EngineError(f"{error}; it was removed from the bundle") from error
        if not evidence.passed and not self.options.allow_below:
            drop_engine(self.plan.bundle, engine.name)
            raise EngineError(
                f"{describe_failure(engine, evidence)}; it was removed from the bundle. Choose another precision, keep "
                "sensitive blocks in float (pargo-export quantize --budget), or keep it nevertheless (--allow-below)"
            )
        engine = engine.model_copy(update={"evidence": evidence})
        store_record(self.plan.bundle, engine)
        return engine

    def _compare(self, step: CompareStep) -> str:
        engine, baseline = self.engines.get(step.name), self.engines.get(step.baseline)
        if engine is None or baseline is None or self.obstacle:
            return ""
        self.progress(f"timing {engine.name} and {baseline.name} in turns")
        timings = time_engines(self.bundle, (engine, baseline))
        for item, timing in zip((engine, baseline), timings, strict=True):
            self.engines[item.variant] = item.model_copy(update={"timing": timing})
            store_record(self.plan.bundle, self.engines[item.variant])
        return self._judge(step, engine, baseline, timings)

    def _judge(
        self, step: CompareStep, engine: Engine, baseline: Engine, timings: tuple[EngineTiming, ...]
    ) -> str:
        """Say which engine is faster, and drop the other one if that is wanted."""
        own, other = timings
        ratio = other.median_ms / own.median_ms
        found = f"{engine.name} {own.median_ms:.3g} ms, {baseline.name} {other.median_ms:.3g} ms at batch {own.batch}"
        if ratio < 1:
            self.notes.append(
                f"{engine.name} is slower than {baseline.name} ({ratio:.2f}x as fast): quantizing does not pay on this device"
            )
        if step.drops_slower:
            slower = engine if ratio < 1 else baseline
            drop_engine(self.plan.bundle, slower.name)
            del self.engines[slower.variant]
            self.dropped = slower.name
        return f"{found}: {ratio:.2f}x"

    def _prepare(self, step: PrepareStep) -> str:
        self.graphs.require_same_model()
        self.progress(f"looking whether {step.name} will be taken")
        found = probe_variant(self.bundle, step.name, step.target)
        self.notes += found.notes
        return found.detail

    def result(self) -> DeployResult:
        """Return what was done."""
        plan = self.plan
        engine, baseline = self.engines.get(plan.variant), self.engines.get(plan.baseline or "")
        command = device_command(plan, self.options) if plan.elsewhere else ""
        status: Status = "prepared" if plan.elsewhere else "verified" if self.verified else "built"
        return DeployResult(
            plan=plan,
            bundle=self.bundle,
            status=status,
            engine=engine or baseline,
            baseline=baseline if engine else None,
            dropped=self.dropped,
            command=command,
            steps=tuple(self.done),
            notes=tuple(self.notes),
        )
