"""The lines of trtexec that build the same engines."""

from __future__ import annotations

import os

from pargo_export.bundle import Bundle
from pargo_export.deploy.engine_options import resolve_engine_options
from pargo_export.deploy.facts import MachineFacts, find_facts
from pargo_export.deploy.options import DeployOptions
from pargo_export.deploy.plan import make_plan
from pargo_export.deploy.steps import BuildStep, PrepareStep
from pargo_export.engine.trtexec import trtexec_command
from pargo_export.errors import BundleError
from pargo_export.trt import load_tensorrt

__all__ = ["show_trtexec"]


def show_trtexec(
    source: str | os.PathLike[str],
    options: DeployOptions,
    *,
    output: str | os.PathLike[str] | None = None,
    facts: MachineFacts | None = None,
) -> tuple[str, ...]:
    """Return the command line for each engine that would be built; nothing is built.

    Args:
        source: As for `deploy_engine`.
        options: As for `deploy_engine`.
        output: As for `deploy_engine`.
        facts: This machine; found out by default.

    Raises:
        BundleError: A graph is not there yet; trtexec takes one that is.
        PargoExportError: As `make_plan`.
    """
    facts = facts or find_facts()
    plan = make_plan(source, options, output=output, facts=facts)
    builds = [step for step in plan.steps if isinstance(step, BuildStep | PrepareStep)]
    missing = [step for step in plan.steps if step.action in {"export", "calibrate", "quantize"}]
    if missing:
        steps = "; ".join(f"{step.action} {step.name}: {step.describe()}" for step in missing)
        raise BundleError(
            f"trtexec needs graphs that bundle {plan.bundle} does not have yet ({steps}); make them by the same command "
            "without --show-trtexec"
        )
    bundle = Bundle.open(plan.bundle)
    variants = [bundle.variant(step.name) for step in builds]
    version = "" if facts.find_obstacle(plan.flavor) else load_tensorrt(plan.flavor).version
    return tuple(
        trtexec_command(
            resolve_engine_options(options, plan, variant),
            variant,
            bundle.path,
            flavor=plan.flavor,
            version=version,
        )
        for variant in variants
    )
