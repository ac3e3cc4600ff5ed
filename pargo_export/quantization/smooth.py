"""Move activation outliers into the weights, exactly (SmoothQuant, Xiao et al., arXiv 2211.10438).

    (x / s) (diag(s) W) = x W

The division costs nothing where the activation is the output of a LayerNorm that nothing else reads: it goes
into the gain and the offset. So it does in front of all linears of the tower, whose blocks normalise before each
of them (EVA-02 has two LayerNorms more per block than a plain ViT). The query layers of the projector normalise
after the residual, which reads the same values: there the division would be an operator of its own, and is left out.

    s_j = max |x_j|^alpha / max_k |W_jk|^(1 - alpha),  scaled to a geometric mean of 1

The best alpha differs from activation to activation, and too large a one costs as much as none (docs/numerics.md). So
each activation gets the one with the least predicted noise at the output of its linears. With rounding errors that are uniform over a step, 255 steps over the range of an activation or of an output channel,

    noise = d_x^2 / 12 sum_j s_j^2 |W_j|^2  +  sum_k d_k^2 / 12 sum_j E[x_j^2] / s_j^2
    d_x = 2 max_j (max |x_j| / s_j) / 255,   d_k = 2 max_j |s_j W_jk| / 255
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pargo_export.quantization.linears import Linear

__all__ = ["NormSite", "choose_factors", "find_norm_site", "scale_into_norm", "smoothing_factors"]

_SMALLEST = 1e-5  # of a magnitude: a channel that is zero everywhere must not divide by zero
_NUM_ALPHAS = 9


@dataclass(frozen=True, eq=False)
class NormSite:
    """The affine part of a LayerNorm whose output only linears read.

    Attributes:
        parameters: (node, index of the input): the gain `[C]` and, if there is one, the offset `[C]`.
    """

    parameters: tuple[tuple[ir.Node, int], ...]


def find_norm_site(linears: Sequence[Linear]) -> NormSite | str:
    """Find where the common activation of `linears` can be divided, or say why it cannot.

    Args:
        linears: All linears that read one activation.
    """
    activation = linears[0].activation
    readers = {node for node, _ in activation.uses()}
    if activation.is_graph_output() or readers - {linear.node for linear in linears}:
        return "something else reads the same values, for example a residual"
    if any(linear.node.op_type == "Conv" for linear in linears):
        return "a convolution reads it"
    if any(linear.output_axis != 1 for linear in linears):
        return "a weight is stored transposed"
    producer = activation.producer()
    if producer is None:
        return "it is an input or a constant"
    if producer.op_type == "LayerNormalization":
        sites = [(producer, index) for index in range(1, len(producer.inputs)) if producer.inputs[index]]
    elif producer.op_type == "Add" and _constant_index(producer) is not None:
        sites = _affine_sites(producer)
    else:
        sites = []
    if not sites or not all(_is_vector(node.inputs[index]) for node, index in sites):
        return f"it comes from {producer.op_type}, not from the affine part of a LayerNorm"
    return NormSite(tuple(sites))


def smoothing_factors(
    channel_max_abs: NDArray[np.float32], weights: Sequence[NDArray[np.float32]], alpha: float
) -> NDArray[np.float32]:
    """Return `s`, float32 `[C]`, all positive.

    Args:
        channel_max_abs: Largest magnitude of each channel of the activation, `[C]`.
        weights: The weights that read it, each `[C, N]`.
        alpha: 0 leaves the outliers in the activation, 1 moves them into the weights.
    """
    largest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    activation = np.log(np.maximum(channel_max_abs.astype(np.float64), _SMALLEST))
    weight = np.log(np.maximum(largest.astype(np.float64), _SMALLEST))
    logarithm = alpha * activation - (1 - alpha) * weight
    return np.exp(logarithm - logarithm.mean()).astype(np.float32)


def choose_factors(
    channel_max_abs: NDArray[np.float32],
    channel_power: NDArray[np.float32],
    weights: Sequence[NDArray[np.float32]],
    strongest: float,
) -> NDArray[np.float32]:
    """Return the factors `[C]` of least predicted noise; all ones if none is better than no smoothing.

    Args:
        channel_max_abs: Largest magnitude of each channel of the activation, `[C]`.
        channel_power: Mean square of each channel, `[C]`.
        weights: The weights that read it, each `[C, N]`.
        strongest: Largest alpha to try, above 0 and up to 1.
    """
    candidates = [np.ones_like(channel_max_abs)]
    candidates += [
        smoothing_factors(channel_max_abs, weights, alpha) for alpha in np.linspace(0, strongest, _NUM_ALPHAS)
    ]
    noise = [_predicted_noise(channel_max_abs, channel_power, weights, factors) for factors in candidates]
    return candidates[int(np.argmin(noise))]


def _predicted_noise(
    channel_max_abs: NDArray[np.float32],
    channel_power: NDArray[np.float32],
    weights: Sequence[NDArray[np.float32]],
    factors: NDArray[np.float32],
) -> float:
    """Power of the rounding errors at the outputs, up to the factor that both terms share."""
    step = float((channel_max_abs / factors).max())
    noise = 0.0
    for weight in weights:
        scaled = np.abs(weight * factors[:, None])
        noise += step**2 * float((scaled**2).sum())
        noise += float((scaled.max(axis=0) ** 2).sum()) * float((channel_power / factors**2).sum())
    return noise


def scale_into_norm(site: NormSite, linears: Sequence[Linear], factors: NDArray[np.float32]) -> None:
    """Divide the activation by `factors` `[C]` and multiply the rows of the weights by them, in place.

    Padded channels, beyond the end of `factors`, stay as they are.
    """
    for node, index in site.parameters:
        _replace(node, index, lambda values: values / _padded(factors, values.shape[0]))
    for linear in linears:
        _replace(linear.node, 1, lambda values: values * _padded(factors, values.shape[0])[:, None])


def _replace(node: ir.Node, index: int, change: object) -> None:
    """Give a node an own, changed copy of a constant; other readers keep the old one."""
    old = node.inputs[index]
    assert old is not None  # noqa: S101 - a site names existing inputs only
    tensor = old.const_value
    assert tensor is not None  # noqa: S101
    values = change(tensor.numpy().astype(np.float32))  # type: ignore[operator]
    new = ir.Value(
        name=old.name if len(old.uses()) == 1 else f"{node.name}/smoothed_{index}",
        shape=old.shape,
        type=old.type,
        const_value=ir.tensor(values.astype(tensor.dtype.numpy()), name=old.name),
    )
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101
    node.replace_input_with(index, new)
    if not old.uses():
        graph.initializers.pop(old.name or "", None)
    graph.register_initializer(new)


def _padded(factors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return np.concatenate([factors, np.ones(size - factors.size, np.float32)])


def _affine_sites(add: ir.Node) -> list[tuple[ir.Node, int]]:
    """Sites of `x * gain + offset`, as the padded LayerNorm is written out."""
    offset = _constant_index(add)
    if offset is None:
        return []
    scaled = add.inputs[1 - offset]
    multiply = None if scaled is None else scaled.producer()
    if multiply is None or multiply.op_type != "Mul" or len(scaled.uses()) != 1:  # type: ignore[union-attr]
        return []
    gain = _constant_index(multiply)
    return [] if gain is None else [(multiply, gain), (add, offset)]


def _constant_index(node: ir.Node) -> int | None:
    """Index of the one constant operand."""
    constants = [i for i, value in enumerate(node.inputs) if value is not None and value.is_initializer()]
    return constants[0] if len(constants) == 1 else None


def _is_vector(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 1
