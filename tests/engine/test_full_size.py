"""Engines of the official size, in processes of their own: minutes and gigabytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from quantization.samples import write_photographs

from pargo_export.bundle import Bundle
from pargo_export.graph.export import export_onnx
from pargo_export.model.loading import load_checkpoint
from pargo_export.model.sample import write_sample
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.quantize import quantize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("tensorrt_rtx")
NUM_LINEARS = 120
MIB = 1 << 20


@pytest.fixture(scope="module")
def full_bundle(tmp_path_factory) -> Path:
    """A bundle of the official size with random weights and the variants fp16 and int8-weight-only-rtx."""
    folder = tmp_path_factory.mktemp("full")
    checkpoint = folder / "sample.safetensors"
    write_sample(checkpoint, "eva02-l-336-internlm2-7b")
    export_onnx(load_checkpoint(checkpoint), folder / "bundle", max_batch=8)
    checkpoint.unlink()
    photographs = folder / "photographs"
    photographs.mkdir()
    calibrate(
        folder / "bundle", write_photographs(photographs), CalibrateOptions(num_images=3, num_evaluation=1)
    )
    quantize(folder / "bundle", precision="float16", target="rtx", allow_below=True)
    quantize(folder / "bundle", precision="int8_weight_only", target="rtx", allow_below=True)
    return folder / "bundle"


@pytest.mark.parametrize(
    ("name", "linears", "largest"),
    [
        ("fp16", {"float16": NUM_LINEARS}, 660 * MIB),
        ("int8-weight-only-rtx", {"float16": 1, "int8_weight_only": NUM_LINEARS - 1}, 350 * MIB),
    ],
)
def test_the_official_size_is_built(full_bundle, name, linears, largest):
    """In a few gigabytes of memory; the engine is about as large as its weights."""
    code = (
        "import sys\n"
        "from pargo_export.engine.build import build_engine\n"
        "build_engine(sys.argv[1], sys.argv[2], flavor='rtx')"
    )
    subprocess.run([sys.executable, "-c", code, str(full_bundle), name], check=True)
    engine = Bundle.open(full_bundle).manifest.engines[f"{name}-rtx"]
    assert engine.built_as_asked.linears == linears
    assert engine.built_as_asked.share == 1.0
    assert 0.9 * largest < engine.size_bytes < largest
    assert engine.peak_memory_bytes < 4096 * MIB
