"""The projectors: ParGo and Q-Former (query layers), linear and MLP (grouped image tokens).

Source: arXiv 2408.12928 and the official `qformer_bert.py` / `minigpt.py`. A query layer is a post-norm
BERT layer: self-attention among the queries, cross-attention to the image features in every
`cross_attention_freq`-th layer, feed-forward with the erf GELU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pargo_export.config import ProjectorConfig
from pargo_export.model.attention import attend, merge_heads, split_heads
from pargo_export.model.masks import additive_mask, cross_attention_keep, self_attention_keep

__all__ = [
    "CrossAttention",
    "CrossCore",
    "GroupProjector",
    "KeyValueProjection",
    "QueryEmbedding",
    "QueryLayer",
    "QueryProjector",
    "QuerySelfProjection",
    "SelfAttention",
    "SelfCore",
    "build_projector",
]


class SelfCore(nn.Module):
    """Self-attention among the queries under the block-diagonal mask."""

    def __init__(self, config: ProjectorConfig, layer: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = config.head_dim**-0.5
        self.num_partial, self.num_global = config.num_partial_tokens, config.num_global_tokens
        self.window = config.partial_attention_window(layer)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, Q, C]` each -> `[B, Q, C]`."""
        keep = self_attention_keep(self.num_partial, self.num_global, self.window)
        return _masked_attention(query, key, value, self.num_heads, self.scale, additive_mask(keep))


class CrossCore(nn.Module):
    """Attention from the queries to the image features under the partial-window mask."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = config.head_dim**-0.5
        self.num_partial, self.num_global = config.num_partial_tokens, config.num_global_tokens

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query `[B, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
        keep = cross_attention_keep(self.num_partial, self.num_global, key.shape[1])
        return _masked_attention(query, key, value, self.num_heads, self.scale, additive_mask(keep))


def _masked_attention(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, scale: float, mask: Any
) -> Tensor:
    query, key, value = (split_heads(tokens, num_heads) for tokens in (query, key, value))
    return merge_heads(attend(query, key, value, scale, torch.from_numpy(mask).to(query)))


class QueryEmbedding(nn.Module):
    """Learned queries plus learned positions, normalised; no text embeddings take part."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.hidden_size))
        self.position = nn.Parameter(torch.zeros(config.max_position_embeddings, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self) -> Tensor:
        """Return `[1, Q, C]`; the batch axis comes in with the first cross-attention."""
        return self.norm(self.query_tokens + self.position[: self.query_tokens.shape[1]])


class QuerySelfProjection(nn.Module):
    """Query, key and value projections of a self-attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[B, Q, C]` -> query, key, value, each `[B, Q, C]`."""
        return self.query(hidden), self.key(hidden), self.value(hidden)


class SelfAttention(nn.Module):
    """Self-attention, output projection, residual, LayerNorm."""

    def __init__(self, config: ProjectorConfig, layer: int) -> None:
        super().__init__()
        self.qkv: nn.Module = QuerySelfProjection(config.hidden_size)
        self.core: nn.Module = SelfCore(config, layer)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, Q, C]` -> `[B, Q, C]`."""
        return self.norm(self.output(self.core(*self.qkv(hidden))) + hidden)


class KeyValueProjection(nn.Module):
    """Key and value projections of the image features for one layer."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.key = nn.Linear(config.encoder_width, config.hidden_size)
        self.value = nn.Linear(config.encoder_width, config.hidden_size)

    def forward(self, image_features: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, N, encoder_width]` -> key and value, each `[B, N, C]`."""
        return self.key(image_features), self.value(image_features)


class CrossAttention(nn.Module):
    """Cross-attention to the image features, output projection, residual, LayerNorm."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.query: nn.Module = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value: nn.Module = KeyValueProjection(config)
        self.core: nn.Module = CrossCore(config)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, context: Any) -> Tensor:
        """`[B, Q, C]` and what `key_value` takes (the image features) -> `[B, Q, C]`."""
        key, value = self.key_value(context)
        return self.norm(self.output(self.core(self.query(hidden), key, value)) + hidden)


class FeedForward(nn.Module):
    """Two projections with the erf GELU between, residual, LayerNorm."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[B, Q, C]` -> `[B, Q, C]`."""
        return self.norm(self.down(functional.gelu(self.up(hidden))) + hidden)


class QueryLayer(nn.Module):
    """One query layer; `cross_attention` is `None` in the layers between."""

    def __init__(self, config: ProjectorConfig, layer: int) -> None:
        super().__init__()
        self.self_attention: nn.Module = SelfAttention(config, layer)
        self.cross_attention = CrossAttention(config) if config.has_cross_attention(layer) else None
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, context: Any) -> Tensor:
        """`[B, Q, C]` -> `[B, Q, C]`."""
        hidden = self.self_attention(hidden)
        if self.cross_attention is not None:
            hidden = self.cross_attention(hidden, context)
        return self.feed_forward(hidden)


class QueryProjector(nn.Module):
    """ParGo, or with zero partial tokens a Q-Former."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.embedding: nn.Module = QueryEmbedding(config)
        self.context: nn.Module = nn.Identity()  # what every layer's key_value reads
        self.layers = nn.ModuleList(QueryLayer(config, layer) for layer in range(config.num_layers))
        self.llm_projection: nn.Module = nn.Linear(config.hidden_size, config.llm_hidden_size)

    def forward(self, image_features: Tensor) -> tuple[list[Tensor], Tensor]:
        """`[B, N, encoder_width]` -> hidden states after each layer `[B, Q, C]`, visual tokens `[B, Q, C_llm]`."""
        hidden, context = self.embedding(), self.context(image_features)
        states = []
        for layer in self.layers:
            hidden = layer(hidden, context)
            states.append(hidden)
        return states, self.llm_projection(hidden)


class GroupProjector(nn.Module):
    """Concatenate adjacent image tokens, then project them (`linear`: one layer, `mlp`: two)."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.tokens_per_group = config.tokens_per_group
        group_width = config.encoder_width * config.tokens_per_group
        first = nn.Linear(group_width, config.llm_hidden_size)
        second = nn.Linear(config.llm_hidden_size, config.llm_hidden_size)
        self.llm_projection = first if config.kind == "linear" else nn.Sequential(first, nn.GELU(), second)

    def forward(self, image_features: Tensor) -> tuple[list[Tensor], Tensor]:
        """`[B, N, C]` -> the groups `[B, N/g, g*C]`, visual tokens `[B, N/g, C_llm]`."""
        groups = image_features.unflatten(1, (-1, self.tokens_per_group)).flatten(2)
        return [groups], self.llm_projection(groups)


def build_projector(config: ProjectorConfig) -> QueryProjector | GroupProjector:
    """Return the projector that `config.kind` names."""
    return QueryProjector(config) if config.has_queries else GroupProjector(config)
