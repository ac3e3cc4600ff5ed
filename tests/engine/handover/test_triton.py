"""Model repositories for Triton; the configuration is parsed with Triton's own schema."""

from __future__ import annotations

import onnxruntime
import pytest
from bundle.samples import make_variant

from pargo_export.bundle import BatchProfile
from pargo_export.engine.handover import hand_over_triton
from pargo_export.engine.handover.triton_config import TritonModel
from pargo_export.errors import ConfigError, EngineError, IntegrityError
from pargo_export.signature import Signature, TensorSpec

PROFILES = (
    BatchProfile(min_batch=1, opt_batch=1, max_batch=1),
    BatchProfile(min_batch=2, opt_batch=4, max_batch=8),
)
CONFIGURATION = """name: "fp32-sm87"
backend: "tensorrt"
max_batch_size: 4
input [
  { name: "pixels" data_type: TYPE_FP32 dims: [ 3, 28, 28 ] }
]
output [
  { name: "visual_tokens" data_type: TYPE_FP32 dims: [ 1, 16 ] }
]
instance_group [
  { count: 1 kind: KIND_GPU }
]
dynamic_batching {
  max_queue_delay_microseconds: 1000
}
model_warmup [
  { name: "zeros" batch_size: 4 inputs { key: "pixels" value { data_type: TYPE_FP32 dims: [ 3, 28, 28 ] zero_data: true } } }
]
"""


@pytest.fixture
def parse():
    """Return a function that parses a configuration with the classes made from Triton's `model_config.proto`."""
    pytest.importorskip("grpc", reason="tritonclient[grpc] is not installed; it has Triton's schema")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    return lambda text: text_format.Parse(text, schema.ModelConfig())


def test_engine(bundle, tmp_path):
    """An engine becomes `model.plan` of the TensorRT backend, with everything that the server asks for."""
    result = hand_over_triton(bundle, tmp_path / "models", engine="fp32-sm87")
    assert result.files == ("README.md", "fp32-sm87/1/model.plan", "fp32-sm87/config.pbtxt", "handover.json")
    assert (result.path / "fp32-sm87/1/model.plan").read_bytes() == b"serialized engine"
    assert (result.path / "fp32-sm87/config.pbtxt").read_text() == CONFIGURATION
    assert result.notes == ("needs TensorRT 10.3.0.30 and a GPU of compute capability 8.7",)
    readme = (result.path / "README.md").read_text()
    assert "docker run --rm --gpus=1 -p 8000:8000" in readme
    assert "with TensorRT 10.3.0.30: an engine runs in the version that built it" in readme


def test_graph(bundle, tmp_path, parse):
    """A graph becomes `model.onnx` of the ONNX Runtime backend, with its weights under the name that it knows."""
    result = hand_over_triton(bundle, tmp_path / "models", name="pargo", num_instances=2, warmup=False)
    assert result.files == (
        "README.md",
        "handover.json",
        "pargo/1/fp32.onnx.data",
        "pargo/1/model.onnx",
        "pargo/config.pbtxt",
    )
    onnxruntime.InferenceSession(result.path / "pargo/1/model.onnx", providers=["CPUExecutionProvider"])
    found = parse((result.path / "pargo/config.pbtxt").read_text())
    assert (found.name, found.backend, found.max_batch_size) == ("pargo", "onnxruntime", 4)
    assert found.instance_group[0].count == 2
    assert found.instance_group[0].kind == found.instance_group[0].KIND_CPU  # the variant is for CPUs
    assert not found.model_warmup


def test_schema(parse):
    """Triton's schema takes the configuration, and the values arrive where they belong."""
    model = TritonModel("pargo", "tensorrt", make_variant(), PROFILES, queue_delay_us=250)
    found = parse(model.to_pbtxt())
    assert (found.max_batch_size, list(found.input[0].dims), list(found.output[0].dims)) == (
        8,
        [3, 28, 28],
        [1, 16],
    )
    assert (found.input[0].name, found.output[0].name) == ("pixels", "visual_tokens")
    assert found.input[0].data_type == type(found.input[0].data_type)(11)  # TYPE_FP32
    assert list(found.instance_group[0].profile) == ["0", "1"]
    assert found.instance_group[0].kind == found.instance_group[0].KIND_GPU
    assert list(found.dynamic_batching.preferred_batch_size) == [4]
    assert found.dynamic_batching.max_queue_delay_microseconds == 250
    warmup = found.model_warmup[0]
    assert (warmup.batch_size, list(warmup.inputs["pixels"].dims)) == (8, [3, 28, 28])
    assert warmup.inputs["pixels"].zero_data


def test_fixed_batch(parse):
    """Without a dynamic batch axis `max_batch_size` is 0, the sizes are complete, and nothing is batched."""
    signature = Signature(
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=(1, 3, 28, 28)),),
        outputs=(TensorSpec(name="visual_tokens", dtype="bfloat16", shape=(1, 1, 16)),),
    )
    profiles = (BatchProfile(min_batch=1, opt_batch=1, max_batch=1),)
    found = parse(TritonModel("pargo", "tensorrt", make_variant(signature=signature), profiles).to_pbtxt())
    assert (found.max_batch_size, list(found.input[0].dims)) == (0, [1, 3, 28, 28])
    assert (found.input[0].data_type, found.output[0].data_type) == (2, 14)  # TYPE_UINT8, TYPE_BF16
    assert not found.HasField("dynamic_batching")
    assert list(found.instance_group[0].profile) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"profiles": (BatchProfile(min_batch=2, opt_batch=2, max_batch=4),)},
            "the smallest batch of 'fp32-sm87' is 2",
        ),
        ({"flavor": "rtx"}, "TensorRT for RTX, which Triton does not run; .* --variant fp32"),
    ],
)
def test_engines_that_triton_does_not_run(tmp_path, write, changes, found):
    """Engines of RTX, and those without a batch of one, are refused before anything is written."""
    write(tmp_path / "bundle", engine=changes)
    with pytest.raises(EngineError, match=found):
        hand_over_triton(tmp_path / "bundle", tmp_path / "models", engine="fp32-sm87")
    assert not (tmp_path / "models").exists()


def test_plugins(tmp_path, write, library):
    """A plugin library comes along and is loaded by the command; a plugin in Python cannot be."""
    write(tmp_path / "library", engine={"plugins": (library,)})
    result = hand_over_triton(tmp_path / "library", tmp_path / "models", engine="fp32-sm87")
    assert "fp32-sm87/plugins/libpargo.so" in result.files
    assert "-e LD_PRELOAD=/models/fp32-sm87/plugins/libpargo.so" in (result.path / "README.md").read_text()
    package = {"kind": "python", "file": None, "package": "pargo_kernels 0.4.0"}
    write(tmp_path / "python", engine={"plugins": (library.model_copy(update=package),)})
    with pytest.raises(
        EngineError, match=r"pargo_kernels 0.4.0 registers in Python, which Triton cannot load"
    ):
        hand_over_triton(tmp_path / "python", tmp_path / "more", engine="fp32-sm87")


@pytest.mark.parametrize(
    "choice", [{"name": "../up"}, {"name": ""}, {"num_instances": 0}, {"queue_delay_us": -1}]
)
def test_choices_out_of_range(bundle, tmp_path, choice):
    """A name that leads elsewhere, no instance, or a negative delay."""
    if choice == {"name": ""}:
        assert hand_over_triton(bundle, tmp_path / "models", **choice).variant == "fp32"  # the default
        return
    with pytest.raises(ConfigError, match="expected"):
        hand_over_triton(bundle, tmp_path / "models", **choice)
    assert not (tmp_path / "models").exists()


def test_type_that_triton_has_not():
    """It says which types there are."""
    signature = Signature(inputs=(TensorSpec(name="x", dtype="float8", shape=("batch", 3)),), outputs=())
    model = TritonModel("pargo", "tensorrt", make_variant(signature=signature), PROFILES)
    with pytest.raises(EngineError, match="x is float8, which Triton has no type for; it has float32"):
        model.to_pbtxt()


def test_changed_engine(bundle, tmp_path):
    """A changed engine is refused, and no repository appears."""
    (bundle / "engines/fp32-sm87.engine").write_bytes(b"serialized_engine")
    with pytest.raises(IntegrityError):
        hand_over_triton(bundle, tmp_path / "models", engine="fp32-sm87")
    assert sorted(item.name for item in tmp_path.iterdir() if item.name.startswith((".", "models"))) == []
