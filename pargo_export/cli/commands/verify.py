"""`pargo-export verify`: check a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pargo_export.graph.verify import VerifyReport

__all__ = ["command"]


@click.command("verify", cls=PargoCommand, short_help="Check a bundle.")
@click.argument("bundle", type=FILE)
@click.option("--checkpoint", type=FILE, help="Compare with this checkpoint, and measure parity again.")
@click.option("--config", help="Configuration of the checkpoint, as for `onnx`.")
@click.option(
    "--vision-checkpoint", type=FILE, help="The tower, as `onnx` had it: a checkpoint or a vision model."
)
@click.option("--variant", metavar="NAME", help="Check this graph only; by default all of them.")
@click.option(
    "--backend",
    metavar="NAME",
    help="Also run the graphs on this backend of this machine, and hold them against float32; `doctor` lists them.",
)
@click.option("--engine", metavar="NAME", help="With --backend: run this TensorRT engine.")
@pass_reporter
def command(
    reporter: Reporter,
    bundle: Path,
    checkpoint: Path | None,
    config: str | None,
    vision_checkpoint: Path | None,
    variant: str | None,
    backend: str | None,
    engine: str | None,
) -> bool:
    """Check the files and graphs of BUNDLE, and with --checkpoint or --backend what they compute.

    Compares every file with its hash, runs the ONNX checker, compares each graph with the manifest and runs
    it on a photograph. Exit status 1 if a check does not pass.
    """
    if engine is not None and backend is None:
        raise click.UsageError("--engine needs --backend tensorrt or tensorrt-rtx")
    from pargo_export import verify

    report = verify(
        bundle,
        checkpoint,
        config=config,
        vision_checkpoint=vision_checkpoint,
        variant=variant,
        progress=reporter.step,
    )
    if backend is not None:
        from pargo_export.agreement import check_backend

        found = check_backend(bundle, backend, variant=variant, engine=engine, progress=reporter.step)
        report = replace(report, checks=(*report.checks, *found))
    values = {
        "bundle": str(report.bundle),
        "passed": report.passed,
        "checks": [asdict(check) for check in report.checks],
    }
    reporter.result(values, lambda: _render(report))
    return report.passed


def _render(report: VerifyReport) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from pargo_export.cli import layout

    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for check in report.checks:
        grid.add_row(layout.mark(check.ok), check.name, Text(check.detail, style="" if check.ok else "red"))
    yield grid
    num_failed, total = len(report.failures), len(report.checks)
    style = "bold green" if report.passed else "bold red"
    summary = f"{total} checks passed" if report.passed else f"{num_failed} of {total} checks failed"
    yield Text(f"\n{report.bundle}: {summary}", style=style)
