"""From the graph of a variant to a parsed, strongly typed network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pargo_export.bundle import Variant
from pargo_export.engine.inline import without_functions
from pargo_export.engine.refusals import describe_parser_refusal, read_parser_errors
from pargo_export.errors import EngineError
from pargo_export.optional import require
from pargo_export.trt import TensorRT
from pargo_export.trt.plugins import PluginSet

if TYPE_CHECKING:
    from tensorrt import Builder, INetworkDefinition, OnnxParser

__all__ = ["ParsedNetwork", "create_builder", "parse"]


@dataclass(frozen=True)
class ParsedNetwork:
    """A network that is ready to be built. TensorRT's objects need each other alive, so they are kept together.

    Attributes:
        builder: TensorRT's builder.
        network: Its network.
        parser: The parser, which holds the weights.
        attention: Attention form that was parsed: that of the variant, or `"structured"`.
        notes: What was done differently, for people.
    """

    builder: Builder
    network: INetworkDefinition
    parser: OnnxParser
    attention: str
    notes: tuple[str, ...] = ()


def create_builder(tensorrt: TensorRT) -> Builder:
    """Return a builder.

    Raises:
        EngineError: TensorRT makes none; mostly because it finds no GPU.
    """
    with tensorrt.log.watch() as log:
        try:
            return tensorrt.module.Builder(tensorrt.logger)
        except (
            Exception
        ) as error:  # the bindings raise TypeError or RuntimeError where the library returned nothing
            raise EngineError(
                f"{tensorrt.title} cannot start to build: {log.reason(str(error))}; check the GPU with `pargo-export "
                "doctor`"
            ) from error


def parse(
    tensorrt: TensorRT, variant: Variant, graph: Path, *, plugins: PluginSet | None = None
) -> ParsedNetwork:
    """Parse a graph as it is, and if the parser does not take its functions, with them written out.

    Args:
        tensorrt: What parses.
        variant: The variant that the graph belongs to.
        graph: The `.onnx` file, weights beside it.
        plugins: The plugins to prefer; `None` for none.

    Raises:
        EngineError: The parser takes neither; the message names the nodes and their blocks.
    """
    builder = create_builder(tensorrt)
    with tensorrt.log.watch():
        network = _create_network(tensorrt, builder)
        parser = _create_parser(tensorrt, network, plugins)
        if plugins is not None and plugins.needs_functions_removed:
            accepted = parser.parse(_plugin_nodes_alone(graph, plugins), str(graph))
        else:
            accepted = parser.parse_from_file(str(graph))
        if accepted:
            notes = _allow_decomposition(tensorrt, network)
            return ParsedNetwork(builder, network, parser, variant.attention, notes)
        message = describe_parser_refusal(tensorrt, variant, read_parser_errors(parser))
    if variant.attention != "fused":
        raise EngineError(message)
    with tensorrt.log.watch():
        network = _create_network(tensorrt, builder)
        parser = _create_parser(tensorrt, network, None)
        # The path says where the weights lie.
        if not parser.parse(without_functions(graph), str(graph)):
            raise EngineError(message)
    note = f"{tensorrt.title} does not take the functions of the graph, so they were written out"
    notes = (note, *_allow_decomposition(tensorrt, network))
    return ParsedNetwork(builder, network, parser, "structured", notes)


def _plugin_nodes_alone(graph: Path, plugins: PluginSet) -> bytes:
    """Return the model without the functions that plugins take over, for a parser that prefers functions."""
    onnx = require("onnx", extra="quantize", purpose="build an engine with plugins by this TensorRT")
    model = onnx.load(graph, load_external_data=False)
    plugins.remove_functions(model)
    return bytes(model.SerializeToString())


def _create_network(tensorrt: TensorRT, builder: Builder) -> INetworkDefinition:
    """Create a strongly typed network.

    In TensorRT 10 that is a flag; from 11 on, and in TensorRT for RTX, there is no other kind, and 11 ignores the flag.
    """
    module = tensorrt.module
    flag = module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    may_be_weak = hasattr(module.BuilderFlag, "FP16")
    if network is None or (may_be_weak and not network.get_flag(flag)):
        raise EngineError(
            f"{tensorrt.title} gives no strongly typed network, without which precision is a guess of the builder; "
            "install TensorRT 10.3 or later"
        )
    return network


def _create_parser(tensorrt: TensorRT, network: INetworkDefinition, plugins: PluginSet | None) -> OnnxParser:
    parser = tensorrt.module.OnnxParser(network, tensorrt.logger)
    if plugins is not None:
        plugins.apply(parser)
    return parser


def _allow_decomposition(tensorrt: TensorRT, network: INetworkDefinition) -> tuple[str, ...]:
    """Let `Attention` operators in float32 be computed as products and softmax: no dedicated kernel takes float32.

    The ONNX parser has no option for it, and the Python bindings hand out the plain base class of the layer.
    """
    module = tensorrt.module
    layer_class = getattr(module, "IAttentionInputLayer", None)
    if layer_class is None:
        return ()
    attention_input = cast("Any", module.LayerType).ATTENTION_INPUT  # later than the stubs, as the class is
    names = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type != attention_input or layer.get_input(0).dtype != module.float32:
            continue
        layer.__class__ = layer_class
        cast("Any", layer).attention.decomposable = True
        names.append(layer.name)
    if not names:
        return ()
    return (
        f"{len(names)} Attention operators in float32 were marked decomposable; no dedicated kernel takes them",
    )
