"""What the linears of a graph read is counted, whatever the order of the images."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from golden_cases import golden_case

from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.quantization.observe import Observer
from pargo_export.quantization.sessions import open_session
from pargo_export.quantization.smooth import smoothing_factors
from pargo_export.quantization.statistics import pack


@pytest.fixture
def graph(float_bundle):
    """The float32 graph of `pargo_w2`."""
    return float_bundle / "onnx/fp32.onnx"


def images(count=5):
    """Return normalised images, each `[1, 3, 84, 84]`."""
    random = np.random.default_rng(20240905)
    base = golden_case("pargo_w2").images.numpy()[:1]
    return [base * random.uniform(0.5, 2) + random.normal() for _ in range(count)]


def test_order_of_the_images_does_not_matter(graph):
    """Any order gives the same statistics, bit for bit, with the same smoothing."""
    packed = set()
    for order in (range(5), reversed(range(5)), (2, 0, 4, 1, 3)):
        observer = Observer(graph, threads=1)
        observer.prepare(images()[:2], 0.5)
        for index in order:
            observer.update(images()[index].astype(np.float32), f"image {index}")
        packed.add(pack(observer.observation))
    assert len(packed) == 1


def test_memory_does_not_grow_with_the_images(graph):
    """What is kept has the same size after one image and after many."""
    observer = Observer(graph, threads=1)
    observer.prepare(images(1), 0.5)
    sizes = []
    for index, pixels in enumerate(images(4)):
        observer.update(pixels.astype(np.float32), str(index))
        sizes.append(len(pack(observer.observation)))
    assert len(set(sizes)) == 1


def test_smoothing_factors_come_from_what_prepare_saw(graph):
    """They are those of the channel magnitudes over its images, and are divided by before counting."""
    observer = Observer(graph, threads=1)
    observer.prepare([pixels.astype(np.float32) for pixels in images(3)], 0.7)
    observer.update(images(1)[0].astype(np.float32), "first")
    seen = Observer(graph, threads=1)
    for pixels in images(3):
        seen.update(pixels.astype(np.float32), "any")
    path = "tower.blocks.0.mlp.gate_up.merged"
    (weight,) = [
        value.const_value.numpy()
        for node in ir.load(graph).graph
        if node.name == f"{path}/MatMul"
        for value in node.inputs[1:]
    ]
    largest = seen.observation.activations[path].plain.channel_max_abs
    candidates = [smoothing_factors(largest, [weight], alpha) for alpha in np.linspace(0, 0.7, 9)]
    item = observer.observation.activations[path]
    assert any(np.array_equal(item.factors, factors) for factors in candidates)
    assert not np.allclose(item.plain.channel_max_abs, largest)  # `update` saw less than `prepare`
    divided = item.plain.channel_max_abs / item.factors
    assert np.allclose(item.smoothed.channel_max_abs, divided, rtol=1e-6)
    assert seen.observation.activations[path].smoothed is None


def test_numbers_that_are_not_finite_are_refused(graph):
    """The message names the first linear that reads them, the image and what to do."""
    observer = Observer(graph, threads=1)
    pixels = images(1)[0].astype(np.float32)
    pixels[0, 1, 3, 3] = np.nan
    with pytest.raises(
        CalibrationError, match=r"input of tower\.patch_embedding holds 1 NaN .* on cat\.png:"
    ):
        observer.update(pixels, "cat.png")


def test_graphs_that_do_not_load_are_refused(tmp_path):
    """ONNX Runtime's reason is in the message."""
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape([1]))
    node = ir.node("NoSuchOperator", [x])
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model = ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}), ir_version=10)
    ir.save(model, tmp_path / "odd.onnx")
    with pytest.raises(QuantizationError, match=r"ONNX Runtime refuses the graph: .*NoSuchOperator"):
        open_session(tmp_path / "odd.onnx", tmp_path)


def test_inner_values_come_after_the_outputs(graph):
    """A value that is an output already is not added twice, and the file is not changed."""
    before = graph.read_bytes()
    session = open_session(
        graph,
        graph.parent,
        outputs=["visual_tokens", "tower.blocks.0.mlp.norm/LayerNormalization"],
        threads=1,
    )
    names = [value.name for value in session.get_outputs()]
    assert names == ["visual_tokens", "tower.blocks.0.mlp.norm/LayerNormalization"]
    assert graph.read_bytes() == before
