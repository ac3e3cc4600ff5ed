"""One self-contained HTML file about an evaluation: scores, differences, flips with their pictures."""

from __future__ import annotations

from pargo_export.evaluation.report.write import write_evaluation_report

__all__ = ["write_evaluation_report"]
