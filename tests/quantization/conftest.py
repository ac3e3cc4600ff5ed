"""Bundles to quantize, made once: exported, calibrated on photographs, and quantized in every way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from made_once import made_once
from quantization.samples import QUANTIZATIONS, write_photographs
from shared_exports import collect_exports, export_once

from pargo_export.bundle import Variant
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.quantize import quantize


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder of sixteen photographs in PNG and JPEG, none of them square; do not write to it."""
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def float_bundle(exported_bundle, tmp_path_factory) -> Path:
    """A bundle of `pargo_w2` with float variants alone; do not write to it.

    fp32 (cpu), bf16 (cuda), external (a projector), fp32-cuda (padded hidden width), fp32-uint8, and unmerged, in
    which query, key and value read one LayerNorm by themselves.
    """

    def make(directory: Path) -> None:
        variants: dict[str, dict[str, Any]] = {
            "fp32-cuda": {"target": "cuda"},
            "fp32-uint8": {"input_kind": "uint8"},
            "unmerged": {"without_rewrites": ("merge-qkv",)},
        }
        exports = {name: export_once(tmp_path_factory, "pargo_w2", **each) for name, each in variants.items()}
        collect_exports(Path(shutil.copytree(exported_bundle, directory / "bundle")), exports)

    return made_once(tmp_path_factory, "float", make) / "bundle"


@pytest.fixture(scope="session")
def calibrated_bundle(float_bundle, photographs, tmp_path_factory) -> Path:
    """`float_bundle` with the calibration `default` of 12 + 4 photographs; do not write to it."""

    def make(directory: Path) -> None:
        path = Path(shutil.copytree(float_bundle, directory / "bundle"))
        calibrate(path, photographs, CalibrateOptions(threads=1))

    return made_once(tmp_path_factory, "calibrated", make) / "bundle"


@pytest.fixture(scope="session")
def quantized_bundle(calibrated_bundle, tmp_path_factory) -> Path:
    """`calibrated_bundle` with every one of `QUANTIZATIONS`; do not write to it."""

    def make(directory: Path) -> None:
        path = Path(shutil.copytree(calibrated_bundle, directory / "bundle"))
        for name, choices in QUANTIZATIONS.items():
            quantize(path, **choices, name=name, threads=1)

    return made_once(tmp_path_factory, "quantized", make) / "bundle"


@pytest.fixture(params=QUANTIZATIONS)
def quantized(request, quantized_bundle) -> tuple[Path, Variant]:
    """Every quantized variant in turn: the bundle and the variant."""
    from pargo_export.bundle import Bundle

    return quantized_bundle, Bundle.open(quantized_bundle).variant(request.param)


@pytest.fixture
def bundle(calibrated_bundle, tmp_path) -> Path:
    """A copy of `calibrated_bundle`, to be changed."""
    return Path(shutil.copytree(calibrated_bundle, tmp_path / "bundle"))


@pytest.fixture
def uncalibrated(float_bundle, tmp_path) -> Path:
    """A copy of `float_bundle`, to be changed."""
    return Path(shutil.copytree(float_bundle, tmp_path / "bundle"))
