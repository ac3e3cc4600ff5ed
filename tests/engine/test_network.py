"""From a graph to a typed network: real parses, and what a parser refuses."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import onnx
import pytest
from engine.rtx import Delegate, rtx_with

from pargo_export.bundle import Bundle
from pargo_export.engine.network import create_builder, parse
from pargo_export.errors import EngineError
from pargo_export.trt import load_tensorrt

pytest.importorskip("tensorrt_rtx")


def parse_variant(bundle, name, tensorrt=None, *, graph=None, **changes):
    """Parse the graph of a variant, or another one in its place."""
    bundle = Bundle.open(bundle)
    variant = bundle.variant(name).model_copy(update=changes)
    return parse(tensorrt or load_tensorrt("rtx"), variant, graph or bundle.file(variant.graph))


@pytest.fixture
def changed(engine_bundle, tmp_path):
    """Return a function that writes a changed graph of fp16 and returns its path."""

    def changed(change):
        model = onnx.load(engine_bundle / "onnx/fp16.onnx")
        change(model)
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    return changed


def layers(parsed, kind):
    """Return the layers of a kind."""
    network = parsed.network
    return [item for item in map(network.get_layer, range(network.num_layers)) if item.type.name == kind]


class ParserOfTensorRT(Delegate):
    """The real parser, which is handed another graph than the file's, as a parser would see it that knows less."""

    def __init__(self, change, network, logger):
        super().__init__(load_tensorrt("rtx").module.OnnxParser(network, logger))
        self.change = change

    def parse_from_file(self, path):
        """Parse what a change makes of the graph."""
        model = onnx.load(path)
        self.change(model)
        return self.real.parse(model.SerializeToString())


def without_function_bodies(model):
    """Leave the calls of functions alone, as for a parser that knows no functions."""
    del model.functions[:]


def without_attention(model):
    """Make the operator Attention one that the parser does not know."""
    for node in model.graph.node:
        if node.op_type == "Attention":
            node.op_type = "LaterAttention"


@pytest.mark.parametrize("name", ["fp32", "fp16", "op", "dense", "int8", "weights", "fp8", "bf16"])
def test_graphs_are_parsed_as_they_are(engine_bundle, name):
    """Functions and the Attention operator included; the network is strongly typed."""
    parsed = parse_variant(engine_bundle, name)
    module = load_tensorrt("rtx").module
    assert parsed.network.get_flag(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert parsed.attention == Bundle.open(engine_bundle).variant(name).attention
    assert bool(parsed.notes) == (name == "op")


def test_functions_are_written_out_where_a_parser_knows_none(engine_bundle):
    """The same network results, called structured, with a note; nodes keep their modules' names."""
    direct = parse_variant(engine_bundle, "fp16")
    tensorrt = rtx_with(OnnxParser=partial(ParserOfTensorRT, without_function_bodies))
    inlined = parse_variant(engine_bundle, "fp16", tensorrt)
    assert inlined.attention == "structured"
    assert "they were written out" in inlined.notes[0]
    assert inlined.network.num_layers == direct.network.num_layers
    names = [layer.name for layer in layers(inlined, "SOFTMAX")]
    assert names
    assert any(name.startswith("projector.layers.0.cross_attention.core/") for name in names)


def test_attention_in_float32_is_made_decomposable(engine_bundle):
    """And only there: no dedicated kernel takes float32."""
    parsed = parse_variant(engine_bundle, "op")
    found = layers(parsed, "ATTENTION_INPUT")
    module = load_tensorrt("rtx").module
    for layer in found:
        layer.__class__ = module.IAttentionInputLayer
    assert found
    assert all(layer.attention.decomposable for layer in found)
    (note,) = parsed.notes
    assert note.startswith(f"{len(found)} Attention operators in float32 were marked decomposable")


def test_a_refused_node_is_named_with_its_block(engine_bundle, changed):
    """Node, operator, block, reason and mend; also where functions were tried to be written out."""

    def break_softmax(model):
        node = next(item for item in model.graph.node if item.name.startswith("tower.blocks.0.attention"))
        node.op_type = "Unheard"

    with pytest.raises(EngineError) as caught:
        parse_variant(engine_bundle, "fp16", graph=changed(break_softmax))
    message = str(caught.value)
    assert "(Unheard, in tower.blocks.0): no such operator, and no plugin of that name" in message
    assert "tower.blocks.0.attention" in message
    assert "attention 'structured'" in message


def test_a_node_inside_a_function_is_named_by_its_call(engine_bundle, changed):
    """The body of a function has no module path; the call that leads to it has."""

    def break_body(model):
        for function in model.functions:
            for node in function.node:
                if node.op_type == "Softmax":
                    node.op_type = "Unheard"

    expected = r"projector\.layers\.0\.cross_attention.*Unheard, in projector\.layers\.0"
    with pytest.raises(EngineError, match=expected):
        parse_variant(engine_bundle, "fp16", graph=changed(break_body))


def test_a_parser_without_the_attention_operator_says_to_export_another_form(engine_bundle):
    """As TensorRT before 10.14, which knows no Attention."""
    tensorrt = rtx_with(
        "tensorrt", OnnxParser=partial(ParserOfTensorRT, without_attention), __version__="10.3.0"
    )
    expected = r"TensorRT 10\.3\.0 does not take variant 'op' with attention 'attention_op'.*further nodes; .*\(fused, "
    with pytest.raises(EngineError, match=expected) as caught:
        parse_variant(engine_bundle, "op", tensorrt)
    assert "--attention structured" in str(caught.value)


def test_the_dialect_of_cpus_is_explained_by_the_parser_too(engine_bundle):
    """Should it come that far: the node, the parser's words and the mend."""
    expected = r"QuantizeLinear, in tower\.blocks\.0\).*Non-zero zero point.*quantize for TensorRT"
    with pytest.raises(EngineError, match=expected):
        parse_variant(engine_bundle, "int8-cpu", attention="structured")


def test_a_file_that_is_no_graph_is_refused(engine_bundle, tmp_path):
    """With what the log says."""
    path = tmp_path / "none.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"TensorRT for RTX .* does not (parse|take) variant 'op'"):
        parse_variant(engine_bundle, "op", graph=path)


def test_weak_typing_is_refused_where_a_module_has_it(engine_bundle):
    """TensorRT 10 has both kinds: a network that is not strongly typed must not be built."""

    class Builder(Delegate):
        def create_network(self, _flags):
            """Return a network that says of itself that it is weakly typed."""
            return SimpleNamespace(get_flag=lambda _: False)

    def create_builder(logger):
        return Builder(load_tensorrt("rtx").module.Builder(logger))

    class Flags:
        FP16 = 1

    with pytest.raises(EngineError, match="no strongly typed network"):
        parse_variant(engine_bundle, "fp16", rtx_with(Builder=create_builder, BuilderFlag=Flags))


def test_a_builder_that_does_not_start_is_explained():
    """The bindings raise where the library gives nothing, mostly for lack of a GPU."""

    def fail(_logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(EngineError, match=r"cannot start to build: .*nullptr; check the GPU"):
        create_builder(rtx_with(Builder=fail))
