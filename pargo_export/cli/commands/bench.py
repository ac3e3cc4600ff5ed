"""`pargo-export bench`: how long a bundle takes on this machine."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pargo_export.cli.arguments import FILE, parse_names
from pargo_export.cli.bench_arguments import (
    parse_counts,
    parse_duration,
    parse_load,
    parse_milliseconds,
    parse_share,
)
from pargo_export.cli.command import PargoCommand, command_line, pass_reporter
from pargo_export.cli.report import Reporter
from pargo_export.errors import ConfigError

if TYPE_CHECKING:
    from pargo_export.bench import BenchResult

__all__ = ["command"]

_DEFAULT_FAIL_ABOVE = 0.05


@click.command("bench", cls=PargoCommand, short_help="Measure a bundle on this machine.")
@click.argument("bundle", type=FILE)
@click.option(
    "--backend",
    "backends",
    metavar="NAME,...",
    callback=parse_names,
    help="What runs it; `doctor` lists them. By default the best one here.",
)
@click.option(
    "--variant", "variants", metavar="NAME,...", callback=parse_names, help="Graphs; by default the best one."
)
@click.option("--engine", metavar="NAME", help="TensorRT engine to run.")
@click.option(
    "--batch",
    "batches",
    metavar="N,...",
    callback=parse_counts,
    help="Images in one run; by default those of 1,2,4,8 that fit.",
)
@click.option(
    "--concurrency",
    "concurrencies",
    metavar="N,...",
    callback=parse_counts,
    help="Callers at the same time; by default 1.",
)
@click.option(
    "--duration",
    "duration_s",
    metavar="TIME",
    callback=parse_duration,
    help="Timed runs of each subject, batch and boundary: 10s, 2m. By default 5s.",
)
@click.option("--iterations", type=click.IntRange(min=1), help="Number of timed runs instead.")
@click.option(
    "--rounds",
    "num_rounds",
    type=click.IntRange(min=1),
    help="Turns that they are shared out to; default 10.",
)
@click.option("--warmup", "num_warmup", type=click.IntRange(min=0), help="Untimed runs before; default 3.")
@click.option(
    "--input", "inputs", type=FILE, multiple=True, help="Pictures or a folder; may be given several times."
)
@click.option(
    "--baseline",
    "baselines",
    metavar="NAME",
    multiple=True,
    help="torch, torch-compile, onnxruntime, or another bundle; ratios are against it. May be given several times.",
)
@click.option("--checkpoint", type=FILE, help="Checkpoint of the bundle; the first three baselines run it.")
@click.option(
    "--load",
    metavar="auto|RATE,...",
    callback=parse_load,
    help="Then requests that do not wait for answers, so many a second; auto: up to saturation.",
)
@click.option(
    "--arrivals", type=click.Choice(("poisson", "fixed")), help="Of these requests; default poisson."
)
@click.option("--deadline", "deadline_ms", metavar="TIME", callback=parse_milliseconds, help="Of each: 50ms.")
@click.option(
    "--gather",
    "gather_ms",
    metavar="TIME",
    callback=parse_milliseconds,
    help="Wait for requests to run together: 2ms.",
)
@click.option(
    "--sustained",
    "sustained_s",
    metavar="TIME",
    callback=parse_duration,
    help="Then run without a pause: 10m; shows throttling.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of a run; by default every core.")
@click.option("--seed", type=click.IntRange(min=0), help="Of bootstrap and arrivals; default 0.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="JSON file for the result, with every sample. (--json prints the same instead of tables.)",
)
@click.option("--html", type=FILE, help="HTML file for a report; needs the extra 'report'.")
@click.option("--compare", type=FILE, help="Earlier result (-o); fails if something became slower.")
@click.option(
    "--fail-above",
    metavar="PERCENT",
    callback=parse_share,
    help="Slowdown that --compare allows; default 5%.",
)
@pass_reporter
def command(
    reporter: Reporter,
    /,
    bundle: Path,
    output: Path | None,
    html: Path | None,
    compare: Path | None,
    fail_above: float | None,
    **chosen: Any,
) -> bool:
    """Measure BUNDLE: latency, throughput, memory and energy, each with its boundary and its clock.

    The outputs are checked first; what computes something else is not timed. Everything is timed in turns in one
    run, so that ratios hold where absolute times do not. The exit status is 1 if an output was wrong, something failed,
    or --compare proves a regression. The method is in docs/benchmarking.md.
    """
    from pargo_export.bench import benchmark, find_regressions, read_result, write_result
    from pargo_export.cli.bench import render_regressions, render_result

    if fail_above is not None and compare is None:
        raise click.UsageError("--fail-above is what --compare allows; give --compare OLD.json too.")
    _check_files(output, html)
    old = read_result(compare) if compare is not None else None
    given = {name: value for name, value in chosen.items() if value is not None and value != ()}
    result = benchmark(bundle, progress=reporter.step, command=command_line(), **given)
    if output is not None:
        write_result(result, output)
    if html is not None:
        reporter.step(f"writing {html}")
        _write_report(result, bundle, html)
    regressions, problem = None, None
    if old is not None:
        allowed = _DEFAULT_FAIL_ABOVE if fail_above is None else fail_above
        try:
            regressions = find_regressions(old, result, fail_above=allowed)
        except ConfigError as error:  # what was measured is shown all the same
            problem = error
    values = result.model_dump(mode="json")
    if regressions is not None:
        values["regressions"] = regressions.model_dump(mode="json")
    tables = chain(render_result(result), render_regressions(regressions) if regressions else ())
    reporter.result(values, lambda: tables)
    if problem is not None:
        raise problem
    passed = all(subject.failure is None for subject in result.subjects)
    return passed and not (regressions is not None and regressions.proven)


def _check_files(output: Path | None, html: Path | None) -> None:
    """Find out before the work, not after it, that something cannot be written."""
    for path in (output, html):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: its directory does not exist; create it first")
    if html is not None:
        from pargo_export.optional import require

        for module in ("jinja2", "plotly"):
            require(module, extra="report", purpose="write a report")


def _write_report(result: BenchResult, bundle: Path, path: Path) -> None:
    from pargo_export.bundle import Bundle
    from pargo_export.report import write_report

    write_report(result, Bundle.open(bundle), path)
