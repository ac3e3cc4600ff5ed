"""Bundles and machines to plan for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden_cases import golden_case

from pargo_export.bundle import (
    Bundle,
    BundleTransaction,
    EngineDevice,
    Evidence,
    Limits,
    Quantization,
    Variant,
)
from pargo_export.deploy import CheckpointOptions, DeployResult, MachineFacts, deploy_engine
from pargo_export.engine.options import EngineOptions
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.trt import find_obstacle

GPUS = {
    "none": EngineDevice(platform="linux-x86_64"),
    "pc": EngineDevice(name="RTX 4090", compute_capability="8.9", platform="linux-x86_64"),
    "orin": EngineDevice(
        name="Orin", compute_capability="8.7", platform="linux-aarch64", jetson="AGX Orin", l4t="36.4.3"
    ),
    "thor": EngineDevice(
        name="Thor", compute_capability="11.0", platform="linux-aarch64", jetson="AGX Thor", l4t="38.4.0"
    ),
}


@pytest.fixture
def machine() -> Callable[..., MachineFacts]:
    """Return a function that describes a machine: its GPU, the TensorRTs installed, the packages missing."""

    def describe(gpu: str = "none", *installed: str, **missing: tuple[str, ...]) -> MachineFacts:
        return MachineFacts(
            device=GPUS[gpu],
            obstacles={
                name: None if name in installed else f"{name} is not installed"
                for name in ("tensorrt", "rtx")
            },
            missing=missing,
        )

    return describe


@pytest.fixture(scope="session")
def calibrated(exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with the variants fp32, bf16 and external and a calibration on noise; do not write to it."""
    path = Path(shutil.copytree(exported_bundle, tmp_path_factory.mktemp("calibrated") / "bundle"))
    options = CalibrateOptions(allow_random=True, num_images=4, num_evaluation=1, threads=1)
    calibrate(path, "random", options)
    return path


@pytest.fixture
def bundle(calibrated: Path, tmp_path: Path) -> Path:
    """Return a copy of `calibrated`."""
    return Path(shutil.copytree(calibrated, tmp_path / "bundle"))


@pytest.fixture
def uncalibrated(exported_bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle without a calibration."""
    return Path(shutil.copytree(exported_bundle, tmp_path / "bundle"))


@pytest.fixture
def add_variants() -> Callable[..., None]:
    """Return a function that adds variants to a bundle, copies of `fp32` that say they are something else."""

    def add(path: Path, **changes: dict[str, Any]) -> None:
        base = Bundle.open(path).variant("fp32")
        with BundleTransaction(path) as transaction:
            made = [_variant(base, name, **fields) for name, fields in changes.items()]
            transaction.commit(transaction.previous.merged(variants=made))

    return add


def _variant(base: Variant, name: str, *, dialect: str = "", failed: bool = False, **fields: Any) -> Variant:
    update: dict[str, Any] = {"name": name.replace("_", "-"), "target": "cuda", **fields}
    if dialect:
        update["quantization"] = Quantization(
            base="fp32", float_precision="float16", dialect=dialect, quantized=("tower.blocks.0.mlp.down",)
        )
    if failed:
        update["evidence"] = Evidence(stages=(), limits=Limits(), passed=False, reference="a test")
    return base.model_copy(update=update)


@pytest.fixture(scope="session")
def deployed(exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> DeployResult:
    """Deploy a checkpoint into a copy of `exported_bundle`: int8-weight-only and FP16 engines for 8.9; do not write to it.

    On a machine without a GPU, which has TensorRT for RTX; there is something of everything to be done.
    """
    if obstacle := find_obstacle("rtx"):
        pytest.skip(obstacle)
    path = Path(shutil.copytree(exported_bundle, tmp_path_factory.mktemp("deployed") / "bundle"))
    case = golden_case("pargo_w2")
    return deploy_engine(
        case.checkpoint,
        output=path,
        facts=MachineFacts(GPUS["none"], {"tensorrt": "not here", "rtx": None}),
        precision="int8-weight-only",
        target="rtx:sm89",
        keep="fastest",
        calibration_data="random",
        allow_random=True,
        checkpoint=CheckpointOptions(config=str(case.config)),
        max_batch=4,
        engine=EngineOptions(optimization_level=0),
        threads=1,
    )


@pytest.fixture
def built(deployed: DeployResult, tmp_path: Path) -> Path:
    """Return a copy of the bundle of `deployed`."""
    return Path(shutil.copytree(deployed.bundle.path, tmp_path / "bundle"))
