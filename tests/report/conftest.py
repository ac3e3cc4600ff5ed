"""Reports of hand-written results, and one browser that opens them."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_case import HOSTILE, full_result, minimal_result, with_quantized_variant

from pargo_export.bundle import Bundle
from pargo_export.report import write_report


@pytest.fixture(scope="session")
def quantized_bundle(exported_bundle) -> Bundle:
    """The exported bundle, with a quantized variant in its manifest; in memory only."""
    return with_quantized_variant(Bundle.open(exported_bundle))


@pytest.fixture(scope="session")
def full_report(quantized_bundle, tmp_path_factory) -> Path:
    """A report with every section."""
    path = tmp_path_factory.mktemp("report") / "full.html"
    return write_report(full_result(quantized_bundle), quantized_bundle, path)


@pytest.fixture(scope="session")
def minimal_report(tmp_path_factory) -> Path:
    """A report of one subject that missed the gate, whose name is an attack; without the bundle."""
    return write_report(minimal_result(HOSTILE), None, tmp_path_factory.mktemp("report") / "minimal.html")
