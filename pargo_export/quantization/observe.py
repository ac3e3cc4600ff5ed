"""Run a float graph on images and keep statistics of what its linears read.

All activations of one image are fetched at once and reduced at once (350 MB at full size); nothing of an image
is kept but counts, so memory does not grow with the number of images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pargo_calibration import TensorStatistics
from pargo_export.errors import CalibrationError
from pargo_export.quantization.attention_scores import find_score_products
from pargo_export.quantization.linears import Linear, find_linears, weight_array
from pargo_export.quantization.sessions import open_session
from pargo_export.quantization.smooth import choose_factors, find_norm_site
from pargo_export.quantization.statistics import ActivationStatistics, Observation

__all__ = ["Observer", "attention_inputs", "group_by_activation"]

Array = NDArray[np.float32]

_SELF_ATTENTION = "BlockDiagonalAttention"
_ATTENTION_INPUTS = ("query", "key", "value")


def group_by_activation(linears: list[Linear]) -> dict[str, list[Linear]]:
    """Collect the linears that read one activation, under the path of the first one."""
    groups: dict[ir.Value, list[Linear]] = defaultdict(list)
    for linear in linears:
        groups[linear.activation].append(linear)
    return {group[0].path: group for group in groups.values()}


def attention_inputs(model: ir.Model) -> dict[str, ir.Value]:
    """Return what attention products read that a recipe can quantize, as `<module path>/query`, `/key`, `/value`.

    These are the inputs of the projector's fused self-attentions, and the rotated queries and keys of the tower.
    """
    found: dict[str, ir.Value] = {}
    for product in find_score_products(model):
        found |= product.operands
    for node in model.graph:
        if node.op_type == _SELF_ATTENTION:
            path = (node.name or "").rpartition("/")[0]
            for name, value in zip(_ATTENTION_INPUTS, node.inputs, strict=True):
                if value is not None:
                    found[f"{path}/{name}"] = value
    return found


class Observer:
    """Collects statistics of a float graph.

    Args:
        graph: The `.onnx` file, float32, input normalised pixels.
        threads: CPU threads.

    Attributes:
        observation: What was seen so far; assign to continue an interrupted pass.
    """

    def __init__(self, graph: Path, *, threads: int | None = None) -> None:
        model = ir.load(graph)
        self._groups = group_by_activation(find_linears(model))
        self._values = {path: str(group[0].activation.name) for path, group in self._groups.items()}
        self._values |= {path: str(value.name) for path, value in attention_inputs(model).items()}
        self._outputs = list(dict.fromkeys(self._values.values()))
        self._input = str(model.graph.inputs[0].name)
        self._session = open_session(graph, graph.parent, outputs=self._outputs, threads=threads)
        self._factors: dict[str, Array] = {}
        self.observation = Observation()

    def prepare(self, images: Sequence[Array], strongest: float) -> None:
        """Fix the smoothing factors, before the first `update`, by the channel magnitudes of a few images.

        Args:
            images: Normalised pixels, each float32 `[1, 3, H, W]`.
            strongest: Largest exponent of the activation (`smooth.choose_factors`).
        """
        largest: dict[str, Array] = {}
        power: dict[str, Array] = {}
        sites = {path for path, group in self._groups.items() if not isinstance(find_norm_site(group), str)}
        for pixels in images:
            for path, values in self._run(pixels):
                if path in sites:
                    rows = values.reshape(-1, values.shape[-1])
                    found, square = np.abs(rows).max(axis=0), np.square(rows).mean(axis=0)
                    largest[path] = np.maximum(largest.get(path, found), found)
                    power[path] = power.get(path, np.zeros_like(square)) + square / len(images)
        for path, found in largest.items():
            weights = [weight_array(linear.weight) for linear in self._groups[path]]
            self._factors[path] = choose_factors(found, power[path], weights, strongest)

    def update(self, pixels: Array, image: str) -> None:
        """Run one image and take in its activations.

        Args:
            pixels: Normalised, float32 `[1, 3, H, W]`.
            image: Its name, for messages.

        Raises:
            CalibrationError: An activation holds NaN or infinity.
        """
        activations = self.observation.activations
        for path, values in self._run(pixels):
            if path not in activations:
                activations[path] = self._new(path, values.shape[-1])
            item = activations[path]
            item.plain.update(values)
            if item.plain.num_nonfinite:
                raise CalibrationError(
                    f"the input of {path} holds {item.plain.num_nonfinite} NaN or infinite values on {image}: ranges "
                    "would mean nothing; check the checkpoint (verify BUNDLE --checkpoint), and leave the image out "
                    "if it alone does this"
                )
            if item.smoothed is not None and item.factors is not None:
                item.smoothed.update(values / item.factors)

    def _new(self, path: str, channels: int) -> ActivationStatistics:
        factors = self._factors.get(path)
        smoothed = None if factors is None else TensorStatistics(channels)
        return ActivationStatistics(TensorStatistics(channels), smoothed, factors)

    def _run(self, pixels: Array) -> Iterator[tuple[str, Array]]:
        found = dict(zip(self._outputs, self._session.run(self._outputs, {self._input: pixels}), strict=True))
        for path, name in self._values.items():
            yield path, _channels_last(path, found[name])


def _channels_last(path: str, values: Array) -> Array:
    """Bring pixels `[B, 3, H, W]` into the form of tokens."""
    return np.moveaxis(values, 1, -1) if path == "tower.patch_embedding" and values.ndim == 4 else values
