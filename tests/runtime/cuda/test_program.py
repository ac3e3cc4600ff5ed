"""The programs against the reference, in float64, where only the order of sums differs."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, golden_case, golden_model
from rewrite.random_models import ODD_CONFIGS, random_images, random_model
from runtime.cuda.programs import OPTIONS, preprocessing_of, program_of
from tolerances import TOLERANCES

from pargo_export.errors import BackendError
from pargo_export.preprocessing import normalize

EXACT = TOLERANCES["rewrite-float64"].value
OPTIONAL = (
    "drop-class-token",
    "drop-key-bias",
    "drop-unused-weights",
    "fold-output-norm",
    "fold-softmax-scale",
    "fold-value-bias",
    "pad-swiglu",
)


def assert_close(found, expected, tolerance=EXACT):
    """Compare with a tolerance per unit of the largest value."""
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).abs().max().item() / max(1.0, expected.abs().max().item())
    assert error <= tolerance, error


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_program_computes_the_reference(name, options):
    """Every golden case, in every way to compute it."""
    model, images = golden_model(name).double(), golden_case(name).images.double()
    program = program_of(model, options=options)
    assert_close(program(images), model.encode_images(images))


@pytest.mark.parametrize("name", ODD_CONFIGS)
def test_program_computes_odd_models(name):
    """Tiles, cascaded windows, no global tokens, one block, padded hidden widths: all shapes that a bundle can have."""
    config = ODD_CONFIGS[name]
    model, images = random_model(config).double(), random_images(config).double()
    expected = model.encode_images(images)
    for options in OPTIONS[:2]:
        assert_close(program_of(model, options=options)(images), expected)


@pytest.mark.parametrize("name", ["pargo_w2", "mlp"])
@pytest.mark.parametrize("without", [*OPTIONAL, OPTIONAL], ids=lambda value: str(value)[:20])
def test_rewrites_that_the_program_can_do_without(name, without):
    """Weights that were made with fewer rewrites give the same result."""
    model, images = golden_model(name).double(), golden_case(name).images.double()
    names = (without,) if isinstance(without, str) else without
    assert_close(program_of(model, without=names)(images), model.encode_images(images))


@pytest.mark.parametrize(
    ("component", "without"),
    [
        ("all", "half-rotation-rope"),
        ("encoder", "fold-class-token"),
        ("encoder", "merge-swiglu"),
        ("projector", "merge-qkv"),
        ("projector", "merge-cross-kv"),
        ("all", "precompute-first-layer"),
    ],
)
def test_rewrites_that_the_program_needs_are_named(component, without):
    """The refusal says which rewrite is missing and how to export with it."""
    with pytest.raises(BackendError, match=f"without {without}, .*pargo-export onnx --target cuda"):
        program_of(golden_model("pargo_w2"), component=component, without=(without,))


def test_projectors_without_query_layers_need_none_of_their_rewrites():
    """Keys and values of query layers are not asked of a linear projector."""
    model = golden_model("linear").double()
    without = ("merge-cross-kv", "precompute-first-layer")
    images = golden_case("linear").images.double()
    assert_close(program_of(model, without=without)(images), model.encode_images(images))


@pytest.mark.parametrize("name", ["pargo_w2", "qformer", "linear"])
def test_components(name):
    """The encoder gives the image features, and the projector takes them, in any float type."""
    model, images = golden_model(name).double(), golden_case(name).images.double()
    stages = model.encode_images(images, return_intermediates=True)
    features = program_of(model, component="encoder")(images)
    assert_close(features, stages.image_features)
    projector = program_of(model, component="projector")
    assert_close(projector(stages.image_features), stages.visual_tokens)
    assert projector(stages.image_features.float()).dtype == torch.float64


def test_encoder_keeps_its_class_token_out():
    """With the class token computed to the end, the features are those of the patches all the same."""
    config = ODD_CONFIGS["tiles_2x2"]
    model, images = random_model(config).double(), random_images(config).double()
    program = program_of(model, component="encoder", without=("drop-class-token",))
    assert_close(program(images), model.image_features(images))


@pytest.mark.parametrize("input_kind", ["float", "uint8"])
def test_pixels_are_normalised_where_they_are_cut(input_kind):
    """uint8 pixels give what normalised ones give, whether the kernel or the patch weights normalise."""
    model = golden_model("pargo_w2")
    pixels = torch.randint(0, 256, (2, 3, 84, 84), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    normalised = torch.from_numpy(normalize(pixels.numpy(), preprocessing_of(model)))
    program = program_of(model, dtype=torch.float32, input_kind=input_kind)
    expected = model.encode_images(normalised)
    assert_close(program(pixels), expected, TOLERANCES["runtime-uint8-graph"].value)
    if input_kind == "float":
        assert_close(program(normalised), expected, TOLERANCES["export-fp32"].value)


def test_input_and_constants_are_not_written():
    """Products that add in place never touch what they do not own: a second call gives the same bits."""
    model, images = golden_model("pargo_w2"), golden_case("pargo_w2").images
    program, kept = program_of(model, dtype=torch.float32), images.clone()
    first = program(images)
    assert torch.equal(program(images), first)
    assert torch.equal(images, kept)
