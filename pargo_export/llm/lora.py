"""LoRA adapters (arXiv 2106.09685) put into a model of transformers, through peft."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pargo_export.checkpoint.source import StoredTensor
from pargo_export.errors import ConfigError, StateDictError
from pargo_export.llm.stored import Adapter, read_as
from pargo_export.optional import require

__all__ = ["add_adapters"]

_PEFT = "base_model.model."


def add_adapters(
    model: nn.Module, adapters: Mapping[str, Adapter], *, lora_alpha: float, merge: bool
) -> nn.Module:
    """Put adapters into the linears of a model; each adds alpha / r * B A to its weight.

    Args:
        model: A causal language model of transformers; it is changed.
        adapters: By the module path of their linear; ranks may differ.
        lora_alpha: The alpha.
        merge: Add them to the weights; else they stay beside them and are computed in every step.

    Returns:
        The model with adapters.

    Raises:
        StateDictError: An adapter has no linear of its shape, or is not finite; all are named.
        ConfigError: Alpha is not positive.
    """
    if not lora_alpha > 0:
        raise ConfigError(f"lora_alpha: found {lora_alpha}, expected more than 0")
    peft = require("peft", extra="llm", purpose="put LoRA adapters into a language model")
    _check_shapes(model, adapters)
    ranks = {module: adapter.rank for module, adapter in adapters.items()}
    config = peft.LoraConfig(
        r=max(ranks.values()),
        lora_alpha=lora_alpha,
        lora_dropout=0.0,  # of training only
        target_modules=list(ranks),
        rank_pattern=ranks,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers what transformers renamed
        adapted = peft.get_peft_model(model, config)
    tensors: dict[str, StoredTensor] = {}
    for module, adapter in adapters.items():
        tensors[f"{_PEFT}{module}.lora_A.weight"] = adapter.down
        tensors[f"{_PEFT}{module}.lora_B.weight"] = adapter.up
    result: Any = peft.set_peft_model_state_dict(adapted, read_as(tensors, torch.float32))
    if result.unexpected_keys:  # peft matches target modules by their ends: a name could mean another module
        raise StateDictError(f"peft did not take {', '.join(result.unexpected_keys[:5])}")
    merged: nn.Module = adapted.merge_and_unload(safe_merge=True) if merge else adapted.get_base_model()
    return merged.eval()


def _check_shapes(model: nn.Module, adapters: Mapping[str, Adapter]) -> None:
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    problems = []
    for name, adapter in adapters.items():
        down, up = adapter.down.shape, adapter.up.shape
        if name not in linears:
            problems.append(f"{adapter.down.key}: the model has no linear {name}")
            continue
        linear = linears[name]
        expected = [linear.out_features, linear.in_features]
        found = f"lora_A {list(down)} and lora_B {list(up)}"
        is_pair = len(down) == len(up) == 2 and down[0] == up[1] > 0
        if not is_pair or [up[0], down[1]] != expected:
            problems.append(
                f"{name}: found {found}, expected [r, {expected[1]}] and [{expected[0]}, r] with one r"
            )
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise StateDictError(
            f"{len(problems)} of {len(adapters)} adapters do not fit the language model: {'; '.join(problems[:5])}{more}; "
            "take the directory of the language model that they were trained on"
        )
