"""`pargo-export report`: a page about a benchmark that was measured before."""

from __future__ import annotations

from pathlib import Path

import click

from pargo_export.cli.arguments import FILE
from pargo_export.cli.command import PargoCommand, pass_reporter
from pargo_export.cli.report import Reporter

__all__ = ["command"]


@click.command("report", cls=PargoCommand, short_help="Make a page of a saved benchmark.")
@click.argument("result", type=FILE)
@click.option(
    "--bundle", type=FILE, help="The bundle that was measured: adds errors by stage, masks and precisions."
)
@click.option("-o", "--output", type=FILE, required=True, help="HTML file to write.")
@pass_reporter
def command(reporter: Reporter, result: Path, bundle: Path | None, output: Path) -> None:
    """Make one self-contained HTML file of RESULT, a file that `pargo-export bench --output` wrote.

    The page loads nothing from the network. What is in it: docs/report.md.
    """
    from pargo_export.bench import read_result
    from pargo_export.bundle import Bundle
    from pargo_export.cli import layout
    from pargo_export.report import write_report

    reporter.step("reading the result")
    found = read_result(result)
    opened = None if bundle is None else Bundle.open(bundle)
    reporter.step("writing the report")
    path = write_report(found, opened, output)
    size = path.stat().st_size
    reporter.result(
        {"report": str(path), "size_bytes": size},
        lambda: [f"{path}, {layout.size(size)}; open it in a browser"],
    )
