"""Checkpoint in, verified graph in a bundle out: what the graph computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_cases import CASES, golden_case
from graph.exports import FORMS, GOLDEN_EXPORTS, run, source_model
from onnx import TensorProto
from rewrite.random_models import random_images
from tolerances import TOLERANCES

from pargo_export.bundle import Bundle
from pargo_export.graph.comparison import PARITY_LIMITS
from pargo_export.graph.emulate_half import emulate_half
from pargo_export.graph.export import export_onnx
from pargo_export.preprocessing import normalize


def test_output_is_that_of_the_official_code(golden_export, tmp_path):
    """Within 1e-4 in float32; half precisions within their limits in value and in every token's direction."""
    graph, name, precision, _ = golden_export
    case = golden_case(name)
    path = graph.path
    if precision == "bf16":  # no kernels on the CPU
        path = tmp_path / "emulated.onnx"
        path.write_bytes(graph.path.read_bytes())
        emulate_half(path, "bfloat16")
    images = case.images.split(graph.variant.max_batch)
    found = np.concatenate([run(path, each.numpy())[0] for each in images])
    expected = case.io["projected"].numpy()
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    error = np.abs(found - expected).max()
    assert error <= TOLERANCES[f"export-{precision}"].value, f"{error:.3g}"
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    turned = 1 - ((found * expected).sum(axis=-1) / norms).min()
    assert turned <= TOLERANCES[f"export-{precision}-direction"].value, f"{turned:.3g}"


def test_evidence_covers_stages_and_batches(golden_export):
    """Every boundary on a photograph and on batches of noise, within the limits of the precision."""
    graph, name, precision, _ = golden_export
    config = source_model(name).config.projector
    evidence = graph.variant.evidence
    stages = {"image_features", "visual_tokens"}
    stages |= {f"query_layer_{layer}" for layer in range(config.num_layers if config.has_queries else 0)}
    largest = graph.variant.max_batch
    assert largest == (1 if precision == "bf16" else 4)
    inputs = {("photograph", 1), *(("noise", batch) for batch in (1, 2, 3) if batch <= largest)}
    measured = {(item.stage, item.source, item.batch) for item in evidence.stages}
    assert measured == {(stage, *each) for stage in stages for each in inputs}
    assert evidence.passed
    assert (
        evidence.limits
        == PARITY_LIMITS[{"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]]
    )
    assert bool(evidence.notes) == (precision == "bf16")


@pytest.mark.parametrize("attention", FORMS)
def test_forms_agree(exported, attention):
    """All four give the same tokens from the same pixels, on one, two and four images."""
    fused, other = (exported("pargo_w2", precision="fp32", attention=form) for form in ("fused", attention))
    for batch in (1, 2, 4):
        pixels = random_images(source_model("pargo_w2").config, batch).numpy()
        assert np.abs(fused.run(pixels) - other.run(pixels)).max() <= TOLERANCES["export-forms"].value


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
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


def test_uint8_input(exported):
    """Pixels give what the normalised pixels give, and the graph has no normalisation nodes."""
    graph, floats = exported("micro", input_kind="uint8"), exported("micro")
    spec = Bundle.open(graph.result.bundle.path).manifest.preprocessing
    pixels = np.random.default_rng(3).integers(0, 256, (3, 3, 24, 24), dtype=np.uint8)
    error = np.abs(graph.run(pixels) - floats.run(normalize(pixels, spec))).max()
    assert error <= TOLERANCES["runtime-uint8-graph"].value
    assert graph.model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.operators == floats.operators + type(floats.operators)({"Cast": 1})
    assert graph.variant.rewrites[0] == "fold-normalization"
    assert graph.variant.name == "fp32-uint8"


def test_encoder_and_projector_compose_to_the_whole(exported):
    """The encoder's image features, of two tiles, go into the projector as they are."""
    encoder = exported("tiles_1x2", component="encoder")
    projector = exported("tiles_1x2", component="projector")
    model = source_model("tiles_1x2")
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
        ("tiles_2x2", {"attention": "structured"}),
        ("cascaded", {"attention": "attention_op", "max_batch": 1}),
        ("cascaded_beyond_the_ends", {"attention": "fused", "precision": "fp16"}),
        ("no_global_cascaded", {"attention": "fused", "max_batch": 1}),
        ("one_global", {"attention": "fused", "max_batch": 1}),
        ("other_epsilons", {"attention": "fused", "target": "cuda", "max_batch": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_models_that_no_golden_case_has(exported, source, choices):
    """Tiles, cascaded windows, no and one global query, odd widths, other epsilons."""
    graph = exported(source, **choices)
    model = source_model(source)
    for batch in (1, 3) if graph.variant.max_batch > 1 else (1,):
        images = random_images(model.config, batch)
        error = np.abs(graph.run(images.numpy()) - model(images).numpy()).max()
        assert error <= TOLERANCES[f"export-{choices.get('precision', 'fp32')}"].value


@pytest.mark.parametrize("opset", [18, 21, 23])  # 20 and 22 are the defaults of float and bfloat16
def test_every_supported_opset(exported, opset):
    """The graph says which one it uses, and computes the same under each."""
    graph = exported("micro", opset=opset, max_batch=1)  # translated in half the time of a dynamic batch
    versions = {each.domain: each.version for each in graph.model.opset_import}
    assert versions == {"": opset, "pargo": 1}
    model = source_model("micro")
    images = random_images(model.config, 1)
    error = np.abs(graph.run(images.numpy()) - model(images).numpy()).max()
    assert error <= TOLERANCES["export-fp32"].value
    assert graph.variant.opset == opset


def test_variant_says_what_was_made(exported):
    """The manifest's record agrees with the options and the graph."""
    graph = exported("pargo_w4_freq2", precision="fp16", attention="dense")
    variant = Bundle.open(graph.result.bundle.path).manifest.variants["fp16"]
    assert variant == graph.variant
    assert (variant.name, variant.precision, variant.component) == ("fp16", "float16", "all")
    assert (variant.graph, variant.attention, variant.target) == ("onnx/fp16.onnx", "dense", "cpu")
    assert (variant.opset, variant.input, variant.max_batch) == (20, "float", 4)
    counts = {result.name: result.count for result in graph.result.rewrites}
    assert variant.rewrites == tuple(name for name, count in counts.items() if count)
    assert "pad-swiglu" not in counts
    assert not graph.result.reused


def test_rewrites_can_be_chosen(exported):
    """Only those that are asked for are run, in the order of the registry."""
    graph = exported("micro", rewrites=("merge-swiglu", "merge-qkv"), max_batch=1)
    usual = exported("micro", max_batch=1)
    assert graph.variant.rewrites == ("merge-qkv", "merge-swiglu")
    assert graph.operators["MatMul"] + graph.operators["Gemm"] > usual.operators["MatMul"]
    images = random_images(source_model("micro").config, 1)
    expected = source_model("micro")(images).numpy()
    assert np.abs(graph.run(images.numpy()) - expected).max() <= TOLERANCES["export-fp32"].value


def test_the_reference_is_left_as_it_was(tmp_path):
    """Exporting changes no bit, dtype or memory of the model, though the graph is made from the same weights."""
    model = source_model("micro")
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    tables = [block.attention.rope.cos.clone() for block in model.tower.blocks]
    export_onnx(model, tmp_path / "bundle", max_batch=1)
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, (address, tensor) in before.items():
        assert after[name].data_ptr() == address
        assert torch.equal(after[name], tensor)
    assert all(
        torch.equal(block.attention.rope.cos, table)
        for block, table in zip(model.tower.blocks, tables, strict=True)
    )
