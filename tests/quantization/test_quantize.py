"""A calibrated bundle in, measured variants out: what is in them and what the manifest says of them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from bundle.samples import files_below
from onnx import TensorProto, numpy_helper
from quantization.samples import QUANTIZATIONS
from tolerances import TOLERANCES

from pargo_calibration import AttentionRule, load_recipe
from pargo_export.bundle import Bundle
from pargo_export.graph.comparison import find_failures
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.measure import load_evaluation
from pargo_export.quantization.options import ACCURACY_LIMITS, QuantizeOptions
from pargo_export.quantization.quantize import quantize
from pargo_export.runtime import Runtime

PATCHES = "tower.patch_embedding"
SCORES = [f"tower.blocks.{index}.attention.core" for index in range(3)]
STAGES = {"image_features", *(f"query_layer_{layer}" for layer in range(4)), "visual_tokens"}
HALF = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float32": TensorProto.FLOAT}
# Lowest mean cosine over stages and images; measured: see docs/numerics.md.
ACCURATE = {"int8": 0.995, "int8_weight_only": 0.999, "fp8": 0.99, "float16": 0.9999, "bfloat16": 0.999}


def graph_of(path, variant):
    """Return the graph of a variant, weights included."""
    return onnx.load(path / variant.graph)


def readers_of(model, name):
    """Return the nodes that read a value."""
    return [node for node in model.graph.node if name in node.input]


def quantize_everything():
    """Return a recipe without exceptions."""
    return load_recipe("int8").model_copy(update={"name": "everything", "keep": ()})


def test_every_linear_is_quantized_or_has_a_reason(quantized):
    """Both lists together are the linears of the graph, and for CPUs the tower's attentions."""
    path, variant = quantized
    record = variant.quantization
    base = Bundle.open(path).variant(record.base)
    paths = [linear.path for linear in find_linears(ir.load(path / base.graph))]
    if variant.precision in {"float16", "bfloat16"}:
        assert (record.quantized, record.kept, record.smoothed) == ((), {}, ())
        return
    paths += SCORES if variant.name == "int8-cpu" else []
    assert Counter([*record.quantized, *record.kept]) == Counter(paths)
    assert set(record.kept) == {PATCHES}
    assert "three channels" in record.kept[PATCHES]
    expected = 14 if variant.precision == "int8" else 0
    assert len(record.smoothed) == expected
    assert set(record.smoothed) <= set(record.quantized)


def test_graph_holds_what_the_manifest_says(quantized):
    """Each quantized linear has an 8-bit weight and, but for weights only, an 8-bit activation of the dialect."""
    path, variant = quantized
    model = graph_of(path, variant)
    onnx.checker.check_model(model, full_check=True)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    record = variant.quantization
    types = {"int8": TensorProto.INT8, "int8_weight_only": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
    activation = types.get(variant.precision)
    if record.dialect == "cpu":
        activation = TensorProto.UINT8
    found, num_weights = set(), 0
    for node in model.graph.node:
        weight = producers.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        num_weights += 1
        found.add(node.name.rpartition("/")[0])
        assert constants[weight.input[0]].data_type == types[variant.precision]
        assert constants[weight.input[1]].data_type == HALF[record.float_precision]
        assert not numpy_helper.to_array(constants[weight.input[2]]).any()
        restored = producers.get(node.input[0])
        if variant.precision == "int8_weight_only":
            assert restored is None or restored.op_type != "DequantizeLinear"
            continue
        assert restored.op_type == "DequantizeLinear"
        scale, zero = (constants[name] for name in restored.input[1:])
        assert (scale.data_type, zero.data_type) == (HALF[record.float_precision], activation)
        assert len(scale.dims) == 0
        if record.dialect == "tensorrt":  # nothing else is accepted there
            assert numpy_helper.to_array(zero).astype(np.float32) == 0
    assert found == set(record.quantized) - set(SCORES)
    operators = Counter(node.op_type for node in model.graph.node)
    num_activations = operators["QuantizeLinear"]
    assert operators["DequantizeLinear"] == num_activations + num_weights
    quantizers = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizers) == len(set(quantizers))  # one for each tensor


def test_evidence_covers_every_stage_and_image(quantized):
    """Each evaluation image at each stage, within the limits of the precision, measured on a float32 variant."""
    path, variant = quantized
    bundle = Bundle.open(path)
    images = load_evaluation(bundle, bundle.manifest.calibrations["default"])
    evidence = variant.evidence
    measured = {(item.stage, item.source) for item in evidence.stages}
    assert measured == {(stage, name) for stage in STAGES for name in images.names}
    assert len(evidence.stages) == len(measured) == 24
    assert evidence.passed
    assert evidence.limits == ACCURACY_LIMITS[variant.precision]
    assert find_failures(evidence.stages, evidence.limits) == []
    assert min(item.mean_cosine for item in evidence.stages) >= ACCURATE[variant.precision]
    assert max(item.mean_cosine for item in evidence.stages) < 1
    assert "float32" in evidence.reference
    assert any("bfloat16 was emulated" in note for note in evidence.notes) == (
        variant.quantization.float_precision == "bfloat16"
    )
    assert any("FP8 was emulated" in note for note in evidence.notes) == (variant.precision == "fp8")


def test_manifest_describes_the_variant(quantized):
    """Precision, dialect, base, target, files with their parents, and nothing else changes."""
    path, variant = quantized
    bundle = Bundle.open(path)
    choices = QUANTIZATIONS[variant.name]
    options = QuantizeOptions(**choices)
    record = variant.quantization
    assert (variant.precision, variant.target) == (options.precision, options.target)
    assert (record.dialect, record.float_precision) == (options.dialect, options.resolved_float_precision)
    base = bundle.variant(record.base)
    expected = {"int8-bf16": "bf16", "bf16-converted": "fp32"}
    assert record.base == expected.get(variant.name, "fp32" if options.target == "cpu" else "fp32-cuda")
    kept = ("component", "attention", "input", "max_batch", "rewrites", "signature")
    assert [getattr(variant, name) for name in kept] == [getattr(base, name) for name in kept]
    model = graph_of(path, variant)
    metadata = {item.key: item.value for item in model.metadata_props}
    assert metadata["pargo.precision"] == variant.precision
    assert metadata["pargo.target"] == variant.target
    assert metadata["pargo.float_precision"] == record.float_precision
    assert ("pargo.recipe" in metadata) == options.quantizes
    if options.quantizes:
        assert json.loads(metadata["pargo.recipe"])["name"] == record.recipe
    assert next(item.version for item in model.opset_import if not item.domain) == variant.opset
    for name in bundle.manifest.files_of(variant.graph):
        file = bundle.manifest.files[name]
        assert (file.stage, file.parents[0]) == ("quantize", base.graph)
    assert all(check.ok for check in bundle.verify())


def test_calibration_is_named_where_it_decided_the_graph(quantized):
    """Graphs whose activations stay in float were not made from ranges."""
    _, variant = quantized
    expected = "default" if variant.precision in {"int8", "fp8"} else None
    assert variant.quantization.calibration == expected


@pytest.mark.parametrize("name", ["int8-cpu", "weights-cpu", "int8-cuda"])
def test_runtime_gives_what_was_measured(quantized_bundle, name):
    """The tokens of an evaluation image are as far from the float32 ones as the evidence says."""
    bundle = Bundle.open(quantized_bundle)
    images = load_evaluation(bundle, bundle.manifest.calibrations["default"])
    evidence = bundle.variant(name).evidence
    found = []
    for variant in (name, "fp32"):
        with Runtime.open(bundle, variant=variant, backend="onnxruntime", threads=1) as runtime:
            found.append([runtime.encode(images.values(index)) for index in range(len(images))])
    for source, tokens, expected in zip(images.names, *found, strict=True):
        (item,) = [x for x in evidence.stages if (x.stage, x.source) == ("visual_tokens", source)]
        error = np.abs(tokens - expected).max()
        assert np.isclose(error, item.max_abs, rtol=1e-3), f"{error} {item.max_abs}"


def test_bytes_are_deterministic(quantized_bundle, bundle):
    """The same bundle and options give the same file."""
    for name in ("int8-cpu", "fp8"):
        quantize(bundle, **QUANTIZATIONS[name], name=name, threads=1)
        assert (bundle / f"onnx/{name}.onnx").read_bytes() == (
            quantized_bundle / f"onnx/{name}.onnx"
        ).read_bytes()


def test_up_to_date_variant_is_reused(quantized_bundle):
    """Nothing is done and no byte changes."""
    before = files_below(quantized_bundle)
    result = quantize(quantized_bundle, **QUANTIZATIONS["int8-cpu"], name="int8-cpu")
    assert result.reused
    assert result.variant == Bundle.open(quantized_bundle).variant("int8-cpu")
    assert files_below(quantized_bundle) == before


def test_weights_are_smaller(quantized_bundle):
    """Eight bits instead of 32 or 16, scales included."""
    size = {path.stem: path.stat().st_size for path in (quantized_bundle / "onnx").glob("*.onnx")}
    constants = {}
    for name in ("fp32", "int8-cpu", "fp8", "fp16", "weights-rtx"):
        model = onnx.load(quantized_bundle / f"onnx/{name}.onnx")
        constants[name] = sum(numpy_helper.to_array(x).nbytes for x in model.graph.initializer)
    assert size["int8-cpu"] < size["fp32"]
    assert constants["int8-cpu"] < 0.42 * constants["fp32"]
    assert constants["fp8"] < 0.75 * constants["fp16"]
    assert constants["weights-rtx"] < 0.75 * constants["fp16"]


def test_recipe_by_name_changes_the_ranges(bundle):
    """Another method gives other scales, and the manifest says which recipe it was."""
    scales = {}
    for recipe in ("int8-max", "int8-percentile"):
        result = quantize(bundle, precision="int8", recipe=recipe, name=recipe, threads=1)
        assert result.variant.quantization.recipe == recipe
        model = graph_of(bundle, result.variant)
        scales[recipe] = np.array(
            [
                numpy_helper.to_array(x)
                for x in model.graph.initializer
                if x.name.endswith("/scale") and not x.dims
            ]
        )
    assert (scales["int8-percentile"] <= scales["int8-max"]).all()
    assert (scales["int8-percentile"] < scales["int8-max"]).any()


def test_kept_linears_stay_as_they_are(bundle):
    """With the pattern as the reason, and their weights in float."""
    result = quantize(bundle, keep=("projector.*", "*.mlp.down"), name="kept", threads=1)
    kept = result.variant.quantization.kept
    assert kept["tower.blocks.1.mlp.down"] == "kept by '*.mlp.down'"
    assert kept["projector.llm_projection"] == "kept by 'projector.*'"
    assert len(kept) == 1 + 3 + 23
    model = graph_of(bundle, result.variant)
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    (node,) = [node for node in model.graph.node if node.name == "tower.blocks.1.mlp.down/MatMul"]
    assert node.input[1] in floats


def test_uint8_input(bundle):
    """A graph that normalises by itself is quantized with the same ranges; its patch embedding stays in float."""
    result = quantize(bundle, base="fp32-uint8", name="int8-uint8", recipe=quantize_everything(), threads=1)
    record = result.variant.quantization
    assert result.variant.input == "uint8"
    assert record.kept == {PATCHES: "it reads uint8 pixels, calibration saw float ones"}
    assert result.variant.evidence.passed
    plain = quantize(bundle, base="fp32", name="int8-float", recipe=quantize_everything(), threads=1)
    assert plain.variant.quantization.kept == {}
    images = load_evaluation(result.bundle, result.bundle.manifest.calibrations["default"])
    pixels = images.feed(0, takes_uint8=True)
    assert pixels.dtype == np.uint8
    assert min(item.mean_cosine for item in result.variant.evidence.stages) > 0.99


@pytest.mark.parametrize(
    ("plain", "choices"), [("int8-cpu", {}), ("int8-cuda", {"target": "cuda"})], ids=["float32", "float16"]
)
def test_self_attention_can_be_quantized(bundle, quantized_bundle, plain, choices):
    """Both products get quantized operands inside the written-out attention, and accuracy stays close."""
    recipe = load_recipe("int8").model_copy(
        update={"name": "self", "attention": AttentionRule(projector_self=True)}
    )
    without = Bundle.open(quantized_bundle).variant(plain)
    found = quantize(bundle, **choices, recipe=recipe, name="self", threads=1).variant
    more = set(found.quantization.quantized) - set(without.quantization.quantized)
    assert len(more) == 3
    assert all("self_attention" in path for path in more)
    model = graph_of(bundle, found)
    onnx.checker.check_model(model, full_check=True)
    assert "BlockDiagonalAttention" not in {node.op_type for node in model.graph.node}
    assert "PartialGlobalAttention" in {node.op_type for node in model.graph.node}
    producers = {name: node for node in model.graph.node for name in node.output}
    for path in more:
        products = [
            node for node in model.graph.node if node.op_type == "MatMul" and node.name.startswith(f"{path}/")
        ]
        assert products
        for node in products:
            assert [producers[name].op_type for name in node.input] == ["DequantizeLinear"] * 2
    tokens = [[x for x in item.evidence.stages if x.stage == "visual_tokens"] for item in (without, found)]
    cosines = [min(item.mean_cosine for item in stages) for stages in tokens]
    assert cosines[0] != cosines[1]
    assert abs(cosines[1] - cosines[0]) <= TOLERANCES["quantize-self-attention"].value, cosines
