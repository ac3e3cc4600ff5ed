"""The language model inside a ParGo checkpoint: its weights, its LoRA adapters, and nothing left over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, dtype

from pargo_export.checkpoint.files import open_source
from pargo_export.checkpoint.key_mapping import canonical_names
from pargo_export.checkpoint.source import StoredTensor
from pargo_export.checkpoint.values import read_weights, refuse_dtypes
from pargo_export.errors import CheckpointError, ConfigError, StateDictError

__all__ = [
    "Adapter",
    "StoredLanguageModel",
    "find_lora_alpha",
    "read_as",
    "read_stored_language_model",
    "sort_language_model",
]

_LLM = "llm_model."
_PEFT = "base_model.model."
_ADAPTER = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
_ANY_ADAPTER = ".lora_"
# peft 0.6 and later wrap a target; the weights of one that older versions wrote keep their names.
_WRAPPED = ".base_layer."
_DERIVED = re.compile(r"(.+\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)")
_MAX_NAMED = 5


@dataclass(frozen=True)
class Adapter:
    """The two factors of a LoRA adapter: the weight `[out, in]` of a linear grows by alpha / r * B A.

    Attributes:
        down: A, `[r, in]`.
        up: B, `[out, r]`.
    """

    down: StoredTensor
    up: StoredTensor

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.down.shape[0]


@dataclass(frozen=True)
class StoredLanguageModel:
    """What a checkpoint holds of a language model, under the names of the model itself.

    Attributes:
        weights: The whole model, or nothing.
        adapters: LoRA adapters by the module that they belong to.
        derived: Keys of tables that the configuration determines; they are not loaded.
        path: Where it is from.
    """

    weights: Mapping[str, StoredTensor]
    adapters: Mapping[str, Adapter]
    derived: tuple[str, ...]
    path: Path


def read_stored_language_model(path: str | Path) -> StoredLanguageModel:
    """Read what a ParGo checkpoint, or a file of peft, holds of a language model; its tensors are not read yet.

    Keys: `llm_model.*` with or without peft's `base_model.model.`, with or without its `base_layer`; of peft alone
    `base_model.model.*`.

    Raises:
        UnsafeCheckpointError: Reading it would execute code.
        CheckpointError: It is missing or broken, or holds no language model.
        StateDictError: A tensor is of a kind that is not supported, a factor of an adapter is missing, or a dtype is
            no float.
    """
    source = open_source(path)
    names = canonical_names(source.tensors, container=source.container)
    tensors = [
        (name.removeprefix(_LLM), source.tensors[key])
        for key, name in names.items()
        if name.startswith((_LLM, _PEFT))
    ]
    if not tensors:
        raise CheckpointError(
            f"{path}: found no tensors of a language model among {len(names)}, expected keys {_LLM}*; "
            "leave the adapters out if the projector was trained with a frozen language model"
        )
    weights, adapters, derived = sort_language_model(tensors)
    refuse_dtypes({tensor.key: tensor for tensor in _all_tensors(weights, adapters)})
    return StoredLanguageModel(weights, adapters, derived, source.files[0])


def sort_language_model(
    tensors: Iterable[tuple[str, StoredTensor]],
) -> tuple[dict[str, StoredTensor], dict[str, Adapter], tuple[str, ...]]:
    """Sort the tensors of a language model into weights, adapters by module, and keys of derived tables.

    Args:
        tensors: Pairs of name (peft's prefix allowed) and tensor.

    Raises:
        StateDictError: As `read_stored_language_model`.
    """
    weights: dict[str, StoredTensor] = {}
    factors: dict[str, dict[str, StoredTensor]] = {}
    adapter_names: set[str] = set()
    derived: list[str] = []
    unsupported: list[str] = []
    for given, tensor in tensors:
        name = given.removeprefix(_PEFT)
        match = _ADAPTER.fullmatch(name)
        if match:
            adapter_names.add(match["adapter"] or "default")
            if len(adapter_names) == 1:
                _add_once(factors.setdefault(match["module"], {}), match["side"], tensor)
        elif _ANY_ADAPTER in name:
            unsupported.append(tensor.key)
        elif _DERIVED.fullmatch(name):
            derived.append(tensor.key)
        else:
            _add_once(weights, name.replace(_WRAPPED, "."), tensor)
    if unsupported:
        raise StateDictError(
            f"{len(unsupported)} adapter tensors are of an unknown kind: {_some(unsupported)}; expected lora_A and lora_B "
            "of linears (no DoRA, no embeddings, no biases): merge them where they were trained (merge_and_unload)"
        )
    if len(adapter_names) > 1:
        raise StateDictError(
            f"found several adapters ({', '.join(sorted(adapter_names))}), expected one; save the one that is wanted"
        )
    halves = [module for module, pair in factors.items() if len(pair) != 2]
    if halves:
        raise StateDictError(
            f"{len(halves)} adapters have only one of lora_A and lora_B: {_some(halves)}; the file is incomplete"
        )
    adapters = {module: Adapter(pair["A"], pair["B"]) for module, pair in factors.items()}
    return weights, adapters, tuple(derived)


def find_lora_alpha(checkpoint: Path, adapters: Mapping[str, Adapter]) -> float:
    """Return the alpha of adapters as the JSON beside their checkpoint says it (`lora_alpha`).

    Looked for are NAME.json, config.json and peft's adapter_config.json.

    Raises:
        ConfigError: None says it, or it says another rank than the tensors have.
    """
    ranks = sorted({adapter.rank for adapter in adapters.values()})
    stem = checkpoint.name.partition(".")[0]
    for name in dict.fromkeys(
        (f"{checkpoint.stem}.json", f"{stem}.json", "config.json", "adapter_config.json")
    ):
        path = checkpoint.with_name(name)
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue  # not there, or some other file
        alpha = values.get("lora_alpha") if isinstance(values, dict) else None
        if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
            continue
        if values.get("use_rslora") or values.get("use_dora"):
            raise ConfigError(
                f"{path}: found rank-stabilised LoRA or DoRA, expected plain LoRA; merge it first"
            )
        rank = values.get("lora_r", values.get("r"))
        if rank is not None and [rank] != ranks:
            raise ConfigError(
                f"{path}: says rank {rank}, but the adapters of {checkpoint.name} have {ranks}; they do not belong together: "
                "say --lora-alpha, or put the right JSON beside the checkpoint"
            )
        return float(alpha)
    raise ConfigError(
        f"{checkpoint}: no JSON beside it says lora_alpha, the numerator of the scale of its adapters (rank {ranks}); give "
        "it (--lora-alpha): the official configuration has 512 for rank 256"
    )


def read_as(tensors: Mapping[str, StoredTensor], kind: dtype) -> dict[str, Tensor]:
    """Read tensors in a float dtype, one after the other.

    Raises:
        StateDictError: One holds NaN or infinity.
        CheckpointError: One cannot be read.
    """
    return {name: read_weights({name: tensor})[name].to(kind) for name, tensor in tensors.items()}


def _add_once(found: dict[str, StoredTensor], name: str, tensor: StoredTensor) -> None:
    if name in found:
        raise StateDictError(
            f"{found[name].key} and {tensor.key} both mean the same tensor; remove the one that is not wanted"
        )
    found[name] = tensor


def _all_tensors(
    weights: Mapping[str, StoredTensor], adapters: Mapping[str, Adapter]
) -> Iterable[StoredTensor]:
    yield from weights.values()
    for adapter in adapters.values():
        yield adapter.down
        yield adapter.up


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
