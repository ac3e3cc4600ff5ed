"""`pargo-export quantize`: make a quantized variant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pargo_export.cli import arguments
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export import QuantizeOptions, QuantizeResult
    from pargo_export.evaluation.task_budget import MmeDrop

__all__ = ["command"]


@click.command("quantize", cls=PargoCommand, short_help="Quantize a graph, if it stays accurate.")
@click.argument("bundle", type=arguments.FILE, required=False)
@arguments.precision_flags
@click.option(
    "--target",
    type=click.Choice(arguments.TARGETS),
    default="cpu",
    show_default=True,
    help="Device family; decides how activations are written: cpu unsigned, all others symmetric.",
)
@click.option("--recipe", metavar="NAME|FILE", help="Recipe; by default the one named like the precision.")
@click.option("--list-recipes", is_flag=True, help="List the built-in recipes and do nothing else.")
@click.option(
    "--calibration", metavar="NAME", default="default", show_default=True, help="Calibration in the bundle."
)
@click.option(
    "--base", metavar="VARIANT", help="Float graph to start from; by default what suits the target."
)
@click.option(
    "--float-precision",
    type=click.Choice(tuple(arguments.FLOAT_PRECISIONS)),
    help="Of what is not quantized; by default fp32 for cpu, else fp16.",
)
@click.option(
    "--keep",
    metavar="PATTERN",
    multiple=True,
    help="Keep linears in float, by module path, such as 'tower.blocks.0.*'; repeatable.",
)
@click.option(
    "--budget",
    metavar="METRIC=X",
    help="Keep the most sensitive blocks in float until cosine, worst_cosine, sqnr (dB) or score is at least X, or "
    "mme-drop at most X: percent of the float32 graph's total over the MME tasks in --data, as --llm answers them.",
)
@click.option(
    "--scorer", metavar="MODULE:FUNCTION", help="For a budget on score: maps visual tokens to a number."
)
@click.option("--data", type=arguments.FILE, help="For mme-drop: folder of MME, or of data in its layout.")
@click.option("--llm", type=arguments.FILE, help="For mme-drop: directory of the language model.")
@click.option("--adapters", type=arguments.FILE, help="For mme-drop: checkpoint with LoRA adapters.")
@click.option(
    "--template",
    metavar="NAME|FILE",
    help="For mme-drop: text around the image and the question. Default: mme.",
)
@click.option(
    "--beams",
    type=click.IntRange(min=1),
    help="For mme-drop: beams of the language model. Default: 1, greedy.",
)
@click.option(
    "--limit",
    "limits",
    metavar="METRIC=X",
    multiple=True,
    callback=arguments.parse_limits,
    help="Accuracy limit instead of the precision's: cosine, worst_cosine, sqnr (dB), max_abs; repeatable.",
)
@click.option("--allow-below", is_flag=True, help="Write the graph even if it misses its limits, marked so.")
@click.option(
    "--sensitivity",
    type=click.Choice(("block", "linear")),
    help="Only measure what each block or linear costs alone, and how the error grows; write nothing.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.999,
    show_default=True,
    help="For --sensitivity: name the first block whose mean cosine is below this.",
)
@click.option("--name", help="Name of the variant; by default made from precision and target.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; by default every core.")
@click.option("--force", is_flag=True, help="Replace a variant of that name, and redo what is up to date.")
@pass_reporter
def command(
    reporter: Reporter,
    /,
    bundle: Path | None,
    list_recipes: bool,
    budget: str | None,
    scorer: str | None,
    data: Path | None,
    llm: Path | None,
    adapters: Path | None,
    template: str | None,
    beams: int | None,
    sensitivity: Literal["block", "linear"] | None,
    threshold: float,
    force: bool,
    **options: Any,
) -> None:
    """Make a quantized variant of BUNDLE from a float graph and a calibration.

    Its accuracy is measured on images that calibration did not see; one that misses its limits is not written.
    Exactly one precision has to be chosen.
    """
    if list_recipes:
        _list_recipes(reporter)
        return
    if bundle is None:
        raise click.UsageError("Missing argument 'BUNDLE'.")
    chosen = _options(**options)
    if sensitivity is not None:
        _analyze(reporter, bundle, chosen, per=sensitivity, threshold=threshold)
        return
    if scorer is not None and budget is None:
        raise click.UsageError("--scorer needs --budget score=X")
    asked = {"data": data, "llm": llm, "adapters": adapters, "template": template, "beams": beams}
    from pargo_export import quantize
    from pargo_export.quantization.scorer import load_scorer

    with ExitStack() as resources:
        result = quantize(
            bundle,
            chosen,
            budget=budget,
            score=load_scorer(scorer) if scorer is not None else None,
            task=_open_task(reporter, resources, budget, chosen.threads, asked),
            force=force,
            progress=reporter.step,
            advance=reporter.advance,
        )
    values = {
        "bundle": str(bundle),
        "variant": result.variant.model_dump(mode="json"),
        "reused": result.reused,
        "size_bytes": _sizes(result),
        "sensitivities": [asdict(item) for item in result.sensitivities],
        "budget": [asdict(step) for step in result.steps],
    }
    reporter.result(values, lambda: _render(bundle, result, budget))


def _open_task(
    reporter: Reporter,
    resources: ExitStack,
    budget: str | None,
    threads: int | None,
    asked: dict[str, Any],
) -> MmeDrop | None:
    """Return the task of a budget on one; nothing for other budgets."""
    is_on_task = budget is not None and budget.partition("=")[0].strip() == "mme-drop"
    given = [f"--{name}" for name, value in asked.items() if value is not None]
    if not is_on_task:
        if given:
            raise click.UsageError(f"only for --budget mme-drop=X: {', '.join(given)}")
        return None
    missing = [f"--{name}" for name in ("data", "llm") if asked[name] is None]
    if missing:
        raise click.UsageError(
            f"--budget {budget} needs {' and '.join(missing)}: --data MME_DIR --llm LLM_DIR, the questions and the language "
            "model that answers them"
        )
    from pargo_export.evaluation.task_budget import open_mme_drop
    from pargo_export.llm import GenerationSettings, read_template

    reporter.step("reading the questions")
    return resources.enter_context(
        open_mme_drop(
            asked["data"],
            asked["llm"],
            adapters=asked["adapters"],
            template=read_template(asked["template"] or "mme"),
            settings=GenerationSettings(num_beams=asked["beams"] or 1),
            threads=threads,
            progress=reporter.step,
        )
    )


def _options(**options: Any) -> QuantizeOptions:
    """Translate what was typed into the words of the library."""
    precision = arguments.choose_precision({name: options.pop(name) for name in arguments.PRECISION_FLAGS})
    from pargo_export import QuantizeOptions
    from pargo_export.bundle import Limits

    options["float_precision"] = arguments.FLOAT_PRECISIONS.get(options["float_precision"])
    limits = options.pop("limits")
    return QuantizeOptions(precision=precision, limits=Limits(**limits) if limits else None, **options)


def _list_recipes(reporter: Reporter) -> None:
    from pargo_calibration import list_recipes, load_recipe

    recipes = [load_recipe(name) for name in list_recipes()]

    def render() -> Iterator[RenderableType]:
        from pargo_export.cli.layout import table

        rows = [(recipe.name, recipe.precision, recipe.summary) for recipe in recipes]
        yield table(("recipe", "precision", "what it is for"), rows, num_left=3)

    reporter.result({recipe.name: recipe.model_dump(mode="json") for recipe in recipes}, render)


def _analyze(
    reporter: Reporter,
    bundle: Path,
    options: QuantizeOptions,
    *,
    per: Literal["block", "linear"],
    threshold: float,
) -> None:
    from pargo_export.cli.quantization import error_table
    from pargo_export.quantization.analyze import analyze

    report = analyze(
        bundle, options, per=per, threshold=threshold, progress=reporter.step, advance=reporter.advance
    )
    values = {
        "bundle": str(bundle),
        "sensitivities": [asdict(item) for item in report.sensitivities],
        "depth": [asdict(item) for item in report.depth],
        "first_past": report.first_past,
        "threshold": report.threshold,
        "kept": report.kept,
    }

    def render() -> Iterator[RenderableType]:
        from pargo_export.cli import layout

        yield layout.heading(f"Sensitivity: one {per} quantized at a time, the worst first")
        yield error_table(per, ((item.name, item) for item in report.sensitivities))
        yield layout.heading("Depth: everything quantized, what leaves each block")
        yield error_table("block", ((item.block, item) for item in report.depth))
        found = f"{report.first_past} is the first with" if report.first_past else "no block has"
        yield f"  {found} a mean cosine below {report.threshold:g}"

    reporter.result(values, render)


def _sizes(result: QuantizeResult) -> dict[str, int]:
    """Return the bytes of the graph, weights included, and of the one it was made from."""
    manifest, variant = result.bundle.manifest, result.variant
    base = manifest.variants.get(variant.quantization.base) if variant.quantization else None
    graphs = {"base": base, "variant": variant}
    return {
        name: sum(manifest.files[path].size_bytes for path in manifest.files_of(item.graph))
        for name, item in graphs.items()
        if item is not None
    }


def _render(bundle: Path, result: QuantizeResult, budget: str | None) -> Iterator[RenderableType]:
    from rich.text import Text

    from pargo_export.cli import layout, quantization

    variant, evidence = result.variant, result.variant.evidence
    passed = evidence is not None and evidence.passed
    done = "is up to date in" if result.reused else "written to"
    below = "" if passed else ", below its accuracy limits"
    yield Text.assemble(layout.mark(passed), f" {variant.name} {done} {bundle}{below}")
    calibration = result.bundle.manifest.calibrations.get(
        (variant.quantization and variant.quantization.calibration) or ""
    )
    yield layout.facts(
        [
            *quantization.quantization_rows(variant, calibration),
            ("size", " -> ".join(layout.size(size) for size in _sizes(result).values())),
            *(("note", note) for note in (evidence.notes if evidence else ())),
        ]
    )
    if evidence is not None:
        yield layout.heading("Accuracy, the worst image of each stage")
        yield quantization.accuracy_table(evidence)
        yield Text(f"  against {evidence.reference}", style="dim")
    if result.steps:
        yield layout.heading(f"Budget {budget}, the graphs tried in order")
        yield quantization.budget_table(result.steps, str(budget).partition("=")[0])
    if evidence is not None and evidence.task is not None:
        yield layout.heading(f"{evidence.task.benchmark.upper()}, answered by {evidence.task.language_model}")
        yield quantization.task_table(evidence.task, variant.name)
    if result.sensitivities:
        yield layout.heading("Sensitivity: one block quantized at a time, the worst first")
        yield quantization.error_table("block", ((item.name, item) for item in result.sensitivities))
