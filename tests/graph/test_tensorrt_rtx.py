"""TensorRT-RTX parses the graphs and builds engines from them; its builder needs no GPU."""

from __future__ import annotations

import pytest
from shared_exports import MAX_BATCH

trt = pytest.importorskip(
    "tensorrt_rtx", reason="tensorrt_rtx is not installed; its parser and builder are what is tested"
)

# Every form in float16; the default form in float32, and for a cascaded model.
GRAPHS = [
    ("pargo_small_variance", {"precision": "fp16", "attention": "fused"}),
    ("micro", {"precision": "fp16", "attention": "structured", "target": "rtx"}),
    ("pargo_w4_freq2", {"precision": "fp16", "attention": "dense"}),
    ("micro", {"precision": "fp16", "attention": "attention_op", "target": "rtx"}),
    ("micro", {}),
    ("cascaded_beyond_the_ends", {"attention": "fused", "precision": "fp16"}),
]
IDS = [
    "fp16-fused",
    "fp16-structured",
    "fp16-dense",
    "fp16-attention_op",
    "fp32-fused",
    "cascaded-fp16-fused",
]


@pytest.fixture(scope="module")
def logger():
    """Return a logger for errors only."""
    return trt.Logger(trt.Logger.ERROR)


@pytest.mark.parametrize(("source", "choices"), GRAPHS, ids=IDS)
def test_engine_is_built(exported, logger, source, choices):
    """The parser takes every node, the network keeps the graph's types, and the builder gives an engine."""
    graph = exported(source, **choices)
    builder = trt.Builder(logger)
    strongly_typed = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(graph.path))
    errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    assert parsed, errors
    assert network.get_flag(strongly_typed)
    assert (network.num_inputs, network.num_outputs) == (1, 1)
    pixels, tokens = network.get_input(0), network.get_output(0)
    assert (pixels.name, tokens.name) == ("pixel_values", "visual_tokens")
    assert pixels.dtype == tokens.dtype == trt.float32
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    rest = tuple(pixels.shape)[1:]
    profile.set_shape(pixels.name, (1, *rest), (2, *rest), (MAX_BATCH, *rest))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 0
