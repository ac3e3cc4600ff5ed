"""A bundle with variants for the backend `cuda`, made once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from golden_cases import CASES, GoldenCase, golden_case
from graph.exports import Exported
from made_once import made_once
from PIL import Image
from shared_exports import collect_exports, export_once

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Bundle
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.quantize import quantize

KEPT = ("tower.blocks.0.*", "projector.layers.1.*")
QUANTIZED = {
    "fp8": {"precision": "fp8", "target": "thor"},
    "int8": {"precision": "int8", "target": "cuda"},
    "int8-kept": {"precision": "int8", "target": "cuda", "keep": KEPT},
    "fp8-float32": {"precision": "fp8", "target": "thor", "float_precision": "float32"},
    "int8-float32": {"precision": "int8", "target": "cuda", "float_precision": "float32"},
}


def _export(factory: pytest.TempPathFactory, source: str = "pargo_w2", **choices: Any) -> Exported:
    return export_once(factory, source, **{"target": "cuda", "precision": "fp16", **choices})


@pytest.fixture(scope="session")
def cuda_bundle(tmp_path_factory) -> Path:
    """A bundle of `pargo_w2` for GPUs; do not write to it.

    fp32, fp16, bf16, fp16-uint8, fp16-encoder, fp16-projector, and the variants of `QUANTIZED`.
    """
    if ready := os.environ.get("PARGO_CUDA_BUNDLE"):  # made elsewhere: a GPU machine need not export
        return Path(ready)

    def make(directory: Path) -> None:
        exports = (
            _export(tmp_path_factory, precision="fp32"),
            _export(tmp_path_factory),
            _export(tmp_path_factory, precision="bf16"),
            _export(tmp_path_factory, input_kind="uint8"),
            _export(tmp_path_factory, component="encoder"),
            _export(tmp_path_factory, component="projector"),
        )
        path = collect_exports(directory / "bundle", {item.variant.name: item for item in exports})
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
    """Every golden case in turn, with a bundle of its variant fp16 for `cuda`, weights in a file of their own.

    The graph takes one image: it is translated in half the time of a dynamic batch, and its weights are the same.
    """
    exported = _export(tmp_path_factory, request.param, external=True, max_batch=1)
    return golden_case(request.param), Bundle.open(exported.result.bundle.path)


@pytest.fixture(scope="session", params=CASES)
def golden_export_of_batches(request, tmp_path_factory) -> tuple[GoldenCase, Bundle]:
    """Like `golden_export`, but the graph takes batches: for the GPU, where runtimes open it."""
    exported = _export(tmp_path_factory, request.param, external=True)
    return golden_case(request.param), Bundle.open(exported.result.bundle.path)
