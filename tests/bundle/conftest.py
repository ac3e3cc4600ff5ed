"""A bundle with one graph and its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle.samples import make_variant, write_bundle

from pargo_export.bundle import Bundle

CONTENTS = {
    "onnx/fp32.onnx": b"graph",
    "onnx/fp32.onnx.data": b"weights" * 1000,
    "reports/parity.json": b"{}",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Return an opened bundle with the variant `fp32`."""
    path = tmp_path / "bundle"
    write_bundle(path, CONTENTS, variants={"fp32": make_variant()})
    return Bundle.open(path)
