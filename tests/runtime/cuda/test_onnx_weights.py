"""Weights from the ONNX file of a variant are those of the deploy module."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from golden_cases import golden_model
from rewrite.random_models import random_config, random_model

from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError
from pargo_export.graph.export import export_onnx
from pargo_export.graph.options import ExportOptions
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.registry import select_rewrites
from pargo_export.runtime.cuda.onnx_weights import read_weights


def deployed(model: VisualFrontEnd, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the tensors of the deploy module that an export for `cuda` makes."""
    module, _ = deploy_module(model, select_rewrites("cuda"), "fused", dtype)
    return module.state_dict() | dict(module.named_buffers())


def assert_same_weights(weights, expected):
    """Every tensor that a program reads is there, bit for bit."""
    for name, tensor in expected.items():
        if name.endswith(".true_channels"):
            continue  # of the norm that is written out; the program knows the width
        found = weights.find(name[name.index(".rope.") :]) if ".rope." in name else weights.require(name)
        assert found.dtype == tensor.dtype, name
        assert torch.equal(found, tensor), name


def test_every_weight_is_read(golden_export):
    """All kinds of projectors, weights beside the graph in a file that is mapped."""
    case, bundle = golden_export
    path = bundle.file(bundle.variant("fp16").graph)
    assert path.with_name(f"{path.name}.data").exists()
    assert_same_weights(read_weights(path), deployed(golden_model(case.name), torch.float16))


def test_bfloat16_weights_are_read(cuda_bundle):
    """NumPy has no such type: the bits arrive all the same."""
    bundle = Bundle.open(cuda_bundle)
    weights = read_weights(bundle.file(bundle.variant("bf16").graph))
    assert_same_weights(weights, deployed(golden_model("pargo_w2"), torch.bfloat16))


def test_equal_tensors_are_stored_once_and_found_by_every_reader(tmp_path):
    """An untrained model has many equal norms and biases; the graph keeps one of each, under one name."""
    config = random_config(vision={"num_layers": 1}, num_layers=2, num_partial_tokens=18)
    model = random_model(config)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.fill_(0.5 if name.endswith("weight") else 0.25)
    result = export_onnx(model, tmp_path, ExportOptions("float16", target="cuda", max_batch=1))
    path = result.bundle.file(result.variant.graph)
    expected = deployed(model, torch.float16)
    stored = set(ir.load(path).graph.initializers)
    assert "projector.layers.1.feed_forward.norm.weight" in set(expected) - stored, "the test is void"
    assert_same_weights(read_weights(path), expected)


def test_quantized_weights_are_read(cuda_bundle):
    """8-bit numbers, scales and activation scales are those of the graph; kept linears stay float."""
    bundle = Bundle.open(cuda_bundle)
    for name, dtype in (("fp8", torch.float8_e4m3fn), ("int8-kept", torch.int8)):
        variant = bundle.variant(name)
        path = bundle.file(variant.graph)
        weights, graph = read_weights(path), ir.load(path).graph
        assert variant.quantization.quantized
        for linear in variant.quantization.quantized:
            found = weights.quantized(linear)
            stored = graph.initializers[f"{linear}.weight/quantized"].const_value.numpy()
            scales = graph.initializers[f"{linear}.weight/scale"].const_value.numpy()
            assert found.values.dtype == dtype
            assert np.array_equal(found.values.float().numpy(), stored.astype(np.float32).T)
            assert np.array_equal(found.scales.numpy(), scales.astype(np.float32))
            assert found.activation_scale.item() > 0
            assert f"{linear}.weight" not in weights
        for linear in variant.quantization.kept:
            assert weights.quantized(linear) is None
            assert weights.require(f"{linear}.weight").dtype == torch.float16


def _save_product(path, *, activation_dtype):
    """Write a graph of one product with an 8-bit weight; `None` leaves the activation in float."""
    x = ir.val("x", ir.DataType.FLOAT16, [1, 2, 4])
    constants = {
        "weight/quantized": np.ones((4, 3), np.int8),
        "weight/scale": np.ones(3, np.float16),
        "weight/zero_point": np.zeros(3, np.int8),
        "scale": np.asarray(0.5, np.float16),
        "zero_point": np.asarray(0, activation_dtype or np.int8),
    }
    values = {
        name: ir.val(name, const_value=ir.tensor(array, name=name)) for name, array in constants.items()
    }
    weight = ir.node(
        "DequantizeLinear", [values[f"weight/{part}"] for part in ("quantized", "scale", "zero_point")]
    )
    nodes, activation = [weight], x
    if activation_dtype is not None:
        affine = [values["scale"], values["zero_point"]]
        quantize = ir.node("QuantizeLinear", [x, *affine])
        restore = ir.node("DequantizeLinear", [quantize.outputs[0], *affine])
        nodes += [quantize, restore]
        activation = restore.outputs[0]
    product = ir.node("MatMul", [activation, weight.outputs[0]], name="tower.blocks.0.mlp.down/MatMul")
    graph = ir.Graph(
        [x],
        product.outputs,
        nodes=[*nodes, product],
        initializers=list(values.values()),
        opset_imports={"": 20},
        name="product",
    )
    ir.save(ir.Model(graph, ir_version=10), path)


def test_weights_of_a_single_product(tmp_path):
    """The smallest graph that is right is read."""
    _save_product(tmp_path / "graph.onnx", activation_dtype=np.int8)
    found = read_weights(tmp_path / "graph.onnx").quantized("tower.blocks.0.mlp.down")
    assert (found.values.shape, found.activation_scale.item()) == ((3, 4), 0.5)


@pytest.mark.parametrize(("dtype", "reason"), [(np.uint8, "zero point, for CPUs"), (None, "only its weight")])
def test_other_quantization_is_refused(tmp_path, dtype, reason):
    """Unsigned activations and weight-only products are not computed; the message names the linear."""
    _save_product(tmp_path / "graph.onnx", activation_dtype=dtype)
    with pytest.raises(BackendError, match=f"tower.blocks.0.mlp.down: .*{reason}"):
        read_weights(tmp_path / "graph.onnx")


def test_missing_weights_are_named(cuda_bundle):
    """A graph that this version does not export is not half understood."""
    bundle = Bundle.open(cuda_bundle)
    weights = read_weights(bundle.file(bundle.variant("fp16-encoder").graph))
    with pytest.raises(BackendError, match=r"no weight 'projector\.embedding\.value'.*export it again"):
        weights.require("projector.embedding.value")
    with pytest.raises(BackendError, match=r"no weight '\*\.nothing'"):
        weights.find(".nothing")


def test_file_that_is_no_graph(tmp_path):
    """One line that names the file."""
    path = tmp_path / "graph.onnx"
    with pytest.raises(BackendError, match=r"graph\.onnx cannot be read: .*export again"):
        read_weights(path)
    path.write_bytes(b"no graph" * 100)
    with pytest.raises(BackendError, match=r"graph\.onnx cannot be read: .*export again"):
        read_weights(path)
