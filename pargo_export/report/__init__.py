"""One self-contained HTML file about a benchmark: what was measured, drawn, with the numbers beside it."""

from __future__ import annotations

from pargo_export.report.write import write_report

__all__ = ["write_report"]
