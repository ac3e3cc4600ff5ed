"""Configurations with a name."""

from __future__ import annotations

from typing import Any

from pargo_export.config import ModelConfig
from pargo_export.errors import ConfigError

__all__ = ["PRESETS", "preset"]

_EVA02_L_336 = {
    "image_size": 336,
    "patch_size": 14,
    "width": 1024,
    "num_layers": 24,
    "head_width": 64,
    "hidden_width": 2730,
    "head_features": 768,
}
_TINY_TOWER = {
    "image_size": 84,
    "patch_size": 14,
    "width": 64,
    "num_layers": 3,
    "head_width": 16,
    "hidden_width": 170,
    "head_features": 24,
}
_TINY_QUERIES = {
    "encoder_width": 64,
    "llm_hidden_size": 80,
    "hidden_size": 48,
    "num_layers": 4,
    "num_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
_TINY_GROUPS = {"encoder_width": 64, "llm_hidden_size": 80, "tokens_per_group": 4}

PRESETS: dict[str, dict[str, Any]] = {
    "eva02-l-336-internlm2-7b": {
        "vision": _EVA02_L_336,
        "projector": {
            "kind": "pargo",
            "encoder_width": 1024,
            "llm_hidden_size": 4096,
            "num_partial_tokens": 288,
            "num_global_tokens": 16,
            "hidden_size": 512,
            "num_layers": 4,
            "num_heads": 8,
            "intermediate_size": 2048,
            "max_position_embeddings": 512,
        },
    },
    "tiny": {
        "vision": _TINY_TOWER,
        "projector": _TINY_QUERIES | {"kind": "pargo", "num_partial_tokens": 18, "num_global_tokens": 4},
    },
    "tiny-qformer": {
        "vision": _TINY_TOWER,
        "projector": _TINY_QUERIES | {"kind": "qformer", "num_global_tokens": 8, "cross_attention_freq": 2},
    },
    "tiny-linear": {"vision": _TINY_TOWER, "projector": _TINY_GROUPS | {"kind": "linear"}},
    "tiny-mlp": {"vision": _TINY_TOWER, "projector": _TINY_GROUPS | {"kind": "mlp"}},
}


def preset(name: str) -> ModelConfig:
    """Return the preset called `name`.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; the presets are {', '.join(PRESETS)}")
    return ModelConfig.parse(PRESETS[name], source=f"preset {name}")
