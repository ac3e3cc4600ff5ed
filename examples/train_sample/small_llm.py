"""The small causal language model of the sample: a Llama of transformers, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from fused_attention import attend_float32
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import sdpa_mask

__all__ = ["LLM_WIDTH", "make_language_model"]

LLM_WIDTH = 128
_ATTENTION = "float32_under_autocast"


def make_language_model(
    tokenizer: Any, *, seed: int, width: int = LLM_WIDTH, num_layers: int = 4, intermediate: int = 352
) -> Any:
    """Return a `LlamaForCausalLM` whose embedding table is also its output layer.

    Args:
        tokenizer: Gives the size of the vocabulary and the special tokens.
        seed: Chooses the weights.
        width: Hidden size; that of the visual tokens.
        num_layers: Decoder layers.
        intermediate: Hidden channels of the feed-forward.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=intermediate,
        max_position_embeddings=512,
        initializer_range=0.05,  # 0.02 is for widths of a thousand
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation(_ATTENTION)
    return model


def _attention(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: heads `[B, H, L, D]`, bool mask -> `[B, L, H, D]`."""
    return attend_float32(query, key, value, attention_mask, scaling).transpose(1, 2), None


# transformers has no way but a registry. The mask is made as for its own fused attention.
AttentionInterface.register(_ATTENTION, _attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
