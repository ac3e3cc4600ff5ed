"""A real engine of TensorRT for RTX, as far as a machine without a GPU can go: up to deserialization, which fails."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from pargo_export.bundle import Bundle, EngineDevice
from pargo_export.device.cuda_driver import find_driver_obstacle
from pargo_export.device.find import find_engine_device
from pargo_export.engine.build import build_engine
from pargo_export.errors import BackendError, IntegrityError
from pargo_export.runtime import Runtime, select
from pargo_export.runtime.backends.tensorrt import TENSORRT_RTX
from pargo_export.runtime.tensorrt.loading import LoadedEngine
from pargo_export.trt import load_tensorrt

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed; real engines are what is tested")
pytestmark = pytest.mark.skipif(find_driver_obstacle() is None, reason="there is a GPU: test_engine_gpu.py")

HERE = find_engine_device()
ADA = HERE.model_copy(update={"name": "RTX 4090", "compute_capability": "8.9"})


@pytest.fixture(scope="module")
def engine_bundle(exported_bundle, tmp_path_factory) -> Path:
    """A bundle with an engine for compute capability 8.9; do not write to it."""
    path = Path(shutil.copytree(exported_bundle, tmp_path_factory.mktemp("rtx") / "bundle"))
    build_engine(path, "bf16", flavor="rtx", capabilities=("8.9",), name="ada")
    return path


@pytest.fixture
def load(engine_bundle):
    """Return a function that loads the engine on a machine that is described."""

    def load(device: EngineDevice, path: Path = engine_bundle) -> LoadedEngine:
        bundle = Bundle.open(path)
        return LoadedEngine(
            bundle, bundle.manifest.engines["ada"], device=device, tensorrt=load_tensorrt("rtx")
        )

    return load


def test_tensorrt_says_why_it_cannot_load_it(load):
    """Everything fits but the machine, which has no GPU: TensorRT's own words, and a mend."""
    with pytest.raises(
        BackendError, match=r"TensorRT for RTX .* cannot load engine ada: .*CUDA.*; if memory ran out"
    ):
        load(ADA)


def test_engine_for_another_gpu_is_refused_before(load):
    """The preflight knows what TensorRT would find out late."""
    with pytest.raises(
        BackendError, match=r"engine ada: it was built for compute capability 8\.9, .* has 8\.6"
    ):
        load(ADA.model_copy(update={"compute_capability": "8.6"}))
    with pytest.raises(BackendError, match="this machine has no usable GPU"):
        load(HERE)


def test_changed_engine_never_reaches_tensorrt(load, engine_bundle, tmp_path):
    """One byte of a real engine."""
    path = Path(shutil.copytree(engine_bundle, tmp_path / "bundle"))
    file = path / "engines/ada.engine"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"engines/ada\.engine has sha256"):
        load(ADA, path)


def test_bundle_with_an_engine_opens_on_the_cpu(engine_bundle):
    """Without a GPU the engine is passed over, and by its name refused with the reason."""
    obstacle = find_driver_obstacle()
    with Runtime.open(engine_bundle) as runtime:
        assert runtime.engine is None
        assert runtime.backend in {"onnxruntime", "openvino"}
    with pytest.raises(BackendError, match="tensorrt-rtx: no NVIDIA driver is installed") as caught:
        Runtime.open(engine_bundle, engine="ada")
    assert obstacle is not None
    assert obstacle in str(caught.value)


def test_selection_asks_the_real_preflight(engine_bundle):
    """Past the missing driver the engine is refused for the missing GPU."""
    backend = dataclasses.replace(TENSORRT_RTX, find_obstacle=lambda: None)
    (refusal,) = select(Bundle.open(engine_bundle), backend="tensorrt-rtx", backends=[backend]).refusals
    assert refusal.startswith("tensorrt-rtx: engine ada: this machine has no usable GPU")
