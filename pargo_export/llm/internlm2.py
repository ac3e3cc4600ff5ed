"""InternLM2 as a Llama: the same function under other names, so that none of its remote code is needed.

InternLM2 (arXiv 2403.17297, section 2.2) is Llama with the projections of queries, keys and values in one matrix `wqkv`.
Its rows are grouped by key head: the queries that share a key head, then that key, then its value. Splitting the rows is
exact, also for an adapter: the rows of B are split, A is the same for all three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from torch import Tensor

from pargo_export.checkpoint.source import StoredTensor
from pargo_export.errors import ConfigError, StateDictError
from pargo_export.llm.stored import Adapter

__all__ = [
    "MODEL_TYPE",
    "Heads",
    "has_internlm2_names",
    "llama_adapters",
    "llama_values",
    "llama_weights",
    "split_rows",
]

MODEL_TYPE = "internlm2"
Part: TypeAlias = Literal["query", "key", "value"]
_PARTS: dict[Part, str] = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
_PACKED = re.compile(r"(model\.layers\.\d+\.)attention\.wqkv((?:\.weight|\.bias)?)")
# In the order in which they are tried.
_NAMES = (
    (re.compile(r"model\.tok_embeddings(\.weight)?"), r"model.embed_tokens\1"),
    (re.compile(r"model\.norm(\.weight)?"), r"model.norm\1"),
    (re.compile(r"output(\.weight)?"), r"lm_head\1"),
    (re.compile(r"(model\.layers\.\d+\.)attention\.wo(\.weight|\.bias)?"), r"\1self_attn.o_proj\2"),
    (re.compile(r"(model\.layers\.\d+\.)attention_norm(\.weight)?"), r"\1input_layernorm\2"),
    (re.compile(r"(model\.layers\.\d+\.)ffn_norm(\.weight)?"), r"\1post_attention_layernorm\2"),
    (re.compile(r"(model\.layers\.\d+\.)feed_forward\.w1(\.weight)?"), r"\1mlp.gate_proj\2"),
    (re.compile(r"(model\.layers\.\d+\.)feed_forward\.w3(\.weight)?"), r"\1mlp.up_proj\2"),
    (re.compile(r"(model\.layers\.\d+\.)feed_forward\.w2(\.weight)?"), r"\1mlp.down_proj\2"),
)
_COPIED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_REQUIRED = _COPIED[:5]


@dataclass(frozen=True)
class Heads:
    """Numbers of heads of an attention, and their width."""

    num_query_heads: int
    num_key_heads: int
    width: int

    @property
    def num_rows(self) -> int:
        """Rows of a packed `wqkv`."""
        return (self.num_query_heads + 2 * self.num_key_heads) * self.width


def llama_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `LlamaConfig` for the content of an InternLM2 config.json.

    Raises:
        ConfigError: A size is missing, or the model is not the published InternLM2.
    """
    missing = [name for name in _REQUIRED if not isinstance(values.get(name), int)]
    if missing:
        raise ConfigError(
            f"config.json of an {MODEL_TYPE} model: {', '.join(missing)} missing; copy the file again"
        )
    act = values.get("hidden_act", "silu")
    if act != "silu":
        raise ConfigError(f"config.json of an {MODEL_TYPE} model: hidden_act is {act!r}, expected 'silu'")
    # Defaults of its configuration class, where they are not those of Llama.
    found: dict[str, Any] = {
        "num_key_value_heads": values["num_attention_heads"],
        "rope_theta": 10000.0,
        "pad_token_id": 0,
    }
    found |= {name: values[name] for name in _COPIED if values.get(name) is not None}
    # Its `bias` is that of the four attention projections; the feed-forward has none.
    return found | {"attention_bias": bool(values.get("bias", True))}


def has_internlm2_names(names: Iterable[str]) -> bool:
    """Whether weights, or modules with adapters, are called as InternLM2 calls them."""
    return any(
        _PACKED.fullmatch(name)
        or (_llama_name(name) not in (None, name))  # `model.norm` is called the same in both
        for name in names
    )


def llama_weights(tensors: Mapping[str, StoredTensor], heads: Heads) -> dict[str, StoredTensor]:
    """Rename the weights of an InternLM2 model to those of a Llama; `wqkv` becomes three.

    Raises:
        StateDictError: A name is unknown, or `wqkv` has another number of rows than the heads need.
    """
    return _converted(
        tensors, lambda tensor: tensor.shape[0], lambda tensor, part: _rows(tensor, heads, part), heads
    )


def llama_adapters(adapters: Mapping[str, Adapter], heads: Heads) -> dict[str, Adapter]:
    """Rename adapters of an InternLM2 model to those of a Llama; one of `wqkv` becomes three.

    Raises:
        StateDictError: As `llama_weights`.
    """
    return _converted(
        adapters,
        lambda adapter: adapter.up.shape[0],
        lambda adapter, part: replace(adapter, up=_rows(adapter.up, heads, part)),
        heads,
    )


def split_rows(packed: Tensor, heads: Heads, part: Part) -> Tensor:
    """Return the rows of a packed `[(H + 2 K) D, ...]` that make queries `[H D, ...]`, keys or values `[K D, ...]`."""
    per_key = heads.num_query_heads // heads.num_key_heads
    grouped = packed.reshape(heads.num_key_heads, per_key + 2, heads.width, *packed.shape[1:])
    chosen = {"query": slice(0, per_key), "key": slice(-2, -1), "value": slice(-1, None)}[part]
    return grouped[:, chosen].reshape(-1, *packed.shape[1:])


def _converted(
    items: Mapping[str, Any],
    num_rows: Callable[[Any], int],
    part_of: Callable[[Any, Part], Any],
    heads: Heads,
) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    unknown = []
    for name, item in items.items():
        packed = _PACKED.fullmatch(name)
        renamed = _llama_name(name)
        if packed:
            if num_rows(item) != heads.num_rows:
                raise StateDictError(
                    f"{name}: found {num_rows(item)} rows, expected {heads.num_rows}: {heads.num_query_heads} query heads and "
                    f"2 x {heads.num_key_heads} key and value heads of width {heads.width}; the config.json is of another model"
                )
            for part, module in _PARTS.items():
                converted[f"{packed[1]}self_attn.{module}{packed[2]}"] = part_of(item, part)
        elif renamed is None:
            unknown.append(name)
        else:
            converted[renamed] = item
    if unknown:
        raise StateDictError(
            f"{len(unknown)} tensors are none of an InternLM2 model: {', '.join(unknown[:5])}; expected such as "
            "model.layers.0.attention.wqkv.weight"
        )
    return converted


def _llama_name(name: str) -> str | None:
    return next((regex.sub(new, name) for regex, new in _NAMES if regex.fullmatch(name)), None)


def _rows(tensor: StoredTensor, heads: Heads, part: Part) -> StoredTensor:
    count = heads.num_query_heads if part == "query" else heads.num_key_heads
    return replace(
        tensor,
        shape=(count * heads.width, *tensor.shape[1:]),
        read=lambda: split_rows(tensor.read(), heads, part),
    )
