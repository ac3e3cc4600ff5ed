"""A bundle of the smallest model there is, in every form and precision that TensorRT for RTX builds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_once import made_once
from quantization.samples import write_photographs
from shared_exports import collect_exports, export_once

from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.quantize import quantize

QUANTIZED = {
    "int8": {"precision": "int8", "target": "cuda"},
    "int8-cpu": {"precision": "int8"},
    "weights": {"precision": "int8_weight_only", "target": "rtx"},
    "fp8": {"precision": "fp8", "target": "thor"},
    "fp16": {"precision": "float16", "target": "cuda"},
    "bf16": {"precision": "bfloat16", "target": "cuda"},
}


@pytest.fixture(scope="session")
def engine_bundle(tmp_path_factory) -> Path:
    """Bundle with fp32 (fused), op (attention_op), dense (a projector) and `QUANTIZED`; do not write to it."""

    def make(directory: Path) -> None:
        variants = {
            "fp32": {},
            "op": {"attention": "attention_op"},
            "dense": {"component": "projector", "attention": "dense", "target": "cuda"},
        }
        exports = {name: export_once(tmp_path_factory, "micro", **each) for name, each in variants.items()}
        path = collect_exports(directory / "bundle", exports)
        calibrate(
            path, write_photographs(tmp_path_factory.mktemp("photographs")), CalibrateOptions(threads=1)
        )
        for name, choices in QUANTIZED.items():
            # Random weights of this size are not what the accuracy limits were chosen for.
            quantize(path, **choices, base="fp32", name=name, threads=1, allow_below=True)

    return made_once(tmp_path_factory, "engine", make) / "bundle"


@pytest.fixture
def bundle(engine_bundle, tmp_path) -> Path:
    """A copy of `engine_bundle`, to be changed."""
    return Path(shutil.copytree(engine_bundle, tmp_path / "bundle"))
