"""EPContext models, as far as ONNX and ONNX Runtime judge them without the provider."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

from pargo_export.engine.handover import ep_context, hand_over_ep_context
from pargo_export.errors import BundleError, EngineError

PROVIDERS = {"fp32-sm87": "TensorrtExecutionProvider", "fp32-rtx": "NvTensorRTRTXExecutionProvider"}


def attributes(path):
    """Return the attributes of the only node of a model."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.domain, node.op_type) == ("com.microsoft", "EPContext")
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


@pytest.mark.parametrize("engine", PROVIDERS)
def test_engine_beside_the_model(bundle, tmp_path, engine):
    """The node names the engine by a path relative to the model, and the provider that is to run it."""
    result = hand_over_ep_context(bundle, tmp_path / "out", engine=engine)
    assert result.files == ("README.md", f"{engine}.engine", f"{engine}_ctx.onnx", "handover.json")
    assert (result.path / f"{engine}.engine").read_bytes() == b"serialized engine"
    found = attributes(result.path / f"{engine}_ctx.onnx")
    is_rtx = engine == "fp32-rtx"
    assert found == {
        "main_context": 1,
        "embed_mode": 0,
        "ep_cache_context": f"{engine}.engine".encode(),
        "ep_sdk_version": b"1.7.1.116" if is_rtx else b"10.3.0.30",
        "hardware_architecture": b"86,89" if is_rtx else b"87",
        "onnx_model_filename": b"fp32.onnx",
        "partition_name": engine.encode(),
        "source": PROVIDERS[engine].encode(),
    }
    assert PROVIDERS[engine] in (result.path / "README.md").read_text()


def test_inputs_and_outputs(bundle, tmp_path):
    """They are those of the variant, with the dynamic batch."""
    path = hand_over_ep_context(bundle, tmp_path / "out", engine="fp32-rtx").path / "fp32-rtx_ctx.onnx"
    graph = onnx.load(path).graph
    for value, name, shape in (
        (graph.input[0], "pixels", ["batch", 3, 28, 28]),
        (graph.output[0], "visual_tokens", ["batch", 1, 16]),
    ):
        dims = value.type.tensor_type.shape.dim
        assert (value.name, [axis.dim_param or axis.dim_value for axis in dims]) == (name, shape)
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_embedded_engine(bundle, tmp_path):
    """The engine may be the attribute itself; then it does not lie beside."""
    result = hand_over_ep_context(bundle, tmp_path / "out", engine="fp32-sm87", embed=True)
    assert result.files == ("README.md", "fp32-sm87_ctx.onnx", "handover.json")
    found = attributes(result.path / "fp32-sm87_ctx.onnx")
    assert (found["embed_mode"], found["ep_cache_context"]) == (1, b"serialized engine")


def test_engine_too_large_to_embed(bundle, tmp_path, monkeypatch):
    """An ONNX file holds two gigabytes."""
    monkeypatch.setattr(ep_context, "_MAX_EMBEDDED_BYTES", 16)
    with pytest.raises(
        EngineError, match="has 17 bytes, an ONNX file holds 2 GiB; leave it beside the model"
    ):
        hand_over_ep_context(bundle, tmp_path / "out", engine="fp32-sm87", embed=True)


def test_folder_for_the_engine(bundle, tmp_path):
    """The engine may lie in a folder below the model."""
    result = hand_over_ep_context(
        bundle, tmp_path / "out", engine="fp32-sm87", cache_path="cache/orin.engine"
    )
    assert "cache/orin.engine" in result.files
    assert attributes(result.path / "fp32-sm87_ctx.onnx")["ep_cache_context"] == b"cache/orin.engine"


@pytest.mark.parametrize("cache", ["/x.engine", "../x.engine", "a/../x.engine", "a..b.engine", "a\\b.engine"])
def test_paths_that_onnx_runtime_refuses(bundle, tmp_path, cache):
    """Absolute paths, and two dots anywhere, are refused as the providers do."""
    with pytest.raises((BundleError, EngineError), match="refuse"):
        hand_over_ep_context(bundle, tmp_path / "out", engine="fp32-sm87", cache_path=cache)
    assert not (tmp_path / "out").exists()


def test_onnx_runtime_without_the_provider(bundle, tmp_path):
    """ONNX Runtime knows the operator, reads which provider it is for, and says that it has none."""
    path = hand_over_ep_context(bundle, tmp_path / "out", engine="fp32-rtx").path / "fp32-rtx_ctx.onnx"
    with pytest.raises(Exception, match=r"EPContext") as caught:
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert "NOT_IMPLEMENTED" in str(caught.value)


def test_plugins_are_noted(tmp_path, write, library):
    """An engine that needs a plugin says so."""
    write(tmp_path / "bundle", engine={"plugins": (library,)})
    result = hand_over_ep_context(tmp_path / "bundle", tmp_path / "out", engine="fp32-sm87")
    assert result.notes == (
        "the engine needs plugins (engines/plugins/libpargo.so), which must be loaded before the session is made",
    )
