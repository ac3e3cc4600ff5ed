"""The names of CLIP and SigLIP vision models of `transformers` against ours.

Older releases and the published files write `vision_model.` in front of every name, newer ones leave it out where the
tower is all there is; both are taken. In a checkpoint of a whole multimodal model they stand below `visual_encoder.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["OTHER_VIT_PARTS", "VIT_MODULES", "VIT_TENSORS", "full_vit_names"]

_PREFIX = "vision_model."
_TOWER = "visual_encoder." + _PREFIX
_BLOCK = _TOWER + "encoder.layers.{}."

# Ours -> theirs; each stands for a weight and a bias.
VIT_MODULES = {
    "tower.pre_norm": _TOWER + "pre_layrnorm",  # spelled so
    "tower.blocks.{}.norm1": _BLOCK + "layer_norm1",
    "tower.blocks.{}.attention.qkv.query": _BLOCK + "self_attn.q_proj",
    "tower.blocks.{}.attention.qkv.key": _BLOCK + "self_attn.k_proj",
    "tower.blocks.{}.attention.qkv.value": _BLOCK + "self_attn.v_proj",
    "tower.blocks.{}.attention.output": _BLOCK + "self_attn.out_proj",
    "tower.blocks.{}.norm2": _BLOCK + "layer_norm2",
    "tower.blocks.{}.mlp.up": _BLOCK + "mlp.fc1",
    "tower.blocks.{}.mlp.down": _BLOCK + "mlp.fc2",
    "tower.patch_embedding": _TOWER + "embeddings.patch_embedding",
    "tower.final_norm": _TOWER + "post_layernorm",
}
VIT_TENSORS = {
    "tower.embedding.class_token": _TOWER + "embeddings.class_embedding",
    "tower.embedding.position": _TOWER + "embeddings.position_embedding.weight",
}
OTHER_VIT_PARTS = (
    (re.compile(rf"{re.escape(_TOWER)}head\."), "pooling head of the tower"),
    (re.compile(rf"{re.escape(_TOWER)}embeddings\.position_ids$"), "position indices of the tower"),
    (
        re.compile(
            r"visual_encoder\.(text_model\.|text_projection\.|visual_projection\.|logit_(scale|bias)$)"
        ),
        "text tower and projections of CLIP or SigLIP",
    ),
)
_BARE = re.compile(r"(embeddings|encoder|pre_layrnorm|post_layernorm|head)\.")


def full_vit_names(keys: Iterable[str]) -> dict[str, str]:
    """Map the keys of a vision model's file to the names that they have in a whole multimodal model."""
    names = {}
    for key in keys:
        names[key] = "visual_encoder." + (_PREFIX + key if _BARE.match(key) else key)
    return names
