"""`pargo-export onnx`: export a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pargo_export.cli import arguments
from pargo_export.cli.checkpoint_arguments import check_vision, vision_options
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.checkpoint.reader import VisionSource
    from pargo_export.checkpoint.report import CheckpointReport
    from pargo_export.checkpoint.vision_model import VisionLayer
    from pargo_export.graph.export import ExportResult

__all__ = ["command"]


@click.command("onnx", cls=PargoCommand, short_help="Export a checkpoint to ONNX, verified.")
@click.argument("checkpoint", type=arguments.FILE)
@click.option(
    "-o", "--output", type=arguments.FILE, required=True, help="Bundle: a new directory, or one to extend."
)
@click.option("--config", help="JSON file or preset; by default what lies with the checkpoint.")
@vision_options
@click.option(
    "--component",
    type=click.Choice(arguments.COMPONENTS),
    default="all",
    show_default=True,
    help="all: pixels to visual tokens; encoder: to image features; projector: from them.",
)
@click.option(
    "--attention",
    type=click.Choice(arguments.ATTENTIONS),
    default="auto",
    show_default=True,
    help="How the projector's attention is written; auto: what suits the target.",
)
@click.option(
    "--precision",
    type=click.Choice(arguments.PRECISIONS),
    default="fp32",
    show_default=True,
    help="Of weights and activations; LayerNorm statistics and softmax stay in float32.",
)
@click.option(
    "--target",
    type=click.Choice(arguments.TARGETS),
    default="cpu",
    show_default=True,
    help="Device family; decides the attention form and the rewrites.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Largest batch; 1 makes the batch axis static.",
)
@click.option(
    "--tiles",
    metavar="RxC",
    callback=arguments.parse_tiles,
    help="Tiles of an image, rows x columns or their number; by default the configuration's.",
)
@click.option("--opset", type=int, help="ONNX opset; by default the lowest that serves, at least 20.")
@click.option(
    "--input",
    "input_kind",
    type=click.Choice(arguments.INPUTS),
    default="float",
    show_default=True,
    help="uint8: the graph normalises the pixels by itself.",
)
@click.option(
    "--preprocess",
    metavar="MODE",
    type=click.Choice(("auto", *arguments.MODES)),
    default="auto",
    show_default=True,
    help="How pictures are brought to the input size: auto (as the vision model says, else pad), "
    f"{', '.join(arguments.MODES)}.",
)
@click.option(
    "--rewrites",
    metavar="NAMES",
    callback=arguments.parse_names,
    help="Apply these instead of the target's: a,b,c.",
)
@click.option(
    "--no-rewrite", "without_rewrites", multiple=True, metavar="NAME", help="Leave a rewrite out; repeatable."
)
@click.option(
    "--photo", "photos", type=arguments.FILE, multiple=True, help="Picture for the parity gate; repeatable."
)
@click.option("--name", help="Name of the variant; by default made from precision, component and input.")
@click.option("--force", is_flag=True, help="Replace a bundle of another model, and redo what is up to date.")
@pass_reporter
def command(
    reporter: Reporter,
    /,
    checkpoint: Path,
    output: Path,
    config: str | None,
    vision_checkpoint: Path | None,
    vision_model: Path | None,
    vision_layer: VisionLayer | None,
    tiles: tuple[int, int] | None,
    photos: tuple[Path, ...],
    force: bool,
    **options: Any,
) -> None:
    """Export CHECKPOINT to ONNX and hold it against the PyTorch reference.

    The graph comes into the bundle only if it computes what the reference computes.
    """
    check_vision(vision_checkpoint, vision_model, vision_layer)
    from pargo_export import ExportOptions, export_onnx, load_checkpoint
    from pargo_export.assets import PHOTOGRAPH

    chosen = ExportOptions(**options)
    reporter.step("loading the checkpoint")
    vision: VisionSource | None = vision_checkpoint
    if vision_model is not None:
        from pargo_export.checkpoint.vision_model import open_vision_model

        vision = open_vision_model(vision_model, vision_layer)
    model = load_checkpoint(checkpoint, config, vision)
    if tiles is not None:
        model.config = model.config.with_tiles(*tiles)
    result = export_onnx(
        model, output, chosen, photographs=photos or (PHOTOGRAPH,), force=force, progress=reporter.step
    )
    loaded = model.report
    values = {
        "bundle": str(output),
        "variant": result.variant.model_dump(mode="json"),
        "reused": result.reused,
        "rewrites": [asdict(rewrite) for rewrite in result.rewrites],
        "checkpoint": loaded and loaded.model_dump(mode="json"),
    }
    reporter.result(values, lambda: _render(output, result, loaded))


def _render(output: Path, result: ExportResult, loaded: CheckpointReport | None) -> Iterator[RenderableType]:
    from rich.text import Text

    from pargo_export.cli import layout
    from pargo_export.graph.check import summarize_evidence

    variant, files = result.variant, result.bundle.manifest.files
    size = sum(files[name].size_bytes for name in files if name.startswith(variant.graph))
    done = "is up to date in" if result.reused else "exported to"
    yield Text.assemble(layout.mark(True), f" {variant.name} {done} {output}")
    form = f"opset {variant.opset}, {variant.precision}, attention {variant.attention}, for {variant.target}"
    rows = [
        ("graph", f"{variant.graph}, {layout.size(size)}, {form}"),
        ("input", ", ".join(map(layout.tensor, variant.signature.inputs))),
        ("output", ", ".join(map(layout.tensor, variant.signature.outputs))),
        ("parity", summarize_evidence(variant.evidence) if variant.evidence else ""),
        ("rewrites", ", ".join(variant.rewrites)),
    ]
    if loaded is not None:
        rows += [
            (
                "weights",
                f"{layout.count(loaded.num_parameters)} parameters, configuration from {loaded.config_source}",
            ),
            ("left out", ", ".join(f"{group.name}: {group.num_tensors} tensors" for group in loaded.ignored)),
            *(("note", note) for note in loaded.notes),
        ]
    yield layout.facts(rows)
