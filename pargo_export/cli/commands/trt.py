"""`pargo-export trt`: build a TensorRT engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pargo_export.cli import arguments, engine_arguments
from pargo_export.cli.checkpoint_arguments import check_vision, vision_options
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from pargo_export.deploy import DeployOptions

__all__ = ["command"]

_VISION = ("vision_checkpoint", "vision_model", "vision_layer")
_CHECKPOINT = ("config", *_VISION, "tiles", "preprocess")
_ENGINE = (
    "workspace_bytes",
    "timing_cache",
    "optimization_level",
    "profiling",
    "plugins",
    "plugin_libraries",
    "min_share",
    "name",
)


@click.command("trt", cls=PargoCommand, short_help="Build a TensorRT engine, and run it against FP32.")
@click.argument("source", type=arguments.FILE, metavar="CHECKPOINT_OR_BUNDLE")
@click.option("-o", "--output", type=arguments.FILE, help="Bundle to make or extend; only with a checkpoint.")
@engine_arguments.engine_precision_flags
@click.option("--variant", metavar="NAME", help="Build this graph of the bundle; by default what fits.")
@click.option(
    "--target",
    default="auto",
    show_default=True,
    metavar="auto|cuda|orin|thor|rtx[:sm86,...]",
    callback=engine_arguments.parse_target,
    help="Device; rtx: GeForce and RTX GPUs, with compute capabilities. If it is not this machine, the bundle is prepared.",
)
@click.option(
    "--flavor",
    type=click.Choice(("auto", "tensorrt", "rtx")),
    default="auto",
    show_default=True,
    help="TensorRT, or TensorRT for RTX; auto: what suits the target.",
)
@click.option(
    "--calibration-data",
    metavar="PATH|random",
    help="Photographs, as for `calibrate`; needed if the bundle has no calibration.",
)
@click.option(
    "--calibration", metavar="NAME", default="default", show_default=True, help="Calibration in the bundle."
)
@click.option("--allow-random", is_flag=True, help="Accept `--calibration-data random`.")
@click.option("--base", metavar="VARIANT", help="Float graph to quantize; by default what suits the target.")
@click.option("--min-batch", type=click.IntRange(min=1), help="Smallest batch; by default 1.")
@click.option("--opt-batch", type=click.IntRange(min=1), help="Batch to choose kernels for; by default 1.")
@click.option("--max-batch", type=click.IntRange(min=1), help="Largest batch; by default the graph's.")
@click.option(
    "--batches",
    metavar="N,N,...",
    callback=engine_arguments.parse_batches,
    help="Instead: batch sizes with a profile each.",
)
@click.option(
    "--workspace",
    "workspace_bytes",
    metavar="SIZE",
    callback=engine_arguments.parse_size,
    help="Memory that kernels may use, such as 512M or 2G; by default by what is free.",
)
@click.option(
    "--timing-cache/--no-timing-cache",
    default=True,
    help="Keep measured kernels in the bundle, for the next build; the default.",
)
@click.option(
    "--optimization-level", type=click.IntRange(0, 5), help="0: fast build, 5: long search for kernels."
)
@click.option("--profiling", is_flag=True, help="Keep names and types of all layers in the engine.")
@click.option(
    "--plugins",
    type=click.Choice(("off", "auto", "require")),
    help="Fused attention by a plugin; by default off, auto with --plugin.",
)
@click.option(
    "--plugin",
    "plugin_libraries",
    type=arguments.FILE,
    multiple=True,
    metavar="FILE",
    help="Shared library with plugins, copied into the bundle; repeatable.",
)
@click.option(
    "--min-share",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Least share of the work in the precision asked for.",
)
@click.option(
    "--keep",
    type=click.Choice(("all", "fastest")),
    default="all",
    show_default=True,
    help="A quantized engine is timed against an FP16 one; fastest: remove the slower.",
)
@click.option(
    "--allow-below",
    is_flag=True,
    help="Keep a graph or an engine that misses its accuracy limits, marked so.",
)
@click.option("--config", help="For a checkpoint: JSON file or preset, as for `onnx`.")
@vision_options
@click.option(
    "--tiles", metavar="RxC", callback=arguments.parse_tiles, help="For a checkpoint: as for `onnx`."
)
@click.option(
    "--preprocess",
    metavar="MODE",
    type=click.Choice(("auto", *arguments.MODES)),
    default="auto",
    show_default=True,
    help="For a checkpoint: as for `onnx`.",
)
@click.option("--name", help="Name of the engine; by default made from variant and device.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; by default every core.")
@click.option("--show-trtexec", is_flag=True, help="Only print the trtexec line that does the same.")
@click.option("--dry-run", is_flag=True, help="Only print the steps that would be done.")
@click.option("--force", is_flag=True, help="Redo what is up to date, and replace what has the same name.")
@pass_reporter
def command(
    reporter: Reporter,
    /,
    source: Path,
    output: Path | None,
    show_trtexec: bool,
    dry_run: bool,
    force: bool,
    **options: Any,
) -> None:
    """Build a TensorRT engine from CHECKPOINT_OR_BUNDLE, by whatever steps that takes.

    Exports, calibrates and quantizes what the bundle lacks, builds, and where the engine can run holds it against float32
    and times it. An engine is built on the device that it is for; on another machine the bundle is prepared and the
    command for the device printed. TensorRT for RTX builds without a GPU.
    """
    check_vision(*(options[name] for name in _VISION))
    chosen = _options(**options)
    from pargo_export.cli import engine as rendering

    if show_trtexec:
        from pargo_export.deploy.trtexec import show_trtexec as show

        lines = show(source, chosen, output=output)
        reporter.result({"commands": list(lines)}, lambda: rendering.render_commands(lines))
        return
    if dry_run:
        from pargo_export.deploy import find_facts, make_plan

        plan = make_plan(source, chosen, output=output, facts=find_facts())
        reporter.result(rendering.plan_values(plan), lambda: rendering.render_plan(plan))
        return
    from pargo_export import deploy_engine

    result = deploy_engine(
        source, chosen, output=output, force=force, progress=reporter.step, advance=reporter.advance
    )
    reporter.result(rendering.result_values(result), lambda: rendering.render_result(result))


def _options(**options: Any) -> DeployOptions:
    """Translate what was typed into the words of the library."""
    flags = {name: options.pop(name) for name in engine_arguments.PRECISION_FLAGS}
    precision = engine_arguments.choose_engine_precision(flags, options["variant"])
    from pargo_export import DeployOptions, EngineOptions  # says which extra is missing, if one is
    from pargo_export.deploy import CheckpointOptions

    engine = {name: options.pop(name) for name in _ENGINE}
    engine["plugins"] = engine["plugins"] or ("auto" if engine["plugin_libraries"] else "off")
    checkpoint = {name: options.pop(name) for name in _CHECKPOINT}
    return DeployOptions(
        precision=precision,
        engine=EngineOptions(**engine),
        checkpoint=CheckpointOptions(**checkpoint),
        **options,
    )
