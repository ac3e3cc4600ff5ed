"""The weights of a language model, from its directory or from a ParGo checkpoint; all of them, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pargo_export.checkpoint.files import open_source
from pargo_export.checkpoint.source import StoredTensor
from pargo_export.checkpoint.values import refuse_dtypes
from pargo_export.errors import CheckpointError, ConfigError, StateDictError
from pargo_export.llm import internlm2
from pargo_export.llm.stored import read_as, sort_language_model
from pargo_export.llm.transformers_config import heads_of, is_known_model, read_values
from pargo_export.optional import require

__all__ = ["load_weights"]

_PATTERNS = ("*.safetensors", "*.bin")


def load_weights(
    directory: Path,
    config: Any,
    weights: Mapping[str, StoredTensor],
    *,
    source: Path,
    dtype: torch.dtype,
    trust_remote_code: bool,
) -> nn.Module:
    """Build a causal language model of transformers with all its weights.

    Args:
        directory: Of the model.
        config: Its configuration.
        weights: Under the names of the model; if empty, those of the directory are taken.
        source: Where `weights` are from, for messages.
        dtype: Of the loaded weights.
        trust_remote_code: Execute Python files of the directory.

    Raises:
        StateDictError: Weights are missing, unexpected, misshapen or not finite.
        CheckpointError: There are none, or they cannot be read.
        ConfigError: `weights` are of a model that needs code of its own.
    """
    transformers = require("transformers", extra="llm", purpose="run a language model")
    if weights and not is_known_model(config):
        raise ConfigError(
            f"{source} holds a whole language model, but the one of {directory} needs code of its own; save the model of the "
            "checkpoint as a directory"
        )
    if not weights:
        weights, source = _of_directory(directory, config), directory
    # The name of the argument before transformers 4.56.
    name = "dtype" if _version(transformers) >= (4, 56) else "torch_dtype"
    options: dict[str, Any] = {name: dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
    state = read_as(weights, dtype)
    try:
        if state:
            model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            model, info = model_class.from_pretrained(None, config=config, state_dict=state, **options)
        else:
            options |= {"trust_remote_code": trust_remote_code, "local_files_only": True}
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                directory, config=config, **options
            )
    except Exception as error:  # transformers, safetensors and torch raise many kinds on broken files
        raise CheckpointError(
            f"{source}: transformers cannot load the language model: {error}; compare the files with the original"
        ) from error
    _refuse_incomplete(info, source)
    if (directory / "generation_config.json").is_file():  # names every token that may end an answer
        generation_config = transformers.GenerationConfig.from_pretrained(directory, local_files_only=True)
        model.generation_config = generation_config
    return model


def _of_directory(directory: Path, config: Any) -> Mapping[str, StoredTensor]:
    """Return the weights of an InternLM2 as those of a Llama; nothing for what transformers loads by itself."""
    if not any(path for pattern in _PATTERNS for path in directory.glob(pattern)):
        raise CheckpointError(
            f"{directory}: found no weights ({', '.join(_PATTERNS)}); copy the whole model, or give a checkpoint that holds "
            "a whole language model (--adapters)"
        )
    if read_values(directory)["model_type"] != internlm2.MODEL_TYPE:
        return {}
    weights, adapters, _ = sort_language_model(open_source(directory).tensors.items())
    if adapters:
        raise StateDictError(
            f"{directory}: found LoRA adapters ({next(iter(adapters))}), expected a model without"
        )
    refuse_dtypes(weights)
    return internlm2.llama_weights(weights, heads_of(config))


def _version(transformers: Any) -> tuple[int, int]:
    major, minor = transformers.__version__.split(".")[:2]
    return int(major), int(minor)


def _refuse_incomplete(info: Mapping[str, Any], source: Path) -> None:
    """Refuse what transformers would only warn of."""
    problems = []
    for kind in ("missing", "unexpected"):
        names = sorted(info[f"{kind}_keys"])
        if names:
            problems.append(f"{len(names)} {kind}: {', '.join(names[:5])}")
    shapes = sorted(
        f"{name} {list(found)}, expected {list(wanted)}" for name, found, wanted in info["mismatched_keys"]
    )
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {'; '.join(shapes[:5])}")
    problems += list(info.get("error_msgs") or ())
    if problems:
        raise StateDictError(
            f"{source}: the weights do not fit config.json: {'; '.join(problems)}; they are of different models, or a file is "
            "missing"
        )
