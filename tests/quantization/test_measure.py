"""Accuracy is measured at every stage on images that calibration did not see."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from pargo_calibration import load_recipe
from pargo_export.bundle import Bundle
from pargo_export.errors import CalibrationError, ParityError
from pargo_export.preprocessing import normalize
from pargo_export.quantization.build import BuiltGraph, GraphBuilder
from pargo_export.quantization.measure import EvaluationImages, Reference, load_evaluation, measure
from pargo_export.quantization.stages import find_blocks, find_stages
from pargo_export.quantization.statistics import unpack

STAGES = ["image_features", *(f"query_layer_{layer}" for layer in range(4)), "visual_tokens"]
BLOCKS = [
    *(f"tower.blocks.{index}" for index in range(3)),
    *(f"projector.layers.{index}" for index in range(4)),
]


@pytest.fixture(scope="module")
def images(calibrated_bundle) -> EvaluationImages:
    """The evaluation images of the calibration."""
    bundle = Bundle.open(calibrated_bundle)
    return load_evaluation(bundle, bundle.manifest.calibrations["default"])


@pytest.fixture(scope="module")
def reference(calibrated_bundle, images) -> Reference:
    """What fp32 computes of them."""
    bundle = Bundle.open(calibrated_bundle)
    return Reference.of(bundle, bundle.variant("fp32"), images, threads=1)


@pytest.fixture(scope="module")
def smoothed(calibrated_bundle, tmp_path_factory) -> BuiltGraph:
    """An INT8 graph with smoothing."""
    graph = calibrated_bundle / "onnx/fp32.onnx"
    observation = unpack(calibrated_bundle / "calibration/default.statistics.safetensors")
    builder = GraphBuilder(graph, load_recipe("int8"), observation, "cpu", "float32", {})
    return builder.build(tmp_path_factory.mktemp("smoothed") / "int8.onnx")


def built_of(path):
    """Describe a float graph as if it had been built."""
    model = ir.load(path)
    return BuiltGraph(
        quantized=(),
        kept={},
        smoothed=(),
        stages=find_stages(model),
        blocks=find_blocks(model),
        factors={},
        float_precision="float32",
        path=path,
        files=(path,),
    )


def test_places_by_the_names_of_the_modules(calibrated_bundle):
    """Stages and blocks in the order of the network; the graph's own output comes last."""
    model = ir.load(calibrated_bundle / "onnx/fp32.onnx")
    stages, blocks = find_stages(model), find_blocks(model)
    assert list(stages) == STAGES
    assert list(blocks) == BLOCKS
    assert stages["visual_tokens"] == "visual_tokens"
    order = [value.name for node in model.graph for value in node.outputs]
    for places in (stages, blocks):
        positions = [order.index(name) for name in places.values()]
        assert positions == sorted(positions)


def test_a_graph_agrees_with_itself(calibrated_bundle, reference, images):
    """Up to the fusions that other outputs allow, at every stage and block, on every image."""
    built = built_of(calibrated_bundle / "onnx/fp32.onnx")
    for places in (None, built.blocks):
        found = measure(built, reference, places=places, threads=1)
        names = STAGES if places is None else BLOCKS
        assert [(item.source, item.stage) for item in found] == [(x, y) for x in images.names for y in names]
        assert min(item.sqnr_db for item in found) > 120


def test_another_image_is_another_measurement(calibrated_bundle, reference):
    """Images can be chosen; comparing with another one's outputs would be seen."""
    built = built_of(calibrated_bundle / "onnx/fp32.onnx")
    swapped = dataclasses.replace(reference, outputs=reference.outputs[::-1])
    found = measure(built, swapped, images=[1], threads=1)
    assert {item.source for item in found} == {reference.images.names[1]}
    assert max(item.sqnr_db for item in found) < 60


def test_smoothing_is_undone_before_comparing(smoothed, reference):
    """A smoothed value is not wrong; forgetting the factors would be seen."""
    assert smoothed.stages["image_features"] in smoothed.factors
    right = measure(smoothed, reference, images=[0], threads=1)
    wrong = measure(dataclasses.replace(smoothed, factors={}), reference, images=[0], threads=1)
    changed = {item.stage for item, other in zip(right, wrong, strict=True) if item != other}
    assert changed == {"image_features", "query_layer_3"}
    for item, other in zip(right, wrong, strict=True):
        assert item.sqnr_db > 20
        if item.stage in changed:
            assert other.sqnr_db < item.sqnr_db - 3


def test_numbers_that_are_not_finite_are_refused(calibrated_bundle, reference, tmp_path):
    """The message names stage and image."""
    model = onnx.load(calibrated_bundle / "onnx/fp32.onnx")
    (tensor,) = [item for item in model.graph.initializer if item.name == "projector.llm_projection.weight"]
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = np.inf
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "infinite.onnx")
    with pytest.raises(
        ParityError, match=rf"visual_tokens on {reference.images.names[0]}: .* NaN or infinite"
    ):
        measure(built_of(tmp_path / "infinite.onnx"), reference, threads=1)


def test_images_come_as_the_graph_takes_them(images):
    """Levels for a graph that normalises by itself, normalised values for the others."""
    levels = images.feed(1, takes_uint8=True)
    assert (levels.dtype, levels.shape) == (np.uint8, (1, 3, 84, 84))
    values = images.feed(1, takes_uint8=False)
    assert np.array_equal(values, normalize(levels, images.spec))
    floats = EvaluationImages(("a",), values, images.spec)
    assert np.array_equal(floats.feed(0, takes_uint8=False), values)
    with pytest.raises(
        CalibrationError, match="normalised pixels, but the graph takes uint8 ones; calibrate on pict"
    ):
        floats.feed(0, takes_uint8=True)


def test_damaged_images_are_refused(bundle):
    """The message says what to do."""
    opened = Bundle.open(bundle)
    calibration = opened.manifest.calibrations["default"]
    (bundle / calibration.evaluation).write_bytes(b"{}")
    opened.check = opened.file  # past the hash
    with pytest.raises(
        CalibrationError, match=r"default\.evaluation\.safetensors cannot be read .*calibrate again"
    ):
        load_evaluation(opened, calibration)
