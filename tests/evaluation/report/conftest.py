"""The browser of the benchmark's report."""

from __future__ import annotations

from report.conftest import browser

__all__ = ["browser"]
