"""Learned parameters of every block, counted from the configuration."""

from __future__ import annotations

from pargo_export.config import ModelConfig, ProjectorConfig, TowerConfig, VisionConfig, VitConfig

__all__ = ["count_parameters"]


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Return the parameters of the reference by block; together they are the front-end's part of a checkpoint.

    `unused_tower_weights` are the tower's last norm and its head: official checkpoints have them, the
    projector path does not apply them. Of a CLIP or SigLIP tower only what runs is loaded.
    """
    vision = config.vision
    width = vision.width
    counts = {
        "patch_embedding": _linear(
            vision.in_channels * vision.patch_size**2, width, bias=_has_patch_bias(vision)
        )
        + width * (2 * vision.has_class_token + vision.num_patches)  # class token, positions
    }
    if isinstance(vision, VitConfig) and vision.kind == "clip":
        counts["patch_embedding"] += 2 * width  # the norm in front of the blocks
    for layer in range(vision.num_layers):
        counts[f"tower_block_{layer}"] = _tower_block(vision)
    counts["output_norm"] = 2 * width
    if isinstance(vision, VisionConfig):
        counts["unused_tower_weights"] = 2 * width + _linear(width, vision.head_features)
    elif vision.has_final_norm:
        counts["output_norm"] += 2 * width
    return counts | _projector(config.projector)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
    return outputs * (inputs + bias)


def _has_patch_bias(vision: TowerConfig) -> bool:
    return isinstance(vision, VisionConfig) or vision.kind == "siglip"


def _tower_block(vision: TowerConfig) -> int:
    width, hidden = vision.width, vision.hidden_width
    if isinstance(vision, VitConfig):
        return 4 * _linear(width, width) + _linear(width, hidden) + _linear(hidden, width) + 2 * 2 * width
    attention = 3 * _linear(width, width) + _linear(width, width, bias=False)
    norms = 3 * 2 * width + 2 * hidden
    return attention + 2 * _linear(width, hidden) + _linear(hidden, width) + norms


def _projector(projector: ProjectorConfig) -> dict[str, int]:
    width, tokens = projector.hidden_size, projector.llm_hidden_size
    if not projector.has_queries:
        first = _linear(projector.encoder_width * projector.tokens_per_group, tokens)
        return {"llm_projection": first if projector.kind == "linear" else first + _linear(tokens, tokens)}
    counts = {"query_embedding": width * (projector.num_query_tokens + projector.max_position_embeddings + 2)}
    self_attention = 4 * _linear(width, width) + 2 * width
    cross_attention = 2 * _linear(width, width) + 2 * _linear(projector.encoder_width, width) + 2 * width
    inner = projector.intermediate_size
    feed_forward = _linear(width, inner) + _linear(inner, width) + 2 * width
    for layer in range(projector.num_layers):
        cross = cross_attention if projector.has_cross_attention(layer) else 0
        counts[f"query_layer_{layer}"] = self_attention + cross + feed_forward
    return counts | {"llm_projection": _linear(width, tokens)}
