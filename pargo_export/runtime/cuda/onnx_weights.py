"""Read the weights of a variant from its ONNX file.

Weights are found by the nodes that read them, not by their own names: equal small tensors are stored once under the
name of one reader, and quantization renames what it changes. Nodes carry the path of their module
(`pargo_export/graph/naming.py`):

    path/MatMul, path/Conv       path.weight, or an 8-bit one behind a DequantizeLinear
    path/Add                     path.bias, where it adds a vector to the product or to a norm written out
    path/LayerNormalization      path.weight and path.bias
    anything else                the name of the constant: tables, precomputed queries
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from pargo_export.errors import BackendError
from pargo_export.runtime.cuda.weights import QuantizedWeight, Weights

__all__ = ["read_weights"]

_HALF = "/half"  # suffix of a constant that exists in float32 too
# NumPy has no such types: the bits are read, and named again by PyTorch.
_BITS = {
    ir.DataType.BFLOAT16: (np.uint16, torch.bfloat16),
    ir.DataType.FLOAT8E4M3FN: (np.uint8, torch.float8_e4m3fn),
}


def read_weights(path: Path, device: torch.device | str = "cpu") -> Weights:
    """Read a graph of this package; external data are mapped, and copied to the device tensor by tensor.

    Raises:
        BackendError: The file cannot be read, or a linear is quantized in a way that this backend does not compute.
    """
    try:
        graph = ir.load(path).graph
        tensors = {name: _read(value, device) for name, value in _named_constants(graph)}
        quantized: dict[str, QuantizedWeight] = {}
        for node in graph:
            module = (node.name or "").rpartition("/")[0]
            if node.op_type in {"MatMul", "Conv"}:
                _read_linear(node, module, tensors, quantized, device)
            elif node.op_type == "LayerNormalization":
                for index, part in ((1, "weight"), (2, "bias")):
                    if value := _constant(node, index):
                        tensors[f"{module}.{part}"] = _read(value, device)
            elif node.op_type == "Add":
                _read_offset(node, module, tensors, device)
    except BackendError:
        raise
    except Exception as error:  # of files, of protobuf and of onnx_ir: they share no base
        raise BackendError(
            f"{path.name} cannot be read: {error}; copy the bundle to plain files of its own (cp -r), or export again"
        ) from error
    return Weights(tensors, quantized, device=device)


def _named_constants(graph: ir.Graph) -> Iterator[tuple[str, ir.Value]]:
    """Constants that no linear or norm reads, such as `tower.embedding.table`; half ones last, to overrule."""
    values = sorted(graph.initializers.values(), key=lambda value: str(value.name).endswith(_HALF))
    for value in values:
        name = str(value.name).removesuffix(_HALF)
        is_parameter = "/" in name or name.endswith((".weight", ".bias"))
        if not is_parameter and value.dtype is not None and value.dtype.is_floating_point():
            yield name, value


def _constant(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value if value is not None and value.is_initializer() else None


def _read(value: ir.Value, device: torch.device | str) -> Tensor:
    tensor = value.const_value
    if tensor is None:
        raise BackendError(f"constant {value.name!r} has no value; export the graph again")
    array = tensor.numpy()
    bits, dtype = _BITS.get(tensor.dtype, (None, None))
    if bits is None or dtype is None:
        return torch.from_numpy(np.array(array)).to(device)
    return torch.from_numpy(np.array(array.view(bits))).view(dtype).to(device)


def _read_linear(
    node: ir.Node,
    module: str,
    tensors: dict[str, Tensor],
    quantized: dict[str, QuantizedWeight],
    device: torch.device | str,
) -> None:
    """Read the weight of a product, unless both operands are activations."""
    is_product = node.op_type == "MatMul"
    if weight := _constant(node, 1):
        values = _read(weight, device)
        tensors[f"{module}.weight"] = values.t().contiguous() if is_product else values
    else:
        source = node.inputs[1].producer() if node.inputs[1] is not None else None
        stored = _constant(source, 0) if source is not None and source.op_type == "DequantizeLinear" else None
        if source is None or stored is None:
            return
        values, scales = _read(stored, device), _read_scale(source, device)
        values = values.t().contiguous() if is_product else values.flatten(1)
        scales = scales.expand(values.shape[0]).contiguous()
        quantized[module] = QuantizedWeight(values, scales, _activation_scale(node, module, device))
    if not is_product and (bias := _constant(node, 2)):
        tensors[f"{module}.bias"] = _read(bias, device)


def _read_scale(node: ir.Node, device: torch.device | str) -> Tensor:
    scale = _constant(node, 1)
    if scale is None:
        raise BackendError(f"{node.name}: its scale is not a constant; quantize again")
    return _read(scale, device).float()


def _activation_scale(node: ir.Node, module: str, device: torch.device | str) -> Tensor:
    """Return the scale of the activation of a quantized product.

    Raises:
        BackendError: It is not quantized, or not symmetrically.
    """
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        raise BackendError(
            f"{module}: only its weight is quantized; this backend needs 8-bit activations too"
        )
    zero_point = _constant(source, 2)
    if zero_point is not None and zero_point.dtype == ir.DataType.UINT8:
        raise BackendError(
            f"{module}: its activation is quantized with a zero point, for CPUs; quantize for a GPU: "
            "pargo-export quantize --int8 --target cuda"
        )
    return _read_scale(source, device)


def _read_offset(node: ir.Node, module: str, tensors: dict[str, Tensor], device: torch.device | str) -> None:
    """Read what an Add adds to a product or to a norm that is written out: `x * gain + offset`."""
    for index in (0, 1):
        offset, other = _constant(node, index), node.inputs[1 - index]
        source = other.producer() if other is not None else None
        if offset is None or source is None or offset.shape is None or len(offset.shape) != 1:
            continue
        if (source.name or "").rpartition("/")[0] != module:
            continue
        if source.op_type == "Mul":
            gain = _constant(source, 0) or _constant(source, 1)
            if gain is None:
                continue
            tensors[f"{module}.weight"] = _read(gain, device)
        elif source.op_type != "MatMul":
            continue
        tensors[f"{module}.bias"] = _read(offset, device)
