"""What the backend refuses, and whether this machine can use it."""

from __future__ import annotations

import sys
import types

import pytest
from golden_cases import golden_model

from pargo_export.bundle import Bundle, Quantization
from pargo_export.device import cuda_driver
from pargo_export.errors import BackendError, ConfigError
from pargo_export.runtime import Runtime
from pargo_export.runtime.backends import cuda as cuda_backend
from pargo_export.runtime.backends.cuda import CUDA
from pargo_export.runtime.cuda.support import find_missing_rewrite, find_variant_refusal

FOR_GPUS = Quantization(base="fp16", float_precision="float16", quantized=("tower.blocks.0.mlp.down",))


@pytest.fixture
def variant(bundle_path):
    """Return a float variant with the rewrites of an export."""
    return Bundle.open(bundle_path).variant("fp32").model_copy(update={"precision": "float16"})


@pytest.fixture
def driver(monkeypatch):
    """Return a function that pretends to be a GPU of a compute capability."""

    def set_capability(major, minor):
        def get_attribute(pointer, attribute, _):
            pointer._obj.value = {75: major, 76: minor}[attribute]
            return 0

        def get_count(pointer):
            pointer._obj.value = 1
            return 0

        library = types.SimpleNamespace(
            cuInit=lambda _: 0,
            cuDeviceGetCount=get_count,
            cuDeviceGet=lambda *_: 0,
            cuDeviceGetAttribute=get_attribute,
        )
        monkeypatch.setattr(cuda_driver.ctypes, "CDLL", lambda _: library)

    return set_capability


def fake_torch(monkeypatch, *, cuda="13.0", available=True):
    """Put a stand-in for torch in place, as it is installed somewhere else."""
    module = types.ModuleType("torch")
    module.__spec__ = types.SimpleNamespace(name="torch")
    module.__version__ = "2.11.0"
    module.version = types.SimpleNamespace(cuda=cuda)
    module.cuda = types.SimpleNamespace(is_available=lambda: available)
    monkeypatch.setitem(sys.modules, "torch", module)


def test_compute_capability_comes_from_the_driver(driver):
    """Without a framework and without a context on the GPU."""
    driver(8, 9)
    assert cuda_driver.find_compute_capability() == (8, 9)


@pytest.mark.skipif(cuda_driver.find_driver_obstacle() is None, reason="there is a GPU")
def test_machine_without_gpu_names_the_cpu_backends(bundle_path):
    """The obstacle comes before any import, and says what to use instead."""
    assert cuda_driver.find_compute_capability() is None
    with pytest.raises(
        BackendError, match=r"cuda: no .*; on a CPU use the backend 'onnxruntime' or 'openvino'"
    ):
        Runtime.open(bundle_path, backend="cuda")


def test_old_gpu_is_sent_to_another_backend(driver):
    """Turing has no bfloat16 and no asynchronous copies."""
    driver(7, 5)
    assert CUDA.find_obstacle() == (
        "the GPU has compute capability 7.5, the kernels need 8.0; use the backend 'onnxruntime-cuda'"
    )


@pytest.mark.parametrize("name", ["torch", "triton", "onnx_ir"])
def test_missing_packages_name_the_extra(driver, monkeypatch, name):
    """Each is looked for before torch is imported."""
    driver(9, 0)
    monkeypatch.setitem(sys.modules, name, None)
    assert CUDA.find_obstacle() == f"{name} not installed: pip install 'pargo-export[cuda]'"


def test_torch_without_cuda(driver, monkeypatch):
    """A CPU build of torch is told from one whose driver is too old."""
    driver(9, 0)
    fake_torch(monkeypatch, cuda=None)
    assert "torch 2.11.0 is built without CUDA: install one" in CUDA.find_obstacle()
    fake_torch(monkeypatch, available=False)
    assert "torch 2.11.0, built for CUDA 13.0, cannot use the GPU" in CUDA.find_obstacle()
    fake_torch(monkeypatch)
    assert CUDA.find_obstacle() is None


def test_torch_that_does_not_load(driver, monkeypatch):
    """A broken installation is an obstacle like any other: another backend is taken."""
    driver(9, 0)
    fake_torch(monkeypatch)

    def fail(name):
        raise OSError(f"lib{name}_cuda.so: cannot open shared object file")

    monkeypatch.setattr(cuda_backend.importlib, "import_module", fail)
    assert "torch is installed but cannot be imported (libtorch_cuda.so: cannot open" in CUDA.find_obstacle()


@pytest.mark.parametrize(
    ("capability", "ok"), [((8, 0), False), ((8, 7), False), ((8, 9), True), ((9, 0), True)]
)
def test_fp8_depends_on_the_gpu(driver, variant, capability, ok):
    """Other variants of the bundle run on older GPUs."""
    driver(*capability)
    assert CUDA.find_refusal(variant) is None
    fp8 = variant.model_copy(update={"precision": "fp8", "quantization": FOR_GPUS})
    refusal = CUDA.find_refusal(fp8)
    assert (refusal is None) is ok
    assert (
        ok
        or f"need compute capability 8.9 (Ada, Hopper, Blackwell), this GPU has {capability[0]}.{capability[1]}"
        in refusal
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "float32"}, "tensor cores multiply halves; export with --precision fp16"),
        ({"precision": "int8_weight_only"}, "no product of 8-bit weights with float activations"),
        ({"precision": "nvfp4"}, "no NVFP4"),
        ({"precision": "int8"}, "does not say how it was quantized"),
        (
            {"precision": "int8", "quantization": FOR_GPUS.model_copy(update={"dialect": "cpu"})},
            "zero points, for CPUs .*--int8 --target cuda",
        ),
        (
            {"precision": "int8", "quantization": FOR_GPUS.model_copy(update={"float_precision": "float32"})},
            "what is not quantized is float32, .*--float-precision fp16",
        ),
        ({"rewrites": ()}, "without fold-class-token, .*pargo-export onnx --target cuda"),
    ],
)
def test_variants_are_refused_with_the_way_out(variant, changes, reason):
    """Before anything is loaded."""
    import re

    assert CUDA.find_refusal(variant) is None
    assert re.search(reason, CUDA.find_refusal(variant.model_copy(update=changes)))


def test_int8_with_halves_is_taken(variant):
    """Symmetric activations, halves around them."""
    assert (
        find_variant_refusal(variant.model_copy(update={"precision": "int8", "quantization": FOR_GPUS}))
        is None
    )


def test_rewrites_of_the_projector_depend_on_its_kind():
    """One query layer has no self-attention left to merge; a linear projector has no query layer at all."""
    pargo = golden_model("pargo_w2").config.projector
    linear = golden_model("linear").config.projector
    wanted = ("merge-cross-kv", "precompute-first-layer")
    assert find_missing_rewrite("projector", (), linear) is None
    assert find_missing_rewrite("projector", wanted, pargo.model_copy(update={"num_layers": 1})) is None
    assert "without merge-qkv, " in find_missing_rewrite("projector", wanted, pargo)
    assert "without merge-cross-kv, precompute-first-layer, merge-qkv" in find_missing_rewrite(
        "projector", (), pargo
    )
    assert find_missing_rewrite("projector", ()) is None


def test_streams_must_be_positive(bundle_path):
    """Zero streams would wait for ever."""
    with pytest.raises(ConfigError, match="streams: found 0, expected at least 1"):
        Runtime.open(bundle_path, streams=0)
