"""The projector between the image features and the LLM."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from typing_extensions import Self

from pargo_export.config.record import Epsilon, NotNegative, Positive, Record

__all__ = ["ProjectorConfig", "ProjectorKind"]

ProjectorKind = Literal["pargo", "qformer", "linear", "mlp"]


class ProjectorConfig(Record):
    """The projector between image features `[B, N, encoder_width]` and the LLM.

    `pargo` and `qformer` use the query fields, `linear` and `mlp` use `tokens_per_group`.

    Attributes:
        kind: `pargo` (partial and global tokens), `qformer` (global tokens only), `linear`, `mlp`.
        encoder_width: Channels of the image features.
        llm_hidden_size: Channels of the visual tokens.
        num_partial_tokens: P, queries that each see one window of N / P image tokens.
        num_global_tokens: G, queries that see all image tokens.
        hidden_size: Channels of the query tokens.
        num_layers: Query layers.
        num_heads: Attention heads H of a query layer.
        intermediate_size: Hidden channels of the feed-forward.
        cross_attention_freq: Layers 0, f, 2f, ... have cross-attention.
        layer_norm_eps: Epsilon of the query layers' LayerNorms.
        max_position_embeddings: Rows of the position table; the first Q are used.
        partial_attention_windows: Per layer, the odd number of neighbouring partial tokens (centred on
            itself) that a partial token sees in self-attention: the cascaded partial perception of the
            paper. `None` (as in the released code), or `None` for a layer: all partial tokens.
        tokens_per_group: Adjacent image tokens concatenated into one visual token (`linear`, `mlp`).
    """

    kind: ProjectorKind
    encoder_width: Positive
    llm_hidden_size: Positive
    num_partial_tokens: NotNegative = 0
    num_global_tokens: NotNegative = 0
    hidden_size: NotNegative = 0
    num_layers: NotNegative = 0
    num_heads: NotNegative = 0
    intermediate_size: NotNegative = 0
    cross_attention_freq: Positive = 1
    layer_norm_eps: Epsilon = 1e-12
    max_position_embeddings: NotNegative = 0
    partial_attention_windows: tuple[Positive | None, ...] | None = None
    tokens_per_group: Positive = 4

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.has_queries:
            return self
        for name in ("hidden_size", "num_layers", "num_heads", "intermediate_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive for a {self.kind} projector")
        if self.num_query_tokens == 0:
            raise ValueError("a query projector needs at least one query token")
        if self.kind == "qformer" and self.num_partial_tokens:
            raise ValueError(
                f"a qformer has no partial tokens, but num_partial_tokens is {self.num_partial_tokens}"
            )
        if self.kind == "pargo" and not self.num_partial_tokens:
            raise ValueError("num_partial_tokens is 0: that is kind 'qformer', not 'pargo'")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}"
            )
        if self.max_position_embeddings < self.num_query_tokens:
            raise ValueError(
                f"max_position_embeddings {self.max_position_embeddings} is less than the "
                f"{self.num_query_tokens} query tokens"
            )
        return self

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        windows = self.partial_attention_windows
        if self.has_queries and windows is not None:
            if len(windows) != self.num_layers:
                raise ValueError(
                    f"partial_attention_windows has {len(windows)} entries for {self.num_layers} layers"
                )
            even = [window for window in windows if window is not None and window % 2 == 0]
            if even:
                raise ValueError(
                    f"partial_attention_windows must be odd (centred on the token), found {even}"
                )
        return self

    @property
    def has_queries(self) -> bool:
        """Whether the projector is made of query layers (`pargo`, `qformer`)."""
        return self.kind in ("pargo", "qformer")

    @property
    def num_query_tokens(self) -> int:
        """Q = P + G."""
        return self.num_partial_tokens + self.num_global_tokens

    @property
    def head_dim(self) -> int:
        """Channels D of one attention head of a query layer."""
        return self.hidden_size // self.num_heads

    def has_cross_attention(self, layer: int) -> bool:
        """Whether query layer `layer` reads the image features."""
        return layer % self.cross_attention_freq == 0

    def partial_attention_window(self, layer: int) -> int | None:
        """Self-attention window of the partial tokens in `layer`; `None` means all of them."""
        return None if self.partial_attention_windows is None else self.partial_attention_windows[layer]
