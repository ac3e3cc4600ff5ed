"""What the shapes of a checkpoint tell about its configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

from pargo_export.checkpoint.source import StoredTensor
from pargo_export.checkpoint.statements import Statement

__all__ = ["Facts", "infer_facts"]

Facts = Mapping[str, tuple[Statement, ...]]

# field, tensor, axis. Several witnesses of a field: a configuration is right if one of them agrees, and the
# tensors that disagree are misshapen, which the strict comparison with the built model reports.
_WITNESSES = (
    ("vision.width", "tower.embedding.position", 2),
    ("vision.width", "tower.embedding.class_token", 2),
    ("vision.width", "tower.patch_embedding.bias", 0),
    ("vision.width", "output_norm.weight", 0),
    ("vision.patch_size", "tower.patch_embedding.weight", 2),
    ("vision.patch_size", "tower.patch_embedding.weight", 3),
    ("vision.in_channels", "tower.patch_embedding.weight", 1),
    ("vision.hidden_width", "tower.blocks.0.mlp.gate_up.gate.bias", 0),
    ("vision.hidden_width", "tower.blocks.0.mlp.gate_up.up.bias", 0),
    ("vision.hidden_width", "tower.blocks.0.mlp.norm.weight", 0),
    ("vision.head_features", "tower.head.weight", 0),
    ("vision.head_features", "tower.head.bias", 0),
    ("projector.num_query_tokens", "projector.embedding.query_tokens", 1),
    ("projector.hidden_size", "projector.embedding.query_tokens", 2),
    ("projector.hidden_size", "projector.embedding.norm.weight", 0),
    ("projector.hidden_size", "projector.layers.0.feed_forward.norm.weight", 0),
    ("projector.max_position_embeddings", "projector.embedding.position", 0),
    ("projector.intermediate_size", "projector.layers.0.feed_forward.up.bias", 0),
    ("projector.intermediate_size", "projector.layers.0.feed_forward.up.weight", 0),
    ("projector.intermediate_size", "projector.layers.0.feed_forward.down.weight", 1),
    ("projector.encoder_width", "projector.layers.0.cross_attention.key_value.key.weight", 1),
    ("projector.encoder_width", "projector.layers.0.cross_attention.key_value.value.weight", 1),
    ("projector.encoder_width", "output_norm.weight", 0),
    ("projector.llm_hidden_size", "projector.llm_projection.bias", 0),
    ("projector.llm_hidden_size", "projector.llm_projection.weight", 0),
    ("projector.llm_hidden_size", "projector.llm_projection.2.bias", 0),
    ("projector.llm_hidden_size", "projector.llm_projection.0.bias", 0),
)
_CROSS = re.compile(r"projector\.layers\.(\d+)\.cross_attention\.")


def infer_facts(tensors: Mapping[str, StoredTensor], rotary_table: StoredTensor | None) -> Facts:
    """Read fields of the configuration off the shapes.

    Args:
        tensors: Weights under our names; some may be missing.
        rotary_table: A rotary buffer `[N, D]`, if the checkpoint stores one: only it shows the head width.

    Returns:
        Field -> what each tensor that knows it says, the most direct one first.
    """
    facts: dict[str, list[Statement]] = {}
    for name, tensor, axis in _WITNESSES:
        if tensor in tensors and axis < len(tensors[tensor].shape):
            _add(facts, name, tensors[tensor].shape[axis], tensors[tensor])
    if rotary_table is not None and len(rotary_table.shape) == 2:
        _add(facts, "vision.head_width", rotary_table.shape[1], rotary_table)
    _infer_image_size(facts, tensors)
    _infer_layers(facts, tensors)
    _infer_family(facts, tensors)
    return {name: tuple(found) for name, found in facts.items()}


def _add(facts: dict[str, list[Statement]], name: str, value: object, evidence: StoredTensor) -> None:
    wording = f"checkpoint tensor {evidence.key} has shape {list(evidence.shape)}"
    facts.setdefault(name, []).append(Statement(value, wording))


def _infer_image_size(facts: dict[str, list[Statement]], tensors: Mapping[str, StoredTensor]) -> None:
    position = tensors.get("tower.embedding.position")
    patch = facts.get("vision.patch_size")
    if position is None or patch is None or len(position.shape) != 3:
        return
    grid = isqrt(max(position.shape[1] - 1, 0))
    if grid and grid * grid == position.shape[1] - 1:
        _add(facts, "vision.image_size", grid * patch[0].value, position)


def _infer_layers(facts: dict[str, list[Statement]], tensors: Mapping[str, StoredTensor]) -> None:
    for name, prefix in (
        ("vision.num_layers", "tower.blocks."),
        ("projector.num_layers", "projector.layers."),
    ):
        indices = {
            int(key.removeprefix(prefix).partition(".")[0]): key for key in tensors if key.startswith(prefix)
        }
        if indices:
            last = max(indices)
            wording = (
                f"checkpoint tensor {tensors[indices[last]].key} belongs to the last of {last + 1} layers"
            )
            facts[name] = [Statement(last + 1, wording)]
    crossing = sorted({int(found.group(1)) for key in tensors if (found := _CROSS.match(key))})
    if crossing and "projector.num_layers" in facts:
        num_layers = facts["projector.num_layers"][0].value
        freq = crossing[1] - crossing[0] if len(crossing) > 1 else num_layers
        regular = list(range(0, num_layers, freq)) == crossing
        wording = f"the checkpoint has cross-attention in layers {crossing} of {num_layers}"
        facts["projector.cross_attention_freq"] = [Statement(freq if regular else None, wording)]


def _infer_family(facts: dict[str, list[Statement]], tensors: Mapping[str, StoredTensor]) -> None:
    first = tensors.get("projector.llm_projection.0.weight")
    only = tensors.get("projector.llm_projection.weight")
    queries = tensors.get("projector.embedding.query_tokens")
    if queries is not None or any(key.startswith("projector.layers.") for key in tensors):
        evidence = queries or next(
            tensor for key, tensor in tensors.items() if key.startswith("projector.layers.")
        )
        _add(facts, "projector.family", "queries", evidence)
        return
    for family, tensor in (("mlp", first), ("linear", only)):
        width = facts.get("vision.width")
        if tensor is not None:
            _add(facts, "projector.family", family, tensor)
            if width is not None and len(tensor.shape) == 2 and tensor.shape[1] % width[0].value == 0:
                _add(facts, "projector.tokens_per_group", tensor.shape[1] // width[0].value, tensor)
            return
