"""A directory of transformers, with a ParGo checkpoint if one is given, to a causal language model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pargo_export.errors import ConfigError
from pargo_export.llm import internlm2
from pargo_export.llm.lora import add_adapters
from pargo_export.llm.stored import StoredLanguageModel, find_lora_alpha, read_stored_language_model
from pargo_export.llm.transformers_config import heads_of, load_config, quiet_transformers, read_values
from pargo_export.llm.transformers_weights import load_weights
from pargo_export.optional import require

__all__ = ["DTYPES", "load_language_model"]

_log = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_language_model(
    directory: Path,
    *,
    adapters: str | Path | None = None,
    lora_alpha: float | None = None,
    merge_adapters: bool = True,
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> nn.Module:
    """Load a causal language model of transformers, with what a ParGo checkpoint holds of it.

    InternLM2 is loaded as the Llama that computes the same. A checkpoint that holds a whole language model takes the
    place of the directory's weights.

    Args:
        directory: With config.json, and weights unless the checkpoint has them.
        adapters: The checkpoint.
        lora_alpha: By default from the JSON beside the checkpoint.
        merge_adapters: Add adapters to the weights; else they are computed beside them.
        dtype: Of the weights.
        trust_remote_code: Execute Python files of the directory if its model type is unknown to transformers.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        ConfigError: The directory is none of a language model, needs code of its own, or an option does not fit.
        CheckpointError: Weights cannot be read; `StateDictError`: some are missing, unexpected or misshapen.
        MissingDependencyError: transformers or peft is not installed.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
    if adapters is None and lora_alpha is not None:
        raise ConfigError("lora_alpha is given without adapters; say which checkpoint holds them")
    require("transformers", extra="llm", purpose="run a language model")
    values = read_values(directory)
    stored = StoredLanguageModel({}, {}, (), directory)
    if adapters is not None:
        stored = read_stored_language_model(adapters)
    with quiet_transformers():
        config = load_config(directory, values, trust_remote_code=trust_remote_code)
        stored = _under_model_names(stored, config)
        alpha = lora_alpha
        if stored.adapters and alpha is None:
            alpha = find_lora_alpha(stored.path, stored.adapters)  # refused before gigabytes are read
        model = load_weights(
            directory,
            config,
            stored.weights,
            source=stored.path,
            dtype=DTYPES[dtype],
            trust_remote_code=trust_remote_code,
        )
        if stored.adapters and alpha is not None:
            model = add_adapters(model, stored.adapters, lora_alpha=alpha, merge=merge_adapters)
            _log.info("%d LoRA adapters of %s with alpha %g", len(stored.adapters), stored.path, alpha)
    return model.eval()


def _under_model_names(stored: StoredLanguageModel, config: Any) -> StoredLanguageModel:
    """Bring the names of InternLM2 to those of Llama, if that is what the model is."""
    if config.model_type != "llama" or not internlm2.has_internlm2_names([*stored.weights, *stored.adapters]):
        return stored
    heads = heads_of(config)
    return StoredLanguageModel(
        internlm2.llama_weights(stored.weights, heads),
        internlm2.llama_adapters(stored.adapters, heads),
        stored.derived,
        stored.path,
    )
