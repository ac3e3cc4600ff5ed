"""`pargo-export llm`: a language model that runs without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.llm.onnx import ExportedLanguageModel

__all__ = ["command"]


@click.command("llm", cls=PargoCommand, short_help="Export a language model to ONNX, verified.")
@click.argument("directory", metavar="DIR", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Directory to make.")
@click.option(
    "--adapters",
    type=FILE,
    metavar="CHECKPOINT",
    help="ParGo checkpoint whose LoRA adapters are merged into the language model first.",
)
@click.option(
    "--lora-alpha",
    type=click.FloatRange(min=0, min_open=True),
    help="Of the adapters; by default from the JSON beside the checkpoint.",
)
@click.option("--int8", is_flag=True, help="Weights with 8 bits, in blocks.")
@click.option("--int4", is_flag=True, help="Weights with 4 bits, in blocks.")
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Execute Python files of DIR if its model needs them; they can do what you can do.",
)
@click.option("--force", is_flag=True, help="Replace an exported language model.")
@pass_reporter
def command(
    reporter: Reporter,
    directory: Path,
    output: Path,
    adapters: Path | None,
    lora_alpha: float | None,
    int8: bool,
    int4: bool,
    trust_remote_code: bool,
    force: bool,
) -> None:
    """Export the language model in DIR, a directory of transformers, so that `chat` and `eval` run it without PyTorch.

    Its logits are compared with PyTorch before anything is written.
    """
    if int8 and int4:
        raise click.UsageError("--int8 and --int4 exclude each other")
    from pargo_export.llm.onnx import export_language_model

    record = export_language_model(
        directory,
        output,
        adapters=adapters,
        lora_alpha=lora_alpha,
        precision="int8" if int8 else "int4" if int4 else "fp32",
        trust_remote_code=trust_remote_code,
        force=force,
        progress=reporter.step,
    )
    values = {"output": str(output), **record.model_dump(mode="json")}
    reporter.result(values, lambda: _render(output, record))


def _render(output: Path, record: ExportedLanguageModel) -> Iterator[RenderableType]:
    from rich.text import Text

    from pargo_export.cli import layout

    evidence = record.evidence
    yield Text.assemble(layout.mark(evidence.passed), f" {record.name} written to {output}")
    largest = max(item.max_abs for item in evidence.stages)
    lowest = min(item.cosine for item in evidence.stages)
    yield layout.facts(
        [
            ("model", f"{record.model_type}, {len(record.keys)} layers, width {record.hidden_size}"),
            ("weights", f"{record.precision}, {layout.size(record.size_bytes)} with the embeddings"),
            ("adapters", "merged" if record.adapters_sha256 else ""),
            (
                "logits",
                f"largest difference {largest:.3g}, lowest cosine {lowest:.6f} (reference: {evidence.reference})",
            ),
            *(("note", note) for note in evidence.notes),
        ]
    )
