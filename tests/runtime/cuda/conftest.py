"""A bundle with variants for the backend `cuda`, made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from golden_cases import CASES, GoldenCase, golden_case, golden_model
from made_once import made_once
from PIL import Image

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Bundle
from pargo_export.graph import save
from pargo_export.graph.export import export_onnx
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.quantize import quantize

MAX_BATCH = 4
KEPT = ("tower.blocks.0.*", "projector.layers.1.*")
QUANTIZED = {
    "fp8": {"precision": "fp8", "target": "thor"},
    "int8": {"precision": "int8", "target": "cuda"},
    "int8-kept": {"precision": "int8", "target": "cuda", "keep": KEPT},
    "fp8-float32": {"precision": "fp8", "target": "thor", "float_precision": "float32"},
    "int8-float32": {"precision": "int8", "target": "cuda", "float_precision": "float32"},
}


@pytest.fixture(scope="session")
def cuda_bundle(tmp_path_factory) -> Path:
    """A bundle of `pargo_w2` for GPUs; do not write to it.

    fp32, fp16, bf16, fp16-uint8, fp16-encoder, fp16-projector, and the variants of `QUANTIZED`.
    """
    if ready := os.environ.get("PARGO_CUDA_BUNDLE"):  # made elsewhere: a GPU machine need not export
        return Path(ready)

    def make(directory: Path) -> None:
        path = directory / "bundle"
        model = golden_model("pargo_w2")
        for choices in (
            {"precision": "fp32"},
            {"precision": "fp16"},
            {"precision": "bf16"},
            {"precision": "fp16", "input_kind": "uint8"},
            {"precision": "fp16", "component": "encoder"},
            {"precision": "fp16", "component": "projector"},
        ):
            export_onnx(model, path, max_batch=MAX_BATCH, target="cuda", **choices)
        photographs = directory / "photographs"
        photographs.mkdir()
        with Image.open(PHOTOGRAPH) as photograph:
            for index in range(8):
                crop = photograph.crop((20 * index, 10 * index, 20 * index + 150, 10 * index + 120))
                crop.save(photographs / f"{index}.png")
        calibrate(path, photographs, CalibrateOptions(num_evaluation=2, threads=1))
        for name, choices in QUANTIZED.items():
            quantize(
                path, **choices, name=name, threads=1, allow_below=True
            )  # few images say little of accuracy

    return made_once(tmp_path_factory, "cuda", make) / "bundle"


@pytest.fixture(scope="session", params=CASES)
def golden_export(request, tmp_path_factory) -> tuple[GoldenCase, Bundle]:
    """Every golden case in turn, with a bundle of its variant fp16 for `cuda`, weights in a file of their own."""

    def make(directory: Path) -> None:
        model = golden_model(request.param)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", 0)
            export_onnx(model, directory / "bundle", precision="fp16", target="cuda", max_batch=MAX_BATCH)

    directory = made_once(tmp_path_factory, f"cuda-{request.param}", make)
    return golden_case(request.param), Bundle.open(directory / "bundle")
