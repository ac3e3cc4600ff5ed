"""Write the report: gather the sections, render the page, put it on disk in one step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pargo_export.bench.records import BenchResult
from pargo_export.bundle import Bundle, atomic_write
from pargo_export.errors import PargoExportError
from pargo_export.report.context import Context
from pargo_export.report.page import render_page
from pargo_export.report.parts import Heading, Section
from pargo_export.report.sections import SECTIONS

__all__ = ["write_page", "write_report"]


def write_report(result: BenchResult, bundle: Bundle | None, path: Path) -> Path:
    """Write one self-contained HTML file about a benchmark; it needs no network, and makes no connection.

    Args:
        result: What was found.
        bundle: The bundle that was measured: for the error of its variants, masks and precisions; `None` leaves them
            out.
        path: The file to create or replace; its directory must exist.

    Returns:
        `path`.

    Raises:
        MissingDependencyError: plotly or Jinja2 is not installed.
        PargoExportError: The file cannot be written.
    """
    context = Context(result, bundle)
    sections = [section for make in SECTIONS if (section := make(context)) is not None]
    heading = Heading("benchmark", result.bundle.model, context.place, result.created)
    return write_page(heading, sections, path)


def write_page(heading: Heading, sections: Sequence[Section], path: Path) -> Path:
    """Write one self-contained HTML file.

    Args:
        heading: What it is about.
        sections: In the order in which they are read.
        path: The file to create or replace; its directory must exist.

    Returns:
        `path`.

    Raises:
        MissingDependencyError: plotly or Jinja2 is not installed.
        PargoExportError: The file cannot be written.
    """
    content = render_page(heading, sections).encode()
    try:
        atomic_write(path, content)
    except OSError as error:
        raise PargoExportError(f"{path} cannot be written: {error}; check its directory") from error
    return path
