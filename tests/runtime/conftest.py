"""A bundle of a golden model with every kind of graph, made once."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from made_once import made_once
from shared_exports import collect_exports, export_once

from pargo_export.bundle import Bundle
from pargo_export.runtime import Runtime

PHOTOS = Path(find_spec("skimage").submodule_search_locations[0]) / "data"


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory) -> Path:
    """Return a bundle with the variants fp32, fp32-uint8, fp32-encoder, fp32-projector and static; do not write to it."""

    def make(directory: Path) -> None:
        variants: dict[str, dict[str, Any]] = {
            "fp32": {},
            "fp32-uint8": {"input_kind": "uint8"},
            "fp32-encoder": {"component": "encoder"},
            "fp32-projector": {"component": "projector"},
            "static": {"component": "projector", "max_batch": 1},
        }
        exports = {name: export_once(tmp_path_factory, "pargo_w2", **each) for name, each in variants.items()}
        collect_exports(directory / "bundle", exports)

    return made_once(tmp_path_factory, "runtime", make) / "bundle"


@pytest.fixture
def bundle_copy(bundle_path, tmp_path) -> Path:
    """Return a copy of the bundle, to be changed."""
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def open_runtime(bundle_path):
    """Return a function that opens a variant once, on one thread, so that equal input gives equal bits."""
    opened: dict[str, Runtime] = {}

    def open_variant(variant: str = "fp32") -> Runtime:
        if variant not in opened:
            opened[variant] = Runtime.open(Bundle.open(bundle_path), variant=variant, threads=1)
        return opened[variant]

    yield open_variant
    for runtime in opened.values():
        runtime.close()


@pytest.fixture
def runtime(open_runtime) -> Runtime:
    """Return the runtime of the variant fp32; do not close it."""
    return open_runtime()


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Return five photographs of different sizes, colour and grey."""
    return [PHOTOS / name for name in ("chelsea.png", "rocket.jpg", "coffee.png", "camera.png", "brick.png")]
