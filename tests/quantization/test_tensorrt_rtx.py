"""TensorRT-RTX parses the graphs of its dialect and builds engines from them; its builder needs no GPU."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from quantization.samples import QUANTIZATIONS

from pargo_export.bundle import Bundle

trt = pytest.importorskip(
    "tensorrt_rtx", reason="tensorrt_rtx is not installed; its parser and builder are what is tested"
)

MAX_BATCH = 4
FOR_TENSORRT = [name for name, choices in QUANTIZATIONS.items() if choices.get("target", "cpu") != "cpu"]


class Log(trt.ILogger):
    """Keeps errors and warnings."""

    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []

    def log(self, severity, message):
        """Keep a message."""
        if severity <= trt.ILogger.Severity.WARNING:
            self.messages.append(message)


@pytest.fixture(scope="module")
def log():
    """Return the log: TensorRT takes the first one of a process for all builders."""
    return Log()


@pytest.fixture
def parse(log, quantized_bundle):
    """Return a function that parses a variant: builder, network, parser and whether it was accepted."""
    log.messages.clear()

    def parse(name):
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        graph = Bundle.open(quantized_bundle).variant(name).graph
        return builder, network, parser, parser.parse_from_file(str(quantized_bundle / graph))

    return parse


def build(builder, network, capability):
    """Build an engine for a compute capability, for example `SM89`; `None` if it is refused."""
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    pixels = network.get_input(0)
    rest = tuple(pixels.shape)[1:]
    profile.set_shape(pixels.name, (1, *rest), (2, *rest), (MAX_BATCH, *rest))
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config)


@pytest.mark.parametrize("name", FOR_TENSORRT)
def test_graphs_are_parsed(parse, quantized_bundle, name):
    """Every graph made for a TensorRT target, with all its Q and DQ."""
    _, network, parser, accepted = parse(name)
    assert accepted, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    layers = Counter(network.get_layer(index).type for index in range(network.num_layers))
    model = onnx.load(quantized_bundle / f"onnx/{name}.onnx")
    nodes = Counter(node.op_type for node in model.graph.node)
    assert layers[trt.LayerType.QUANTIZE] == nodes["QuantizeLinear"]
    assert layers[trt.LayerType.DEQUANTIZE] == nodes["DequantizeLinear"]
    assert (network.get_input(0).name, network.get_output(0).name) == ("pixel_values", "visual_tokens")
    assert network.get_output(0).dtype == trt.float32


@pytest.mark.parametrize(
    ("name", "capability"),
    [("int8-cuda", "SM86"), ("weights-rtx", "SM86"), ("fp8", "SM89")],
)
def test_engines_are_built(parse, log, name, capability):
    """Where the hardware has the number formats, the builder gives an engine without a warning."""
    builder, network, _, _ = parse(name)
    log.messages.clear()
    engine = build(builder, network, capability)
    assert engine is not None, log.messages
    assert engine.nbytes > 0
    assert log.messages == []


def test_fp8_is_refused_where_there_is_none(parse, log):
    """Compute capability 8.6 has no FP8, and the builder says so."""
    builder, network, _, accepted = parse("fp8")
    assert accepted
    assert build(builder, network, "SM86") is None
    assert any(
        "Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3"
        in message
        for message in log.messages
    )


def test_the_dialect_of_the_cpu_is_refused(parse):
    """Unsigned activations with a zero point are for CPUs; the parser says so."""
    *_, parser, accepted = parse("int8-cpu")
    assert not accepted
    reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    assert any("Non-zero zero point is not supported" in reason for reason in reasons)
