"""Writing a graph: described, checked, the same bytes for the same input."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph.exports import MICRO, run
from onnx import TensorProto, helper, numpy_helper

from pargo_export import __version__
from pargo_export.config import ModelConfig
from pargo_export.errors import ExportError
from pargo_export.graph import save
from pargo_export.graph.component import component_signature
from pargo_export.graph.options import ExportOptions
from pargo_export.graph.save import describe, save_graph


def small_model():
    """Return a graph with a large and a small weight."""
    weight = numpy_helper.from_array(np.arange(4 * 300, dtype=np.float32).reshape(4, 300), "weight")
    bias = numpy_helper.from_array(np.ones(1, np.float32), "bias")
    nodes = [
        helper.make_node("MatMul", ["pixel_values", "weight"], ["product"], name="first"),
        helper.make_node("Add", ["product", "bias"], ["visual_tokens"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("visual_tokens", TensorProto.FLOAT, [None, 300])],
        initializer=[weight, bias],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def model() -> ir.Model:
    """Return the graph as onnx_ir holds it."""
    return ir.from_proto(small_model())


def test_small_models_are_one_file(model, tmp_path):
    """Weights are inside, and the file runs."""
    path = tmp_path / "fp32.onnx"
    assert save_graph(model, path) == [path]
    assert [each.name for each in tmp_path.iterdir()] == ["fp32.onnx"]
    assert run(path, np.ones((1, 4), np.float32))[0][0, 0] == 0 + 300 + 600 + 900 + 1


def test_large_models_have_their_weights_beside(monkeypatch, model, tmp_path):
    """Large tensors move into `<name>.data`, small ones stay readable inside; the graph names the file alone."""
    monkeypatch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", 4000)
    path = tmp_path / "fp32.onnx"
    assert save_graph(model, path) == [path, tmp_path / "fp32.onnx.data"]
    proto = onnx.load(path, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    location = {entry.key: entry.value for entry in tensors["weight"].external_data}["location"]
    assert location == "fp32.onnx.data"
    assert not tensors["bias"].external_data
    assert run(path, np.ones((1, 4), np.float32))[0][0, 0] == 1801


@pytest.mark.parametrize(("threshold", "files"), [(4804, 1), (4803, 2)])
def test_the_threshold_counts_all_weights(monkeypatch, model, tmp_path, threshold, files):
    """At the threshold the graph is still one file, one byte above it is two."""
    monkeypatch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", threshold)
    assert len(save_graph(model, tmp_path / "fp32.onnx")) == files


def test_protobuf_never_gets_near_its_limit():
    """The threshold is far below the 2 GiB that a protobuf message can hold."""
    assert 2**20 <= save.EXTERNAL_DATA_ABOVE_BYTES <= 2**30


@pytest.mark.parametrize("threshold", [0, 2**20], ids=["external", "inside"])
def test_same_model_same_bytes(monkeypatch, tmp_path, threshold):
    """Both files are the same every time."""
    monkeypatch.setattr(save, "EXTERNAL_DATA_ABOVE_BYTES", threshold)
    contents = []
    for run_number in (1, 2):
        folder = tmp_path / str(run_number)
        folder.mkdir()
        files = save_graph(ir.from_proto(small_model()), folder / "fp32.onnx")
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]


def test_an_invalid_graph_is_an_export_error(tmp_path):
    """The checker's finding becomes one of our errors."""
    model = ir.from_proto(small_model())
    model.graph[1].replace_input_with(1, ir.Value(name="missing"))
    with pytest.raises(ExportError, match="the exported graph is not valid ONNX: "):
        save_graph(model, tmp_path / "fp32.onnx")


def test_shapes_that_contradict_are_an_export_error(tmp_path):
    """Strict shape inference is part of the check."""
    model = ir.from_proto(small_model())
    model.graph.outputs[0].shape = ir.Shape([None, 299])
    with pytest.raises(ExportError, match="the exported graph is not valid ONNX: "):
        save_graph(model, tmp_path / "fp32.onnx")


def test_description_in_the_graph(model):
    """Producer, configuration, form, target, rewrites, and a sentence on every input and output."""
    options = ExportOptions(precision="fp16", target="cuda")
    describe(model, MICRO, options, component_signature(MICRO, options), ["merge-qkv", "pad-swiglu"])
    proto = ir.to_proto(model)
    assert (proto.producer_name, proto.producer_version) == ("pargo-export", __version__)
    assert proto.graph.name == "pargo-all"
    for word in ("pargo", "float16", "fused", "cuda"):
        assert word in proto.doc_string
    assert proto.graph.doc_string == proto.doc_string
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    config = metadata.pop("pargo.config")
    assert ModelConfig.parse(json.loads(config), source="metadata") == MICRO
    assert metadata == {
        "pargo.attention": "fused",
        "pargo.component": "all",
        "pargo.precision": "float16",
        "pargo.rewrites": "merge-qkv,pad-swiglu",
        "pargo.target": "cuda",
    }
    assert proto.graph.input[0].doc_string.startswith("RGB pixels, normalised")
    assert proto.graph.output[0].doc_string.startswith("Visual tokens in the embedding space")
