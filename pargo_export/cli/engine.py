"""How a plan, an engine and a deployment look on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from pargo_export.cli import layout
from pargo_export.cli.engine_rows import engine_rows
from pargo_export.deploy import DeployResult, Plan, Step

__all__ = ["plan_values", "render_commands", "render_plan", "render_result", "result_values"]

_STATUS = {
    "verified": "built and verified on this device",
    "built": "built, not run here",
    "prepared": "prepared, to be built on the device",
}


def plan_values(plan: Plan) -> dict[str, Any]:
    """Return a plan for JSON."""
    return {
        "bundle": str(plan.bundle),
        "target": str(plan.target),
        "flavor": plan.flavor,
        "precision": plan.precision,
        "variant": plan.variant,
        "baseline": plan.baseline,
        "elsewhere": plan.elsewhere,
        "steps": [_step_values(step) for step in plan.steps],
        "reuses": list(plan.reuses),
        "notes": list(plan.notes),
    }


def result_values(result: DeployResult) -> dict[str, Any]:
    """Return a result for JSON: engines as the manifest has them."""
    return {
        **plan_values(result.plan),
        "status": result.status,
        "engine": result.engine and result.engine.model_dump(mode="json"),
        "baseline": result.baseline and result.baseline.model_dump(mode="json"),
        "dropped": result.dropped,
        "command": result.command,
        "steps": [
            _step_values(done.step) | {"result": done.detail, "reused": done.reused} for done in result.steps
        ],
        "notes": list(result.notes),
    }


def render_commands(lines: Sequence[str]) -> Iterator[RenderableType]:
    """Yield command lines, each to be copied as it is."""
    for line in lines:
        yield layout.verbatim(line)


def render_plan(plan: Plan) -> Iterator[RenderableType]:
    """Yield what a plan would do."""
    yield f"{plan.bundle}: engine of {plan.variant} for {plan.target}"
    yield layout.facts(
        [
            *(("reuse", text) for text in plan.reuses),
            *((step.action, f"{step.name}: {step.describe()}") for step in plan.steps),
            ("elsewhere", plan.elsewhere),
            *(("note", note) for note in plan.notes),
        ]
    )


def render_result(result: DeployResult) -> Iterator[RenderableType]:
    """Yield what was done, the engine, and what to do next."""
    plan, engine = result.plan, result.engine
    name = engine.name if engine else plan.variant
    yield Text.assemble(layout.mark(True), f" {name} {_STATUS[result.status]}: {plan.bundle}")
    yield layout.facts(
        [
            *(("reused", text) for text in plan.reuses),
            *(
                (done.step.action, f"{done.step.name}: {done.detail}{', is up to date' * done.reused}")
                for done in result.steps
            ),
            ("dropped", result.dropped and f"{result.dropped}, the slower one"),
        ]
    )
    if engine is not None:
        yield layout.heading(f"Engine {engine.name}")
        yield layout.facts(engine_rows(engine))
    if result.notes or plan.elsewhere:
        yield layout.heading("Notes")
        yield layout.facts([("note", note) for note in (plan.elsewhere, *result.notes)])
    if result.command:
        yield layout.heading("Copy the bundle to the device and run there, beside it:")
        yield layout.verbatim(f"  {result.command}")


def _step_values(step: Step) -> dict[str, Any]:
    values = {
        name: value if isinstance(value, int | str | None) else str(value)
        for name, value in asdict(step).items()
    }
    return {"action": step.action, **values, "description": step.describe()}
