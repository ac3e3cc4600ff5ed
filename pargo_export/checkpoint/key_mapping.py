"""The names of the official code against ours: the only place, with `official_config`, where theirs appear.

Every official key has one of four roles: a weight of the front-end, a buffer derived from the
configuration, a part of the multimodal model that is not the visual front-end, or unexpected (None).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pargo_export.checkpoint.vit_keys import OTHER_VIT_PARTS, VIT_MODULES, VIT_TENSORS

__all__ = [
    "Derived",
    "DerivedKind",
    "KeyRole",
    "OtherPart",
    "Weight",
    "canonical_names",
    "classify",
    "is_clip_file",
    "language_model_keys",
    "official_buffers",
    "official_name",
]

DerivedKind: TypeAlias = Literal["rotary_cosines", "rotary_sines", "position_indices"]


@dataclass(frozen=True)
class Weight:
    """A weight of the visual front-end; `name` is its key in our state dict."""

    name: str


@dataclass(frozen=True)
class Derived:
    """A buffer that the configuration determines; it is checked, not loaded."""

    kind: DerivedKind


@dataclass(frozen=True)
class OtherPart:
    """A tensor of a part that is not the visual front-end; `group` names the part."""

    group: str


KeyRole: TypeAlias = Weight | Derived | OtherPart | None

_BLOCK = "visual_encoder.blocks.{}."
_LAYER = "ParGo.bert.encoder.layer.{}."

# Ours -> official; each stands for a weight and a bias.
_MODULES = {
    "tower.patch_embedding": "visual_encoder.patch_embed.proj",
    "tower.blocks.{}.norm1": _BLOCK + "norm1",
    "tower.blocks.{}.attention.inner_norm": _BLOCK + "attn.inner_attn_ln",
    "tower.blocks.{}.attention.output": _BLOCK + "attn.proj",
    "tower.blocks.{}.norm2": _BLOCK + "norm2",
    "tower.blocks.{}.mlp.gate_up.gate": _BLOCK + "mlp.w1",
    "tower.blocks.{}.mlp.gate_up.up": _BLOCK + "mlp.w2",
    "tower.blocks.{}.mlp.norm": _BLOCK + "mlp.ffn_ln",
    "tower.blocks.{}.mlp.down": _BLOCK + "mlp.w3",
    "tower.final_norm": "visual_encoder.norm",
    "tower.head": "visual_encoder.head",
    "output_norm": "ln_vision",
    "projector.embedding.norm": "ParGo.bert.embeddings.LayerNorm",
    "projector.layers.{}.self_attention.qkv.query": _LAYER + "attention.self.query",
    "projector.layers.{}.self_attention.qkv.key": _LAYER + "attention.self.key",
    "projector.layers.{}.self_attention.qkv.value": _LAYER + "attention.self.value",
    "projector.layers.{}.self_attention.output": _LAYER + "attention.output.dense",
    "projector.layers.{}.self_attention.norm": _LAYER + "attention.output.LayerNorm",
    "projector.layers.{}.cross_attention.query": _LAYER + "crossattention.self.query",
    "projector.layers.{}.cross_attention.key_value.key": _LAYER + "crossattention.self.key",
    "projector.layers.{}.cross_attention.key_value.value": _LAYER + "crossattention.self.value",
    "projector.layers.{}.cross_attention.output": _LAYER + "crossattention.output.dense",
    "projector.layers.{}.cross_attention.norm": _LAYER + "crossattention.output.LayerNorm",
    "projector.layers.{}.feed_forward.up": _LAYER + "intermediate_query.dense",
    "projector.layers.{}.feed_forward.down": _LAYER + "output_query.dense",
    "projector.layers.{}.feed_forward.norm": _LAYER + "output_query.LayerNorm",
    "projector.llm_projection": "llm_proj",
    "projector.llm_projection.{}": "llm_proj.{}",
}
_TENSORS = {
    "tower.embedding.class_token": "visual_encoder.cls_token",
    "tower.embedding.position": "visual_encoder.pos_embed",
    "tower.blocks.{}.attention.qkv.query.weight": _BLOCK + "attn.q_proj.weight",
    "tower.blocks.{}.attention.qkv.query.bias": _BLOCK + "attn.q_bias",
    "tower.blocks.{}.attention.qkv.key.weight": _BLOCK + "attn.k_proj.weight",
    "tower.blocks.{}.attention.qkv.value.weight": _BLOCK + "attn.v_proj.weight",
    "tower.blocks.{}.attention.qkv.value.bias": _BLOCK + "attn.v_bias",
    "projector.embedding.query_tokens": "query_tokens",
    "projector.embedding.position": "ParGo.bert.embeddings.position_embeddings.weight",
}
_TO_OFFICIAL = _TENSORS | {
    f"{ours}.{part}": f"{official}.{part}"
    for ours, official in _MODULES.items()
    for part in ("weight", "bias")
}
_VIT_TO_OFFICIAL = VIT_TENSORS | {
    f"{ours}.{part}": f"{theirs}.{part}"
    for ours, theirs in VIT_MODULES.items()
    for part in ("weight", "bias")
}
_TO_OURS = {official: ours for names in (_TO_OFFICIAL, _VIT_TO_OFFICIAL) for ours, official in names.items()}
_ROTARY = "rope.freqs_"
_TOWER_BUFFERS: dict[str, DerivedKind] = {
    "visual_encoder." + _ROTARY + "cos": "rotary_cosines",
    "visual_encoder." + _ROTARY + "sin": "rotary_sines",
}
_BLOCK_BUFFERS: dict[str, DerivedKind] = {
    _BLOCK + "attn." + _ROTARY + "cos": "rotary_cosines",
    _BLOCK + "attn." + _ROTARY + "sin": "rotary_sines",
}
_QUERY_BUFFERS: dict[str, DerivedKind] = {"ParGo.bert.embeddings.position_ids": "position_indices"}
_DERIVED = _TOWER_BUFFERS | _BLOCK_BUFFERS | _QUERY_BUFFERS
_LORA = ".lora_"
_LLM = "llm_model."
# First match wins.
_OTHER_PARTS = (
    (re.compile(rf"{re.escape(_LLM)}.*{re.escape(_LORA)}"), "LoRA adapters of the language model"),
    (re.compile(re.escape(_LLM)), "language model"),
    (
        re.compile(
            r"ParGo\.(cls|bert\.pooler|bert\.embeddings\.(word|token_type)_embeddings"
            r"|bert\.encoder\.layer\.\d+\.(intermediate\.dense|output\.(dense|LayerNorm)))\."
        ),
        "text branch of the query layers",
    ),
    *OTHER_VIT_PARTS,
)
_CLIP_TOWER = "visual."
_CLIP_TEXT = re.compile(
    r"(text\.|transformer\.|token_embedding\.|ln_final\.)|(logit_scale|logit_bias|positional_embedding|text_projection)$"
)
_WRAPPERS = (
    "_forward_module.",
    "module.",
    "_orig_mod.",
)  # DeepSpeed engine, DistributedDataParallel, torch.compile
_NUMBER = re.compile(r"(?<=\.)(0|[1-9]\d*)(?=\.)")


def canonical_names(keys: Iterable[str], *, container: str) -> dict[str, str]:
    """Map the keys of a file to official names: wrapper prefixes off, CLIP and MiniGPT-4 spellings changed.

    Args:
        keys: Keys as stored.
        container: What was around them; under `model` (MiniGPT-4) the language model is called `llama`.

    Returns:
        Stored key -> official name. Two keys may get the same name; the caller has to look.
    """
    names = {}
    for key in keys:
        name = key
        while name.startswith(_WRAPPERS):
            name = name.partition(".")[2]
        if container.split("/", maxsplit=1)[0] == "model":
            name = name.replace("llama", "llm")
        if name.startswith(_CLIP_TOWER):
            name = "visual_encoder." + name.removeprefix(_CLIP_TOWER)
        names[key] = name
    return names


def is_clip_file(keys: Iterable[str]) -> bool:
    """Whether these stored keys are those of an EVA-CLIP model (the tower beside a text tower)."""
    return any(key.startswith(_CLIP_TOWER) for key in keys)


def classify(name: str, *, clip: bool = False) -> KeyRole:
    """Return the role of an official name; `None` is unexpected.

    Args:
        name: An official name.
        clip: The file is an EVA-CLIP model, which may hold CLIP's text tower.
    """
    pattern, numbers = _split_numbers(name)
    if pattern in _TO_OURS:
        return Weight(_TO_OURS[pattern].format(*numbers))
    if pattern in _DERIVED:
        return Derived(_DERIVED[pattern])
    if clip and _CLIP_TEXT.match(name):
        return OtherPart("text tower of CLIP")
    return next((OtherPart(group) for regex, group in _OTHER_PARTS if regex.match(name)), None)


def official_name(name: str, *, vit: bool = False) -> str:
    """Return the official name of a key of our state dict.

    Args:
        name: A key.
        vit: The tower is a CLIP or SigLIP of `transformers`, not an EVA-02.

    Raises:
        KeyError: There is no such weight.
    """
    pattern, numbers = _split_numbers(name)
    if vit and pattern in _VIT_TO_OFFICIAL:
        return _VIT_TO_OFFICIAL[pattern].format(*numbers)
    return _TO_OFFICIAL[pattern].format(*numbers)


def official_buffers(num_blocks: int, *, has_queries: bool) -> Iterator[tuple[str, DerivedKind]]:
    """Yield the derived buffers of an official checkpoint: rotary tables once and again per block, positions."""
    yield from _TOWER_BUFFERS.items()
    for block in range(num_blocks):
        yield from ((name.format(block), kind) for name, kind in _BLOCK_BUFFERS.items())
    if has_queries:
        yield from _QUERY_BUFFERS.items()


def language_model_keys(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and (much reduced) shapes of a language model with LoRA, as a full official checkpoint has them."""
    base = _LLM + "base_model.model."
    attention = base + "model.layers.0.attention.wqkv."
    yield base + "model.tok_embeddings.weight", (16, width)
    yield attention + "base_layer.weight", (width, width)
    yield attention + "lora_A.default.weight", (4, width)
    yield attention + "lora_B.default.weight", (width, 4)
    yield base + "output.weight", (16, width)


def _split_numbers(name: str) -> tuple[str, list[str]]:
    return _NUMBER.sub("{}", name), _NUMBER.findall(name)
