"""Llama and InternLM2 written out from their publications, head by head, for the tests of `pargo_export.llm`.

arXiv 2307.09288 and 2403.17297: RMSNorm before attention and feed-forward, rotary positions (the halves of a head
rotated), groups of query heads that share a key head, SwiGLU. InternLM2 packs the projections into one matrix: for each
key head its query heads, then the key, then the value. Adapters are computed beside the weights, never merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PlainDecoder", "Shape"]

# Norm, output, norm, gate, up, down.
_PACKED_NAMES = (
    *("attention_norm", "attention.wo", "ffn_norm"),
    *("feed_forward.w1", "feed_forward.w3", "feed_forward.w2"),
)
_NAMES = (
    *("input_layernorm", "self_attn.o_proj", "post_attention_layernorm"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder."""

    width: int = 32
    num_layers: int = 2
    num_heads: int = 4
    num_key_heads: int = 2
    hidden: int = 48
    vocabulary: int = 64
    rope_theta: float = 1e4
    eps: float = 1e-5

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.num_heads


@dataclass(frozen=True)
class PlainDecoder:
    """A decoder over the weights of a file.

    Attributes:
        tensors: Weights, and adapters as `MODULE.lora_A` and `MODULE.lora_B`, under the names of the model.
        shape: Its sizes.
        packed: InternLM2, else Llama.
        scale: Of the adapters, alpha / r.
    """

    tensors: dict[str, Tensor]
    shape: Shape
    packed: bool
    scale: float = 0.0

    def logits(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `[B, L, V]` for embeddings `[B, L, C]`; positions count from the first that is not masked."""
        return torch.stack(
            [
                torch.cat(
                    (torch.zeros(int((row == 0).sum()), self.shape.vocabulary), self._sequence(x[row == 1]))
                )
                for x, row in zip(embeddings, attention_mask, strict=True)
            ]
        )

    def _sequence(self, x: Tensor) -> Tensor:
        names = _PACKED_NAMES if self.packed else _NAMES
        for index in range(self.shape.num_layers):
            layer = f"model.layers.{index}."
            norm1, output, norm2, gate, up, down = (layer + name for name in names)
            normed = self._norm(x, norm1)
            x = x + self._linear(self._attend(normed, layer), output)
            normed = self._norm(x, norm2)
            gated = torch.nn.functional.silu(self._linear(normed, gate)) * self._linear(normed, up)
            x = x + self._linear(gated, down)
        return self._linear(self._norm(x, "model.norm"), "output" if self.packed else "lm_head")

    def _attend(self, x: Tensor, layer: str) -> Tensor:
        query, key, value = self._packed(x, layer) if self.packed else self._separate(x, layer)
        group = self.shape.num_heads // self.shape.num_key_heads
        heads = []
        for head in range(self.shape.num_heads):
            scores = _rotate(query(head), self.shape) @ _rotate(key(head // group), self.shape).T
            allowed = torch.ones(len(x), len(x)).tril().bool()
            scores = (scores / self.shape.head**0.5).masked_fill(~allowed, float("-inf"))
            heads.append(scores.softmax(-1) @ value(head // group))
        return torch.cat(heads, dim=-1)

    def _packed(self, x: Tensor, layer: str) -> tuple[Callable[[int], Tensor], ...]:
        columns = self._linear(x, layer + "attention.wqkv")
        group, width = self.shape.num_heads // self.shape.num_key_heads, self.shape.head

        def column(key_head: int, place: int) -> Tensor:
            first = (key_head * (group + 2) + place) * width
            return columns[:, first : first + width]

        return (
            lambda head: column(head // group, head % group),
            lambda head: column(head, group),
            lambda head: column(head, group + 1),
        )

    def _separate(self, x: Tensor, layer: str) -> tuple[Callable[[int], Tensor], ...]:
        width = self.shape.head
        whole = [self._linear(x, f"{layer}self_attn.{name}_proj") for name in "qkv"]
        return tuple(
            (lambda head, columns=columns: columns[:, head * width : (head + 1) * width]) for columns in whole
        )

    def _linear(self, x: Tensor, name: str) -> Tensor:
        result = x @ self.tensors[f"{name}.weight"].float().T
        if f"{name}.lora_A" in self.tensors:
            down, up = self.tensors[f"{name}.lora_A"].float(), self.tensors[f"{name}.lora_B"].float()
            result = result + self.scale * (x @ down.T) @ up.T
        return result

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return (
            x
            / (x.square().mean(-1, keepdim=True) + self.shape.eps).sqrt()
            * self.tensors[f"{name}.weight"].float()
        )


def _rotate(x: Tensor, shape: Shape) -> Tensor:
    half = shape.head // 2
    frequencies = shape.rope_theta ** (-torch.arange(half, dtype=torch.float64) * 2 / shape.head)
    angles = (torch.arange(len(x), dtype=torch.float64)[:, None] * frequencies).float()
    first, second = x[:, :half], x[:, half:]
    return torch.cat(
        (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()), -1
    )
