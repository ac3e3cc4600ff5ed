"""Tiny random language models of transformers, with tokenizers of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_once import made_once

__all__ = ["tiny_llama", "write_llama", "write_tokenizer"]

SPECIAL = ("<s>", "</s>", "<pad>")
TEXTS = (
    "A chat between a curious user and an artificial intelligence assistant. USER: <Img></Img> ASSISTANT: ",
    "Is there a dog in the image? Please answer yes or no.",
    "Answer the question using a single word(Yes or No)",
)


def write_tokenizer(directory: Path) -> int:
    """Write a byte-level tokenizer as transformers saves it; returns the number of its tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    special = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(directory)
    return int(tokenizer.get_vocab_size())


def write_llama(directory: Path, *, seed: int = 3, **values: Any) -> Path:
    """Write a Llama with random weights and its tokenizer; 80 wide, as the visual tokens of the golden case."""
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    sizes = {
        "vocab_size": write_tokenizer(directory),
        "hidden_size": 80,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**{**sizes, **values})).save_pretrained(directory)
    return directory


def tiny_llama(factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a tiny Llama that every process of the tests shares; do not write to it."""
    return made_once(factory, "tiny-llama", write_llama)
