"""The configuration of a language model in a directory of transformers, without executing anything in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pargo_export.errors import ConfigError
from pargo_export.llm import internlm2
from pargo_export.optional import require

__all__ = ["heads_of", "is_known_model", "load_config", "quiet_transformers", "read_values"]


def read_values(directory: Path) -> dict[str, Any]:
    """Return the content of config.json.

    Raises:
        ConfigError: It is missing or describes no model.
    """
    path = directory / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        found = ", ".join(sorted(item.name for item in directory.iterdir())[:8]) or "nothing"
        raise ConfigError(
            f"{directory}: found no config.json ({found}), expected a directory that `save_pretrained` of transformers "
            "wrote, or a downloaded model"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}; copy it again") from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise ConfigError(f"{path}: found no model_type, expected the configuration of a language model")
    return values


def load_config(directory: Path, values: Mapping[str, Any], *, trust_remote_code: bool) -> Any:
    """Return the configuration object of transformers; that of a Llama for InternLM2.

    Args:
        directory: Where config.json is.
        values: Its content.
        trust_remote_code: Execute Python files of the directory if its model type is unknown to transformers.

    Raises:
        ConfigError: transformers does not know the model type, refuses the values, or it is no language model.
    """
    transformers = require("transformers", extra="llm", purpose="run a language model")
    kind = values["model_type"]
    if kind == internlm2.MODEL_TYPE:
        return transformers.LlamaConfig(**internlm2.llama_values(values))
    is_known = kind in transformers.CONFIG_MAPPING
    if not is_known and not trust_remote_code:
        mend = (
            "it brings Python files of its own, which can do anything that you can do: read them, then allow them "
            "(--trust-remote-code)"
            if values.get("auto_map")
            else "install a version of transformers that knows it"
        )
        raise ConfigError(
            f"{directory}: found the model type {kind!r}, which transformers {transformers.__version__} does not know; {mend}"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(
            directory, trust_remote_code=not is_known, local_files_only=True
        )
    except Exception as error:  # validation of transformers raises many kinds
        raise ConfigError(f"{directory / 'config.json'}: transformers refuses it: {error}") from error
    if is_known and not is_known_model(config):
        raise ConfigError(
            f"{directory}: found the model type {kind!r}, expected a causal language model, such as llama"
        )
    return config


def is_known_model(config: Any) -> bool:
    """Whether transformers itself has the causal language model of a configuration."""
    transformers = require("transformers", extra="llm", purpose="run a language model")
    return type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING


def heads_of(config: Any) -> internlm2.Heads:
    """Return the heads of a Llama."""
    count = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // count
    return internlm2.Heads(count, getattr(config, "num_key_value_heads", None) or count, width)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and advice of transformers: what matters is raised by us."""
    from transformers.utils import logging as transformers_logging

    level, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if has_bar:
            transformers_logging.enable_progress_bar()
