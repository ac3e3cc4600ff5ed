"""Learned parameters of every block, counted from the configuration."""

from __future__ import annotations

from pargo_export.config import ModelConfig, ProjectorConfig, VisionConfig

__all__ = ["count_parameters"]


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Return the parameters of the reference by block; together they are the front-end's part of a checkpoint.

    `unused_tower_weights` are the tower's last norm and its head: official checkpoints have them, the
    projector path does not apply them.
    """
    vision = config.vision
    width = vision.width
    counts = {
        "patch_embedding": _linear(vision.in_channels * vision.patch_size**2, width)
        + width * (2 + vision.num_patches)  # class token, positions
    }
    for layer in range(vision.num_layers):
        counts[f"tower_block_{layer}"] = _tower_block(vision)
    counts["output_norm"] = 2 * width
    counts["unused_tower_weights"] = 2 * width + _linear(width, vision.head_features)
    return counts | _projector(config.projector)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
    return outputs * (inputs + bias)


def _tower_block(vision: VisionConfig) -> int:
    width, hidden = vision.width, vision.hidden_width
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
