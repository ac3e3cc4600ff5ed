"""Reports of hand-written results, and one browser that opens them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from report_case import HOSTILE, full_result, minimal_result, with_quantized_variant

from pargo_export.bundle import Bundle
from pargo_export.report import write_report

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


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


@pytest.fixture(scope="session")
def browser():
    """A real Chromium; skips where there is none, unless PARGO_REQUIRE_BROWSER is set."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if os.environ.get("PARGO_REQUIRE_BROWSER"):
        assert found, "PARGO_REQUIRE_BROWSER is set, but there is no chromium in PATH"
    elif not found:
        pytest.skip("no chromium in PATH; set PARGO_REQUIRE_BROWSER to make that an error")
    api = pytest.importorskip("playwright.sync_api") if not os.environ.get("PARGO_REQUIRE_BROWSER") else None
    if api is None:
        import playwright.sync_api as api
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield opened
        opened.close()
