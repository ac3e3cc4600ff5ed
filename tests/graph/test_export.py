"""Checkpoint in, verified graph in a bundle out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from golden_cases import CASES, golden_case
from graph.exports import run, source_model
from onnx import TensorProto, numpy_helper
from rewrite.random_models import random_images
from tolerances import TOLERANCES

from pargo_export.bundle import Bundle
from pargo_export.graph.emulate_bfloat16 import emulate_bfloat16
from pargo_export.graph.export import export_onnx
from pargo_export.graph.parity import PARITY_LIMITS
from pargo_export.preprocessing import normalize

# Every golden case in float32, and every precision and every form on several of them.
GOLDEN_EXPORTS = [
    ("pargo_w2", "fp32", "fused"),
    ("pargo_w2", "fp32", "structured"),
    ("pargo_w2", "fp32", "dense"),
    ("pargo_w2", "fp32", "attention_op"),
    ("pargo_w4_freq2", "fp32", "fused"),
    ("pargo_w4_freq2", "fp16", "dense"),
    ("pargo_w4_freq2", "bf16", "structured"),
    ("pargo_small_variance", "fp32", "structured"),
    ("pargo_small_variance", "fp16", "fused"),
    ("pargo_small_variance", "bf16", "attention_op"),
    ("qformer", "fp32", "attention_op"),
    ("linear", "fp32", "fused"),
    ("mlp", "fp32", "dense"),
]
FORMS = ("fused", "structured", "dense", "attention_op")


def golden_id(values):
    """Return a readable id."""
    return "-".join(values)


@pytest.fixture(params=GOLDEN_EXPORTS, ids=golden_id)
def golden(request, exported):
    """Return an exported golden case, with its name, precision and form."""
    name, precision, attention = request.param
    return exported(name, precision=precision, attention=attention), name, precision, attention


def test_output_is_that_of_the_official_code(golden, tmp_path):
    """Within 1e-4 in float32; half precisions within their limits in value and in every token's direction."""
    graph, name, precision, _ = golden
    case = golden_case(name)
    path = graph.path
    if precision == "bf16":  # no kernels on the CPU
        path = tmp_path / "emulated.onnx"
        path.write_bytes(graph.path.read_bytes())
        emulate_bfloat16(path)
    found = run(path, case.images.numpy())[0]
    expected = case.io["projected"].numpy()
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    error = np.abs(found - expected).max()
    assert error <= TOLERANCES[f"export-{precision}"].value, f"{error:.3g}"
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    turned = 1 - ((found * expected).sum(axis=-1) / norms).min()
    assert turned <= TOLERANCES[f"export-{precision}-direction"].value, f"{turned:.3g}"


def test_evidence_covers_stages_and_batches(golden):
    """Every boundary on a photograph and on batches of noise, within the limits of the precision."""
    graph, name, precision, _ = golden
    config = source_model(name).config.projector
    evidence = graph.variant.evidence
    stages = {"image_features", "visual_tokens"}
    stages |= {f"query_layer_{layer}" for layer in range(config.num_layers if config.has_queries else 0)}
    inputs = {("photograph", 1), *(("noise", batch) for batch in (1, 2, 3, 5))}
    measured = {(item.stage, item.source, item.batch) for item in evidence.stages}
    assert measured == {(stage, *each) for stage in stages for each in inputs}
    assert evidence.passed
    assert (
        evidence.limits
        == PARITY_LIMITS[{"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]]
    )
    assert bool(evidence.notes) == (precision == "bf16")


def expected_operators(config, attention):
    """Count what the architecture needs, with every rewrite of the CPU applied."""
    projector, blocks = config.projector, config.vision.num_layers
    layers = projector.num_layers if projector.has_queries else 0
    crosses = sum(projector.has_cross_attention(layer) for layer in range(layers))
    selfs = max(layers - 1, 0)  # the first is computed at export
    kinds = (projector.num_partial_tokens > 0) + (projector.num_global_tokens > 0)
    partial = int(projector.num_partial_tokens > 0)
    counts = {
        "Conv": 1,
        # Two norms and two sub-norms a block, ln_vision, and one norm after each part of a query layer.
        "LayerNormalization": 4 * blocks + 1 + selfs + crosses + layers,
        "PartialGlobalAttention": 0,
        "BlockDiagonalAttention": 0,
        "Attention": 0,
        "Gelu": layers + (projector.kind == "mlp"),
    }
    # A block has four projections (merged qkv, output, merged gate and up, down) and two products of attention.
    products, softmaxes = 6 * blocks, blocks
    # A query layer: merged qkv and output; query (computed for the first) and output; two of the feed-forward.
    products += 2 * selfs + max(2 * crosses - 1, 0) + 2 * layers + (crosses > 0)
    products += 2 if projector.kind == "mlp" else 1
    if attention == "fused":
        counts |= {"PartialGlobalAttention": crosses, "BlockDiagonalAttention": selfs}
    elif attention == "structured":
        products, softmaxes = products + 2 * kinds * (crosses + selfs), softmaxes + kinds * (crosses + selfs)
    elif attention == "dense":
        products, softmaxes = products + 2 * (crosses + selfs), softmaxes + crosses + selfs
    else:
        counts["Attention"] = blocks + crosses * (kinds - partial) + selfs * kinds
        products, softmaxes = products - 2 * blocks + 2 * partial * crosses, partial * crosses
    return counts | {"MatMul": products, "Softmax": softmaxes}


def test_node_counts_follow_from_the_architecture(golden):
    """One function node an attention in `fused`; the products and softmaxes that each other form needs, no more."""
    graph, name, _, attention = golden
    expected = expected_operators(source_model(name).config, attention)
    found = graph.operators
    matrix_products = found["MatMul"] + found["Gemm"]
    assert {operator: found[operator] for operator in expected if operator != "MatMul"} == {
        operator: count for operator, count in expected.items() if operator != "MatMul"
    }
    assert matrix_products == expected["MatMul"]
    if attention in ("fused", "dense"):
        assert found["Slice"] == 2, "the class token is cut off once for the residual and once for the query"
    assert not found["Where"]
    domains = {node.domain for node in graph.model.graph.node}
    assert domains <= ({"", "pargo"} if attention == "fused" else {""})
    assert bool(graph.model.functions) == (attention == "fused" and expected["PartialGlobalAttention"] > 0)


@pytest.mark.parametrize(
    ("name", "partial", "global_", "window", "crosses"),
    [("pargo_w2", 18, 4, 2, 4), ("pargo_w4_freq2", 9, 3, 4, 2)],
)
def test_function_nodes_say_who_sees_whom(exported, name, partial, global_, window, crosses):
    """P, G and the window are attributes of every node, and the node says which layer it is."""
    nodes = [
        node
        for node in exported(name, precision="fp32", attention="fused").model.graph.node
        if node.domain == "pargo"
    ]
    seen = {"PartialGlobalAttention": 0, "BlockDiagonalAttention": 0}
    for node in nodes:
        seen[node.op_type] += 1
        values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        sizes = (values["num_partial"], values["num_global"], values["num_heads"])
        assert sizes == (partial, global_, source_model(name).config.projector.num_heads)
        kind = "cross" if node.op_type == "PartialGlobalAttention" else "self"
        assert values["window"] == (window if kind == "cross" else 0)
        assert values.get("scale", 1.0) == 1.0
        assert node.name.startswith("projector.layers.")
        assert f".{kind}_attention.core/{node.op_type}" in node.name
    assert seen == {"PartialGlobalAttention": crosses, "BlockDiagonalAttention": 3}


def test_cascaded_windows_are_attributes(exported):
    """Each layer's own window, 0 where all are seen; the first layer's is computed at export."""
    graph = exported("cascaded", attention="fused", without_rewrites=("precompute-first-layer",))
    windows = [
        onnx.helper.get_attribute_value(attribute)
        for node in graph.model.graph.node
        if node.op_type == "BlockDiagonalAttention"
        for attribute in node.attribute
        if attribute.name == "window"
    ]
    assert windows == [3, 0, 1]


def test_a_folded_scale_leaves_no_node_in_the_function_bodies(exported):
    """The bodies multiply only where nodes carry a scale that is not 1."""
    folded = exported("pargo_w2", precision="fp32", attention="fused").model
    assert len(folded.functions) == 2
    assert not [node for function in folded.functions for node in function.node if node.op_type == "Mul"]
    scaled = exported("cascaded", attention="fused", without_rewrites=("fold-softmax-scale",)).model
    assert all(any(node.op_type == "Mul" for node in function.node) for function in scaled.functions)


def test_masks_are_in_the_dense_form_only(exported):
    """The official additive masks are constants there, named after their layer, and nothing else is infinite."""
    for attention in FORMS:
        graph = exported("pargo_w2", precision="fp32", attention=attention).model
        infinite = [
            tensor.name
            for tensor in graph.graph.initializer
            if tensor.data_type == TensorProto.FLOAT and np.isinf(numpy_helper.to_array(tensor)).any()
        ]
        assert bool(infinite) == (attention == "dense")
        assert all(name.startswith("projector.layers.") and name.endswith(".core.mask") for name in infinite)


@pytest.mark.parametrize("attention", FORMS)
def test_forms_agree(exported, attention):
    """All four give the same tokens from the same pixels, on one, two and seven images."""
    fused, other = (exported("pargo_w2", precision="fp32", attention=form) for form in ("fused", attention))
    for batch in (1, 2, 7):
        pixels = random_images(source_model("pargo_w2").config, batch).numpy()
        assert np.abs(fused.run(pixels) - other.run(pixels)).max() <= TOLERANCES["export-forms"].value


@pytest.mark.parametrize("batch", [1, 2, 7, 8])
@pytest.mark.parametrize("name", CASES)
def test_batch_is_dynamic(exported, name, batch):
    """Any number of images up to the largest gives what the reference gives."""
    precision_and_form = next(item[1:] for item in GOLDEN_EXPORTS if item[0] == name and item[1] == "fp32")
    graph = exported(name, precision=precision_and_form[0], attention=precision_and_form[1])
    model = source_model(name)
    images = random_images(model.config, batch)
    found = graph.run(images.numpy())
    assert np.abs(found - model.encode_images(images).numpy()).max() <= TOLERANCES["export-fp32"].value
    shapes = [
        value.type.tensor_type.shape.dim for value in (*graph.model.graph.input, *graph.model.graph.output)
    ]
    assert [dims[0].dim_param for dims in shapes] == ["batch", "batch"]
    assert all(dim.dim_value > 0 for dims in shapes for dim in list(dims)[1:])


def test_largest_batch_of_one_is_static(exported):
    """No symbolic axis is left, and a second image is refused by the runtime."""
    graph = exported("micro", max_batch=1)
    values = (*graph.model.graph.input, *graph.model.graph.output)
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in values] == [1, 1]
    assert "Shape" not in graph.operators
    assert graph.variant.signature.inputs[0].shape[0] == 1
    model = source_model("micro")
    images = random_images(model.config, 1)
    error = np.abs(graph.run(images.numpy()) - model(images).numpy()).max()
    assert error <= TOLERANCES["export-fp32"].value
    with pytest.raises(Exception, match="Got invalid dimensions"):
        graph.run(np.repeat(images.numpy(), 2, axis=0))


def test_largest_batch_of_two(exported):
    """The smallest dynamic batch that there is works for one image as well."""
    graph = exported("micro", max_batch=2)
    assert {item.batch for item in graph.variant.evidence.stages} == {1, 2}
    model = source_model("micro")
    for batch in (1, 2):
        images = random_images(model.config, batch)
        error = np.abs(graph.run(images.numpy()) - model(images).numpy()).max()
        assert error <= TOLERANCES["export-fp32"].value


def test_uint8_input(exported):
    """Pixels give what the normalised pixels give, and the graph has no normalisation nodes."""
    graph = exported("pargo_w2", input_kind="uint8")
    floats = exported("pargo_w2", precision="fp32", attention="fused")
    spec = Bundle.open(graph.result.bundle.path).manifest.preprocessing
    pixels = np.random.default_rng(3).integers(0, 256, (3, 3, 84, 84), dtype=np.uint8)
    error = np.abs(graph.run(pixels) - floats.run(normalize(pixels, spec))).max()
    assert error <= TOLERANCES["runtime-uint8-graph"].value
    assert graph.model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.operators == floats.operators + type(floats.operators)({"Cast": 1})
    assert graph.variant.rewrites[0] == "fold-normalization"
    assert graph.variant.name == "fp32-uint8"


@pytest.mark.parametrize("source", ["pargo_w4_freq2", "tiles_1x2"])
def test_encoder_and_projector_compose_to_the_whole(exported, source):
    """The encoder's image features go into the projector as they are."""
    encoder = exported(source, component="encoder")
    projector = exported(source, component="projector")
    model = source_model(source)
    images = random_images(model.config, 3)
    expected = model.encode_images(images, return_intermediates=True)
    features = encoder.run(images.numpy())
    assert np.abs(features - expected.image_features.numpy()).max() <= TOLERANCES["export-fp32"].value
    tokens = projector.run(features)
    assert np.abs(tokens - expected.visual_tokens.numpy()).max() <= TOLERANCES["export-fp32"].value
    assert encoder.model.graph.output[0].name == projector.model.graph.input[0].name == "image_features"
    for part, variant in ((encoder, "fp32-encoder"), (projector, "fp32-projector")):
        assert part.variant.name == variant
        assert "fold-output-norm" not in part.variant.rewrites
    weights = [
        {tensor.name.split(".")[0] for tensor in part.model.graph.initializer}
        for part in (encoder, projector)
    ]
    assert "projector" not in weights[0]
    assert "tower" not in weights[1]


@pytest.mark.parametrize(
    ("source", "choices"),
    [
        ("tiles_1x2", {"attention": "fused"}),
        ("tiles_2x2", {"attention": "structured"}),
        ("cascaded", {"attention": "attention_op"}),
        ("cascaded_beyond_the_ends", {"attention": "fused", "precision": "fp16"}),
        ("no_global_cascaded", {"attention": "fused"}),
        ("one_global", {"attention": "fused"}),
        ("cross_in_the_first_layer_only", {"attention": "fused"}),
        ("other_epsilons", {"attention": "fused", "target": "cuda"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()),
)
def test_models_that_no_golden_case_has(exported, source, choices):
    """Tiles, cascaded windows, no and one global query, sparse cross-attention, odd widths, other epsilons."""
    graph = exported(source, **choices)
    model = source_model(source)
    for batch in (1, 3):
        images = random_images(model.config, batch)
        error = np.abs(graph.run(images.numpy()) - model(images).numpy()).max()
        assert error <= TOLERANCES[f"export-{choices.get('precision', 'fp32')}"].value


@pytest.mark.parametrize("opset", [18, 19, 21, 23])  # 20 and 22 are the defaults of float and bfloat16
def test_every_supported_opset(exported, opset):
    """The graph says which one it uses, and computes the same under each."""
    graph = exported("micro", opset=opset)
    versions = {each.domain: each.version for each in graph.model.opset_import}
    assert versions == {"": opset, "pargo": 1}
    model = source_model("micro")
    images = random_images(model.config)
    error = np.abs(graph.run(images.numpy()) - model(images).numpy()).max()
    assert error <= TOLERANCES["export-fp32"].value
    assert graph.variant.opset == opset


def value_types(model):
    """Return the element type of every value once functions are expanded, and the nodes."""
    inlined = onnx.inliner.inline_local_functions(model)
    inferred = onnx.shape_inference.infer_shapes(inlined, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return types, list(inferred.node)


HALF_EXPORTS = [item for item in GOLDEN_EXPORTS if item[1] != "fp32"]


@pytest.mark.parametrize("item", HALF_EXPORTS, ids=golden_id)
def test_half_precision_graphs_are_strongly_typed(exported, item):
    """Weights and products are half precision, softmax is float32, LayerNorm keeps float32 statistics."""
    name, precision, attention = item
    graph = exported(name, precision=precision, attention=attention).model
    half = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    types, nodes = value_types(graph)
    floating = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    weights = {tensor.data_type for tensor in graph.graph.initializer} & floating
    assert weights == {half}
    for node in nodes:
        read = {types[value] for value in node.input if value} & floating
        if node.op_type in ("MatMul", "Gemm", "Conv", "Add", "Mul", "Gelu", "Sigmoid", "Concat", "Attention"):
            assert read <= {half}, node.name
        if node.op_type in ("MatMul", "Conv", "LayerNormalization", "Attention"):
            assert types[node.output[0]] == half, node.name
        if node.op_type == "Softmax":
            assert read == {types[node.output[0]]} == {TensorProto.FLOAT}, node.name
        values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "LayerNormalization":
            assert values.get("stash_type", 1) == 1, node.name
        if node.op_type == "Attention":
            assert values["softmax_precision"] == TensorProto.FLOAT
    ends = {value.type.tensor_type.elem_type for value in (*graph.graph.input, *graph.graph.output)}
    assert ends == {TensorProto.FLOAT}


def test_padded_norm_takes_its_statistics_in_float32(exported):
    """With padding the sums are float32, and only scalars are float32 constants."""
    graph = exported("pargo_small_variance", precision="fp16", target="cuda").model
    types, nodes = value_types(graph)
    sums = [node for node in nodes if node.op_type == "ReduceSum"]
    assert len(sums) == 2 * 2
    assert {types[node.input[0]] for node in sums} == {TensorProto.FLOAT}
    wide = [tensor for tensor in graph.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert all(np.prod(tensor.dims, dtype=int) == 1 for tensor in wide)
    rows = [tensor for tensor in graph.graph.initializer if tensor.name.endswith("mlp.gate_up.merged.weight")]
    assert len(rows) == 2
    assert all(max(tensor.dims) % 128 == 0 for tensor in rows)


@pytest.mark.parametrize("item", GOLDEN_EXPORTS, ids=golden_id)
def test_names_show_the_architecture(exported, item):
    """Nodes, values and weights carry module paths; no name of the exporter's own making is left."""
    name, precision, attention = item
    graph = exported(name, precision=precision, attention=attention).model.graph
    modules = ("tower.", "tower/", "projector.", "projector/", "output_norm", "graph/")
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    for node in graph.node:
        assert node.name.startswith(modules), node.name
        assert node.name.partition("/")[2].partition("_")[0] == node.op_type
    ends = {value.name for value in (*graph.input, *graph.output)}
    modules += ("normalized_features", "image_features", "query_layer_")  # stage boundaries
    for value in (name for node in graph.node for name in node.output if name and name not in ends):
        assert value.startswith(modules), value
    for tensor in graph.initializer:
        assert tensor.name.startswith(modules), tensor.name
        if len(tensor.dims) == 2 and min(tensor.dims) > 24:
            assert tensor.name.endswith((".weight", ".mask", ".cos", ".signed_sin")), tensor.name
    text = " ".join(names)
    assert "tower.blocks.0.attention." in text
    assert "tower.blocks.0.mlp.gate_up" in text


def test_graph_is_documented(exported):
    """Doc strings on model, graph, inputs, outputs and functions."""
    model = exported("pargo_w2", precision="fp32", attention="fused").model
    documented = [model, model.graph, *model.graph.input, *model.graph.output, *model.functions]
    assert all(each.doc_string for each in documented)
    assert model.producer_name == "pargo-export"
    assert model.graph.name == "pargo-all"


@pytest.mark.parametrize("item", GOLDEN_EXPORTS, ids=golden_id)
def test_bytes_hold_nothing_of_the_machine(exported, item):
    """No path, no stack trace, no host name and no trace of the exporter."""
    name, precision, attention = item
    graph = exported(name, precision=precision, attention=attention)
    content = graph.path.read_bytes()
    for word in (
        b".py",
        b"site-packages",
        b"stack_trace",
        b"pkg.torch",
        b"name_scopes",
        b'File "',
        b"/tmp",
        b"/home",
    ):
        assert word not in content, word
    assert str(graph.path.parent).encode() not in content
    assert content.count(b"front_end") == 0


def test_variant_says_what_was_made(exported):
    """The manifest's record agrees with the options and the graph."""
    graph = exported("pargo_w4_freq2", precision="fp16", attention="dense")
    variant = Bundle.open(graph.result.bundle.path).manifest.variants["fp16"]
    assert variant == graph.variant
    assert (variant.name, variant.precision, variant.component) == ("fp16", "float16", "all")
    assert (variant.graph, variant.attention, variant.target) == ("onnx/fp16.onnx", "dense", "cpu")
    assert (variant.opset, variant.input, variant.max_batch) == (20, "float", 8)
    counts = {result.name: result.count for result in graph.result.rewrites}
    assert variant.rewrites == tuple(name for name, count in counts.items() if count)
    assert "pad-swiglu" not in counts
    assert not graph.result.reused


def test_rewrites_can_be_chosen(exported):
    """`rewrites` replaces the list, `without_rewrites` shortens it, and an empty list leaves the reference."""
    plain = exported("micro", rewrites=())
    assert plain.variant.rewrites == ()
    assert plain.operators["MatMul"] + plain.operators["Gemm"] > exported("micro").operators["MatMul"]
    few = exported("micro", rewrites=("merge-swiglu", "merge-qkv"))
    assert few.variant.rewrites == ("merge-qkv", "merge-swiglu")
    images = random_images(source_model("micro").config)
    expected = source_model("micro")(images).numpy()
    for graph in (plain, few):
        assert np.abs(graph.run(images.numpy()) - expected).max() <= TOLERANCES["export-fp32"].value


def test_the_reference_is_left_as_it_was(tmp_path):
    """Exporting in half precision changes no bit, dtype or memory of the model."""
    model = source_model("micro")
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    tables = [block.attention.rope.cos.clone() for block in model.tower.blocks]
    export_onnx(model, tmp_path / "bundle", precision="fp16")
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, (address, tensor) in before.items():
        assert after[name].data_ptr() == address
        assert torch.equal(after[name], tensor)
    assert all(
        torch.equal(block.attention.rope.cos, table)
        for block, table in zip(model.tower.blocks, tables, strict=True)
    )
