"""What a parsed network multiplies in: every linear with the types that its operands have.

The network is typed by the graph, so this is what TensorRT was asked for; which kernels it chooses is for the
engine to show (`inspection_layers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

from pargo_export.engine.inspection_layers import onnx_nodes
from pargo_export.trt.api import TensorRTModule, sizes_of

if TYPE_CHECKING:
    from tensorrt import IConvolutionLayer, ILayer, IMatrixMultiplyLayer, INetworkDefinition, ITensor

__all__ = ["NetworkContents", "Product", "read_network"]

_FLOATS = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
_QUANTIZED = {"INT8": "int8", "FP8": "fp8", "INT4": "int4", "FP4": "nvfp4"}
_HALVES = {"HALF", "BF16"}
# They move values and do not change them.
_TRANSPARENT = {"IDENTITY", "SHUFFLE", "SQUEEZE", "UNSQUEEZE"}
_PRODUCTS = {"CONVOLUTION", "MATRIX_MULTIPLY"}
_PLUGINS = {"PLUGIN", "PLUGIN_V2", "PLUGIN_V3"}


@dataclass(frozen=True)
class Product:
    """One product of matrices.

    Attributes:
        node: The ONNX node, for example `tower.blocks.3.mlp.down/MatMul`.
        precision: What it multiplies: `float32`, `float16`, `bfloat16`, `int8`, `fp8`, `int8_weight_only`, ...
        flops: Operations for one image; a multiply-add is two.
    """

    node: str
    precision: str
    flops: float

    @property
    def path(self) -> str:
        """Module path, for example `tower.blocks.3.mlp.down`."""
        return self.node.rpartition("/")[0]


@dataclass(frozen=True)
class NetworkContents:
    """What was found in a network.

    Attributes:
        linears: Products with a weight.
        attention_products: Products of two activations.
        attention: Forms of the query layers' attention: `plugin`, `fused kernel`, `decomposed`.
        casts: Conversions that should not be there, each with the reason.
    """

    linears: tuple[Product, ...]
    attention_products: tuple[Product, ...]
    attention: frozenset[str]
    casts: tuple[str, ...]


@dataclass(frozen=True)
class _Operand:
    """Where an operand of a product comes from, behind layers that only move it."""

    dtype: str
    quantized: str | None
    constant: bool
    widened: tuple[str, ...]  # casts of halves to float32 on the way


class _Graph:
    """The layers of a network, with who writes a tensor and who reads it."""

    def __init__(self, network: INetworkDefinition) -> None:
        self.layers = [network.get_layer(index) for index in range(network.num_layers)]
        self._producers: dict[str, ILayer] = {}
        self._readers: dict[str, list[ILayer]] = {}
        self._dynamic: dict[str, int] = {}
        for layer in self.layers:
            inputs = inputs_of(layer)
            for tensor in inputs:
                self._readers.setdefault(tensor.name, []).append(layer)
            for index in range(layer.num_outputs):
                output = layer.get_output(index)
                self._producers[output.name] = layer
                if -1 in sizes_of(output.shape):
                    self._dynamic[output.name] = self._solve(layer, output, inputs)

    def _solve(self, layer: ILayer, output: ITensor, inputs: list[ITensor]) -> int:
        """Size of the dynamic axes of an output for one image: tiles are folded into the batch axis."""
        if layer.type.name == "SHUFFLE":
            return max(self.volume(inputs[0]) // max(_known(output), 1), 1)
        return max((self._dynamic.get(tensor.name, 1) for tensor in inputs), default=1)

    def volume(self, tensor: ITensor) -> int:
        """Elements of a tensor for one image."""
        return _known(tensor) * self._dynamic.get(tensor.name, 1)

    def operand(self, tensor: ITensor) -> _Operand:
        """Follow an operand back to what computes it, or to a constant."""
        dtype = tensor.dtype.name
        quantized: str | None = None
        widened: list[str] = []
        crossed_cast = False
        while (layer := self._producers.get(tensor.name)) is not None:
            kind = layer.type.name
            if kind == "CONSTANT":
                return _Operand(dtype, quantized, constant=True, widened=tuple(widened))
            if kind == "DEQUANTIZE" and quantized is None and not crossed_cast:
                quantized = layer.get_input(0).dtype.name
            elif kind == "CAST" and quantized is None:
                # A conversion behind DequantizeLinear stands between it and the product: they do not fuse.
                crossed_cast = True
                if layer.get_input(0).dtype.name in _HALVES and layer.get_output(0).dtype.name == "FLOAT":
                    widened.append(node_of(layer))
            elif kind not in _TRANSPARENT | {"CAST", "DEQUANTIZE", "QUANTIZE"}:
                break
            tensor = layer.get_input(0)
        return _Operand(dtype, quantized, constant=False, widened=tuple(widened))

    def reaches_product(self, tensor: ITensor) -> bool:
        """Whether a product reads the tensor, behind DequantizeLinear and layers that only move values."""
        for layer in self._readers.get(tensor.name, []):
            kind = layer.type.name
            if kind in _PRODUCTS:
                return True
            passes = kind in _TRANSPARENT or kind == "DEQUANTIZE"
            if passes and self.reaches_product(layer.get_output(0)):
                return True
        return False


def read_network(module: TensorRTModule, network: INetworkDefinition) -> NetworkContents:
    """List the products of a network, the forms of its attention and its unexpected casts.

    Args:
        module: `tensorrt` or `tensorrt_rtx`.
        network: The parsed `INetworkDefinition`.
    """
    graph = _Graph(network)
    linears: list[Product] = []
    others: list[Product] = []
    casts: list[str] = []
    forms: set[str] = set()
    for layer in graph.layers:
        kind, node = layer.type.name, node_of(layer)
        if kind in _PRODUCTS:
            activation, weight = _operands(graph, layer, kind)
            product = Product(node, _precision(activation, weight), _flops(module, graph, layer, kind))
            (linears if weight.constant else others).append(product)
            casts += [
                f"{cast}: to float32 in front of {node}" for cast in (*activation.widened, *weight.widened)
            ]
        elif kind == "QUANTIZE" and not graph.reaches_product(layer.get_output(0)):
            casts.append(f"{node}: quantized, but read by no product")
        elif not node.startswith("tower."):
            forms |= _attention_form(module, layer, kind)
    return NetworkContents(tuple(linears), tuple(others), frozenset(forms), tuple(dict.fromkeys(casts)))


def inputs_of(layer: ILayer) -> list[ITensor]:
    """Return the inputs of a layer that are there."""
    found = (layer.get_input(index) for index in range(layer.num_inputs))
    return [tensor for tensor in found if tensor is not None]


def node_of(layer: ILayer) -> str:
    """Return the ONNX node that a layer was made from; for the body of a function, the node that calls it."""
    nodes = onnx_nodes(layer.metadata)
    return nodes[0] if nodes else layer.name


def _known(tensor: ITensor) -> int:
    return prod(size for size in sizes_of(tensor.shape) if size != -1)


def _operands(graph: _Graph, layer: ILayer, kind: str) -> tuple[_Operand, _Operand]:
    """Return activation and weight; a weight is a constant matrix on the right, or the kernel of a convolution."""
    activation = graph.operand(layer.get_input(0))
    right = layer.get_input(1) if layer.num_inputs > 1 else None
    if right is None:  # the kernel is no tensor
        return activation, _Operand(activation.dtype, None, constant=True, widened=())
    weight = graph.operand(right)
    is_matrix = kind == "CONVOLUTION" or prod(right.shape[:-2]) == 1
    return activation, weight if is_matrix else _Operand(
        weight.dtype, weight.quantized, False, weight.widened
    )


def _precision(activation: _Operand, weight: _Operand) -> str:
    if weight.quantized is None:
        return _FLOATS.get(weight.dtype, weight.dtype.lower())
    name = _QUANTIZED.get(weight.quantized, weight.quantized.lower())
    return name if activation.quantized == weight.quantized else f"{name}_weight_only"


def _flops(module: TensorRTModule, graph: _Graph, layer: ILayer, kind: str) -> float:
    """Operations for one image. The layers of a network come as `ILayer`; the class says what they are."""
    output, left = layer.get_output(0), layer.get_input(0)
    if kind == "CONVOLUTION":
        layer.__class__ = module.IConvolutionLayer
        convolution = cast("IConvolutionLayer", layer)
        depth = left.shape[1] // convolution.num_groups * prod(sizes_of(convolution.kernel_size_nd))
    else:
        layer.__class__ = module.IMatrixMultiplyLayer
        product = cast("IMatrixMultiplyLayer", layer)
        depth = left.shape[-2 if product.op0.name == "TRANSPOSE" else -1]
    return 2.0 * graph.volume(output) * max(depth, 1)


def _attention_form(module: TensorRTModule, layer: ILayer, kind: str) -> set[str]:
    if kind in _PLUGINS:
        return {"plugin"}
    if kind == "SOFTMAX":
        return {"decomposed"}
    if kind == "ATTENTION_INPUT":  # from TensorRT 10.14
        later: Any = module  # than the stubs
        layer.__class__ = later.IAttentionInputLayer
        # One that may not be decomposed is a kernel of its own, or the build fails.
        return {"decomposed" if cast("Any", layer).attention.decomposable else "fused kernel"}
    return set()
