"""Write the page about an evaluation, with the machinery of the benchmark's report."""

from __future__ import annotations

import os
from pathlib import Path

from pargo_export.evaluation.mme.records import MmeEvaluation
from pargo_export.evaluation.report.differences import differences
from pargo_export.evaluation.report.facts import about, reading
from pargo_export.evaluation.report.flips import flips
from pargo_export.evaluation.report.headline import headline, warnings
from pargo_export.evaluation.report.scores import scores
from pargo_export.report.parts import Heading
from pargo_export.report.write import write_page

__all__ = ["write_evaluation_report"]

# Each returns `None` if there is nothing to say.
_SECTIONS = (headline, warnings, scores, differences, flips, about, reading)


def write_evaluation_report(found: MmeEvaluation, path: str | os.PathLike[str]) -> Path:
    """Write one self-contained HTML file about an evaluation; it needs no network, and makes no connection.

    Pictures of flipped questions are embedded, small, if the data still lie where they were read.

    Args:
        found: The evaluation.
        path: The file to create or replace; its directory must exist.

    Returns:
        The path.

    Raises:
        MissingDependencyError: plotly or Jinja2 is not installed.
        PargoExportError: The file cannot be written.
    """
    sections = [section for make in _SECTIONS if (section := make(found)) is not None]
    title = "results" if found.bundle is None else found.bundle.model
    where = "" if found.environment is None else found.environment.cpu.model
    return write_page(Heading("MME evaluation", title, where, found.created), sections, Path(path))
