"""From a causal language model of transformers to ONNX, through `torch.onnx.export(dynamo=True)`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from pargo_export._version import __version__
from pargo_export.errors import ExportError
from pargo_export.graph.quiet_exporter import quiet_exporter
from pargo_export.llm.onnx.names import ATTENTION_MASK, INPUTS_EMBEDS, LOGITS, past_names, present_names
from pargo_export.llm.onnx.record import CacheShape
from pargo_export.optional import require

__all__ = ["OPSET", "DecoderModule", "find_caches", "read_without_caches", "translate"]

OPSET = 23  # Attention, RotaryEmbedding and RMSNormalization are operators from here on
# Different numbers, so that none is taken for another one; more than one, so that none is taken for a constant.
_BATCH, _LENGTH, _PAST = 2, 3, 5


class DecoderModule(nn.Module):
    """A language model as a function of arrays alone: caches go in and come out as a flat list.

    Args:
        model: A causal language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._keeps_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, caches: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Read further positions.

        Args:
            inputs_embeds: float32 `[B, L, C]`.
            attention_mask: int64 `[B, P + L]`.
            caches: Keys and values in turns, `[B, heads, P, width]`.

        Returns:
            Logits of the last position `[B, V]`, then the caches with L more positions.
        """
        cache = _new_cache()
        for layer in range(len(caches) // 2):
            cache.update(caches[2 * layer], caches[2 * layer + 1], layer)
        options: dict[str, Any] = dict(self._keeps_last)
        if self._takes_positions:
            options["position_ids"] = count_positions(attention_mask)[:, caches[0].shape[2] :]
        output = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            **options,
        )
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return (output.logits[:, -1].float(), *present)


def _new_cache() -> Any:
    # Without the configuration, every layer keeps every position; a sliding window is then in the mask alone.
    return require("transformers.cache_utils", extra="llm", purpose="export a language model").DynamicCache()


def find_caches(model: Any, width: int) -> list[CacheShape]:
    """Run two positions and see what the model keeps: keys and values in turns, layer by layer.

    Raises:
        ExportError: It keeps anything else than one tensor of keys and one of values a layer.
    """
    cache = _new_cache()
    try:
        with torch.inference_mode():
            model(inputs_embeds=torch.zeros(1, 2, width), past_key_values=cache, use_cache=True)
        tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    except Exception as error:  # whatever a model raises on a cache that is not of its kind
        raise _no_caches(model, f"it refuses such a cache: {error}") from error
    if not tensors or any(tensor.ndim != 4 or tensor.shape[2] != 2 for tensor in tensors):
        raise _no_caches(model, f"after two positions it keeps {[list(item.shape) for item in tensors]}")
    return [CacheShape(heads=tensor.shape[1], width=tensor.shape[3]) for tensor in tensors]


def _no_caches(model: Any, found: str) -> ExportError:
    return ExportError(
        f"{type(model).__name__} cannot be exported: expected a decoder that keeps keys and values [B, heads, positions, "
        f"width] of each layer, but {found}; run it with transformers"
    )


def read_without_caches(
    model: Any, embeddings: NDArray[np.float32], attention_mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the logits `[B, V]` of the last position: the model itself reads the whole sequence, and keeps nothing."""
    mask = torch.from_numpy(attention_mask)
    options = {}
    if "position_ids" in inspect.signature(model.forward).parameters:
        options["position_ids"] = count_positions(mask)
    with torch.inference_mode():
        output = model(
            inputs_embeds=torch.from_numpy(embeddings), attention_mask=mask, use_cache=False, **options
        )
    logits: NDArray[np.float32] = output.logits[:, -1].float().numpy()
    return logits


def count_positions(attention_mask: Tensor) -> Tensor:
    """Return the position of each token as `generate` of transformers counts: padding on the left does not count."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


def translate(model: Any, width: int, caches: Sequence[CacheShape]) -> ir.Model:
    """Trace a language model and return it as an ONNX graph.

    Inputs: `inputs_embeds` float32 `[batch, length, C]`, `attention_mask` int64 `[batch, past + length]`, and
    `past_key_values.N.key`, `.value` float32 `[batch, heads, past, width]`. Outputs: `logits` float32 `[batch, V]` of
    the last position, and `present.N.key`, `.value`.

    Args:
        model: A causal language model of transformers, float32, on the CPU.
        width: C, the width of its embeddings.
        caches: What `find_caches` found.

    Raises:
        ExportError: PyTorch cannot trace or translate it; the message carries the first line.
    """
    layers = len(caches) // 2
    examples = (
        torch.zeros(_BATCH, _LENGTH, width),
        torch.ones(_BATCH, _PAST + _LENGTH, dtype=torch.int64),
        [torch.zeros(_BATCH, cache.heads, _PAST, cache.width) for cache in caches],
    )
    varies = torch.export.Dim.DYNAMIC
    shapes = ({0: varies, 1: varies}, {0: varies, 1: varies}, [{0: varies, 2: varies}] * len(caches))
    try:
        with quiet_exporter(Warning), torch.no_grad():
            program = torch.onnx.export(
                DecoderModule(model).eval(),
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUTS_EMBEDS, ATTENTION_MASK, *past_names(layers)],
                output_names=[LOGITS, *present_names(layers)],
                dynamic_shapes=shapes,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        first_line = str(error).strip().splitlines()[0]
        raise ExportError(
            f"PyTorch {torch.__version__} could not export {type(model).__name__}: {first_line}; run it with transformers"
        ) from error
    if program is None:
        raise ExportError(
            "PyTorch returned no ONNX program; expected one from torch.onnx.export(dynamo=True)"
        )
    graph_model: ir.Model = program.model
    _describe(graph_model, type(model).__name__)
    return graph_model


def _describe(model: ir.Model, name: str) -> None:
    """Name what varies, and remove what tells of the machine: the exporter leaves stack traces in the metadata."""
    ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "pargo-export", __version__
    model.graph.name = name
    graph = model.graph
    lengths = {INPUTS_EMBEDS: (1, "length"), ATTENTION_MASK: (1, "past + length")}
    for value in (*graph.inputs, *graph.outputs):
        shape: list[Any] = list(value.shape or ())
        shape[0] = "batch"
        if value.name in lengths:
            axis, label = lengths[value.name]
            shape[axis] = label
        elif value.name != LOGITS:
            shape[2] = "past" if value in graph.inputs else "past + length"
        value.shape = ir.Shape(shape)
