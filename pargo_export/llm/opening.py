"""Open a language model: which backend runs a directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeAlias

from pargo_export.errors import BackendError, ConfigError
from pargo_export.llm.language_model import LanguageModel

__all__ = ["BACKENDS", "EXPORTED_FILE", "LlmBackend", "open_language_model"]

LlmBackend: TypeAlias = Literal["auto", "transformers", "onnxruntime"]
BACKENDS = ("auto", "transformers", "onnxruntime")
# By this file a directory that `export_language_model` wrote is recognised.
EXPORTED_FILE = "language_model.json"


def open_language_model(
    directory: str | os.PathLike[str],
    *,
    backend: LlmBackend = "auto",
    adapters: str | os.PathLike[str] | None = None,
    lora_alpha: float | None = None,
    merge_adapters: bool = True,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Open the language model in a directory.

    Args:
        directory: A directory of transformers (config.json, weights, tokenizer), or one that `export_language_model`
            wrote, which runs without PyTorch.
        backend: `"auto"`: what the directory was made for.
        adapters: A ParGo checkpoint whose `llm_model.*` tensors (LoRA adapters, or a whole language model with them)
            are put into the model; every container that `pargo_export.checkpoint` reads.
        lora_alpha: Numerator of the scale alpha / r of the adapters; by default from the JSON beside the checkpoint.
        merge_adapters: Add the adapters to the weights, which is faster; else they are computed beside them.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`: of weights and products (transformers).
        device: Where PyTorch computes, such as `"cuda"`.
        threads: CPU threads; by default what the backend chooses.
        trust_remote_code: Execute the Python files of the directory if its model needs them. They can do anything
            that you can do.

    Raises:
        ConfigError: The directory holds no language model, needs code of its own, or an option does not fit.
        CheckpointError: The adapters cannot be read; `StateDictError`: they do not fit the model.
        MissingDependencyError: A package of the backend is not installed.
    """
    directory = Path(directory)
    if backend not in BACKENDS:
        raise BackendError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    if not directory.is_dir():
        raise ConfigError(
            f"{directory}: no such directory; expected one of transformers (config.json, weights, tokenizer) or of "
            "an exported language model"
        )
    if threads is not None and threads < 1:
        raise ConfigError(f"threads: found {threads}, expected at least 1, or None")
    if backend == "onnxruntime" or (backend == "auto" and (directory / EXPORTED_FILE).is_file()):
        from pargo_export.llm.onnx import open_onnx_language_model

        _refuse_for_onnx(adapters=adapters, lora_alpha=lora_alpha, dtype=dtype, device=device)
        return open_onnx_language_model(directory, threads=threads)
    from pargo_export.llm.transformers_model import open_transformers_language_model

    return open_transformers_language_model(
        directory,
        adapters=None if adapters is None else Path(adapters),
        lora_alpha=lora_alpha,
        merge_adapters=merge_adapters,
        dtype=dtype,
        device=device,
        threads=threads,
        trust_remote_code=trust_remote_code,
    )


def _refuse_for_onnx(
    *, adapters: str | os.PathLike[str] | None, lora_alpha: float | None, dtype: str, device: str
) -> None:
    if adapters is not None or lora_alpha is not None:
        raise ConfigError("adapters are merged when a language model is exported; export it with them")
    if dtype != "float32":
        raise ConfigError(f"dtype: found {dtype!r}, but the precision of an exported model is in its graph")
    if device != "cpu":
        raise ConfigError(f"device: found {device!r}, but an exported language model runs on the CPU")
