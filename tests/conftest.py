"""Fixtures that several folders of tests use."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import CASES, PARGO_CASES, QUERY_CASES, GoldenCase, golden_case
from made_once import made_once
from shared_exports import collect_exports, export_once

_BROWSER_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_REGISTRATION = "torch.onnx._internal.exporter._registration"

if not Path("/dev/nvidiactl").exists():
    # Read when a kernel is defined: without a GPU, Triton's interpreter runs the kernels on CPU tensors.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _ctrl_c() -> None:
    """Ctrl-C raises `KeyboardInterrupt`, whatever a library of an earlier test made of it: tests interrupt themselves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Compute on one thread: the models are small, and the order of sums stays the same."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _imports_are_no_garbage() -> None:
    """Keep the garbage collector off what was imported and collected: going through it takes half a second a time."""
    gc.collect()
    gc.freeze()


@cache
def _list_operators_once() -> None:
    registry = sys.modules[_REGISTRATION].ONNXRegistry
    listed = cache(registry.from_torchlib)

    def from_torchlib(**options: Any) -> Any:
        """Return a registry of its own lists: an exporter may add to them."""
        made = registry()
        made.__dict__.update(listed(**options).__dict__)
        made.functions = {name: list(functions) for name, functions in made.functions.items()}
        return made

    registry.from_torchlib = staticmethod(from_torchlib)


@pytest.fixture(autouse=True)
def _one_list_of_operators() -> None:
    """Let PyTorch's exporter, once it is imported, list its operators once: that is a fifth of a small export."""
    if _REGISTRATION in sys.modules:
        _list_operators_once()


@pytest.fixture(params=CASES)
def any_case(request: pytest.FixtureRequest) -> GoldenCase:
    """Every golden case in turn."""
    return golden_case(request.param)


@pytest.fixture(params=QUERY_CASES)
def query_case(request: pytest.FixtureRequest) -> GoldenCase:
    """Every golden case with query layers in turn."""
    return golden_case(request.param)


@pytest.fixture(params=PARGO_CASES)
def pargo_case(request: pytest.FixtureRequest) -> GoldenCase:
    """Every golden case with partial tokens in turn."""
    return golden_case(request.param)


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the golden case `pargo_w2` with the variants fp32, bf16 and external; do not write to it.

    `external` is the projector alone, with its weights in a file of their own.
    """

    def make(directory: Path) -> None:
        part = {"component": "projector", "attention": "dense", "max_batch": 2, "name": "external"}
        exports = {
            "fp32": export_once(tmp_path_factory, "pargo_w2"),
            "bf16": export_once(tmp_path_factory, "pargo_w2", precision="bf16", target="cuda"),
            "external": export_once(tmp_path_factory, "pargo_w2", external=True, **part),
        }
        collect_exports(directory / "bundle", exports)

    return made_once(tmp_path_factory, "exported", make) / "bundle"


@pytest.fixture
def bundle_to_edit(exported_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `exported_bundle`, to be tampered with."""
    return Path(shutil.copytree(exported_bundle, tmp_path / "edited"))


@pytest.fixture(scope="session")
def browser():
    """A real Chromium, one for all folders: Playwright runs once a process. Skips where there is none, unless PARGO_REQUIRE_BROWSER is set."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if os.environ.get("PARGO_REQUIRE_BROWSER"):
        assert found, "PARGO_REQUIRE_BROWSER is set, but there is no chromium in PATH"
    elif not found:
        pytest.skip("no chromium in PATH; set PARGO_REQUIRE_BROWSER to make that an error")
    api = pytest.importorskip("playwright.sync_api") if not os.environ.get("PARGO_REQUIRE_BROWSER") else None
    if api is None:
        import playwright.sync_api as api
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=list(_BROWSER_ARGUMENTS))
        yield opened
        opened.close()
