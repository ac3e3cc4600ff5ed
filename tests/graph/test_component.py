"""What goes into a graph, what comes out, and where the gate looks in between."""

from __future__ import annotations

import pytest
import torch
from graph.exports import source_model
from rewrite.random_models import ODD_CONFIGS, random_images, random_model

from pargo_export.graph.component import ComponentModule, boundary_names, component_signature, example_input
from pargo_export.graph.options import ExportOptions
from pargo_export.rewrite.apply import deploy_module

LAYERS = [f"query_layer_{layer}" for layer in range(3)]


@pytest.mark.parametrize(
    ("source", "component", "folded", "expected"),
    [
        ("cascaded", "all", True, ["normalized_features", *LAYERS]),
        ("cascaded", "all", False, ["image_features", *LAYERS]),
        ("cascaded", "encoder", False, []),
        ("cascaded", "projector", False, LAYERS),
        ("linear_tiles_1x2", "all", False, ["image_features"]),
        ("linear_tiles_1x2", "projector", False, []),
    ],
)
def test_boundaries_in_the_order_of_the_network(source, component, folded, expected):
    """Image features, then every query layer; what is an output is no boundary."""
    options = ExportOptions(component=component)
    assert boundary_names(ODD_CONFIGS[source], options, folded=folded) == expected


@pytest.mark.parametrize("name", ["tiles_2x2", "cascaded", "mlp_tiles_2x1"])
def test_the_module_gives_the_output_first_and_then_the_boundaries(name):
    """As many values as names, each equal to the stage of the reference, in float32."""
    config = ODD_CONFIGS[name]
    model, images = random_model(config), random_images(config)
    expected = model.encode_images(images, return_intermediates=True)
    options = ExportOptions()
    with torch.no_grad():
        found = ComponentModule(deploy_module(model, [], "dense")[0], options)(images)
    stages = {"image_features": expected.image_features}
    stages |= {f"query_layer_{layer}": state for layer, state in enumerate(expected.layers)}
    names = boundary_names(config, options, folded=False)
    assert len(found) == 1 + len(names)
    assert torch.equal(found[0], expected.visual_tokens)
    for boundary, value in zip(names, found[1:], strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, stages[boundary])


def test_signature_of_the_whole_model():
    """Pixels of all tiles in, visual tokens out, one dynamic axis."""
    signature = component_signature(ODD_CONFIGS["tiles_2x2"], ExportOptions())
    (pixels,), (tokens,) = signature.inputs, signature.outputs
    assert (pixels.name, pixels.dtype, pixels.shape) == ("pixel_values", "float32", ("batch", 3, 48, 48))
    assert (tokens.name, tokens.dtype, tokens.shape) == ("visual_tokens", "float32", ("batch", 19, 20))


def test_signatures_of_the_parts():
    """The encoder's output is the projector's input, field by field."""
    config = ODD_CONFIGS["tiles_1x2"]
    encoder = component_signature(config, ExportOptions(component="encoder"))
    projector = component_signature(config, ExportOptions(component="projector"))
    assert encoder.outputs == projector.inputs
    assert encoder.outputs[0].shape == ("batch", 72, 24)
    whole = component_signature(config, ExportOptions())
    assert (encoder.inputs, projector.outputs) == (whole.inputs, whole.outputs)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_both_ends_are_float32_in_every_precision(precision):
    """The caller needs no half-precision arrays."""
    signature = component_signature(ODD_CONFIGS["cascaded"], ExportOptions(precision=precision))
    assert {spec.dtype for spec in (*signature.inputs, *signature.outputs)} == {"float32"}


def test_uint8_pixels_and_a_static_batch():
    """The input dtype and the batch axis follow the options, and every value is described."""
    signature = component_signature(ODD_CONFIGS["cascaded"], ExportOptions(input_kind="uint8", max_batch=1))
    assert signature.inputs[0].dtype == "uint8"
    assert signature.inputs[0].shape[0] == signature.outputs[0].shape[0] == 1
    assert "0..255" in signature.inputs[0].description
    assert "partial tokens first" in signature.outputs[0].description
    qformer = component_signature(ODD_CONFIGS["qformer_one_query"], ExportOptions())
    assert "partial" not in qformer.outputs[0].description


@pytest.mark.parametrize("source", ["tiles_1x2", "mlp_tiles_2x1", "qformer_one_query"])
@pytest.mark.parametrize("component", ["all", "encoder", "projector"])
def test_signature_is_what_the_module_takes_and_gives(source, component):
    """Shapes and dtypes agree with the module on the traced example."""
    options = ExportOptions(component=component, max_batch=3)
    model = source_model(source)
    signature = component_signature(model.config, options)
    example = example_input(signature)
    assert example.shape[0] == 2, "a batch of 1 would be taken for a constant"
    with torch.no_grad():
        output = ComponentModule(deploy_module(model, [], "fused")[0], options)(example)[0]
    assert signature.inputs[0].check(example.numpy()) == {"batch": 2}
    assert signature.outputs[0].check(output.numpy()) == {"batch": 2}


def test_static_example():
    """A static graph is traced with its one image."""
    signature = component_signature(ODD_CONFIGS["cascaded"], ExportOptions(max_batch=1))
    assert example_input(signature).shape == (1, 3, 24, 24)
