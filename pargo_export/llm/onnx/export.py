"""From a directory of transformers to one that runs without PyTorch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from pargo_export.bundle import Evidence, sha256_files
from pargo_export.bundle.atomic import fsync_directory, fsync_file
from pargo_export.errors import ConfigError, ExportError
from pargo_export.llm.onnx.decoder import Decoder
from pargo_export.llm.onnx.embeddings import TABLE
from pargo_export.llm.onnx.parity import (
    ExportPrecision,
    ParityCase,
    make_cases,
    measure_logits,
    require_logits,
)
from pargo_export.llm.onnx.record import (
    CacheShape,
    ExportedLanguageModel,
    is_exported_language_model,
    record_files,
    write_record,
)
from pargo_export.llm.onnx.tokenizer import save_tokenizer
from pargo_export.llm.opening import open_language_model
from pargo_export.optional import require

if TYPE_CHECKING:
    from pargo_export.llm.transformers_model import TransformersLanguageModel

__all__ = ["PRECISIONS", "ExportPrecision", "export_language_model"]

PRECISIONS = ("fp32", "int8", "int4")
_BITS = {"int8": 8, "int4": 4}
_GRAPH, _EMBEDDINGS = "decoder.onnx", "embeddings.safetensors"


def export_language_model(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    adapters: str | os.PathLike[str] | None = None,
    lora_alpha: float | None = None,
    precision: ExportPrecision = "fp32",
    trust_remote_code: bool = False,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportedLanguageModel:
    """Write a language model as an ONNX decoder, a table of embeddings, a tokenizer and a record.

    `open_language_model(output)` runs it with NumPy, ONNX Runtime, safetensors and tokenizers. Before anything is
    written, its logits are held against PyTorch: prompts padded on the left, further tokens one by one, rows that
    change places.

    Args:
        directory: Of transformers.
        output: The directory to make.
        adapters: A ParGo checkpoint whose adapters, or whole language model, are merged first.
        lora_alpha: As for `open_language_model`.
        precision: Of the weights of products: `"fp32"`, or `"int8"` and `"int4"`, rounded to nearest in blocks.
        trust_remote_code: As for `open_language_model`.
        force: Replace an exported language model.
        progress: Called with what is being done.

    Returns:
        The record that was written.

    Raises:
        ConfigError: `directory` holds no language model, or an option does not fit.
        ExportError: The model cannot be exported, or `output` exists.
        ParityError: The graph does not compute what PyTorch computes.
        AccuracyError: Weights of that precision change the logits too much.
        MissingDependencyError: A package is not installed.
    """
    say = progress or (lambda _: None)
    output = Path(output)
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}")
    _check_output(output, force=force)
    for module in ("torch", "transformers", "onnx_ir", "onnxscript"):
        extra = "llm" if module in {"torch", "transformers"} else "export"
        require(module, extra=extra, purpose="export a language model")
    say("loading the language model")
    opened = open_language_model(
        directory,
        backend="transformers",
        adapters=adapters,
        lora_alpha=lora_alpha,
        trust_remote_code=trust_remote_code,
    )
    model = cast("TransformersLanguageModel", opened)  # the backend that was asked for
    with model, tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as made:
        staging = Path(made) / "exported"
        staging.mkdir()
        record = _write(model, Path(directory).resolve().name, staging, precision, adapters, say)
        for path in staging.iterdir():
            fsync_file(path)
        _publish(staging, output, aside=Path(made) / "replaced")
    fsync_directory(output.parent)
    return record


def _check_output(output: Path, *, force: bool) -> None:
    if not output.absolute().parent.is_dir():
        raise ExportError(f"{output}: its directory does not exist; create it first")
    if not os.path.lexists(output) or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output.is_dir() and is_exported_language_model(output)):
        raise ExportError(f"{output} exists and is no exported language model; choose another name")
    if not force:
        raise ExportError(f"{output} exists; choose another name, or replace it (--force)")


def _publish(staging: Path, output: Path, *, aside: Path) -> None:
    """Put the finished directory into place; a crash leaves the old one, none, or the new one, never a mixture."""
    if output.exists():
        output.rename(aside)
    staging.rename(output)


def _write(
    model: TransformersLanguageModel,
    name: str,
    staging: Path,
    precision: ExportPrecision,
    adapters: str | os.PathLike[str] | None,
    say: Callable[[str], None],
) -> ExportedLanguageModel:
    """Fill `staging`, the record last, and let nothing pass that does not compute what the model computes."""
    import onnx_ir as ir

    from pargo_export.llm.onnx.translate import find_caches, read_without_caches, translate

    say("translating to ONNX")
    caches = find_caches(model.model, model.hidden_size)
    graph = staging / _GRAPH
    ir.save(translate(model.model, model.hidden_size, caches), graph, external_data=f"{_GRAPH}.data")
    num_embeddings = _save_embeddings(model, staging / _EMBEDDINGS)
    say("comparing with PyTorch")
    cases = make_cases(model.embed, num_embeddings, partial(read_without_caches, model.model))
    evidence = _measure(graph, caches, model, cases, "fp32")
    require_logits(evidence, "fp32")
    if precision != "fp32":
        say(f"quantizing the weights to {_BITS[precision]} bits")
        _quantize_in_place(graph, _BITS[precision])
        evidence = _measure(graph, caches, model, cases, precision)
        require_logits(evidence, precision)
    tokenizer = save_tokenizer(model.tokenizer, staging)
    record = ExportedLanguageModel(
        name=name,
        model_type=str(model.model.config.model_type),
        precision=precision,
        hidden_size=model.hidden_size,
        vocab_size=cases[0].logits.shape[-1],
        bos_token_id=model.bos_token_id,
        end_token_ids=tuple(sorted(model.end_ids)),
        keys=tuple(caches[::2]),
        values=tuple(caches[1::2]),
        graph=_GRAPH,
        embeddings=_EMBEDDINGS,
        tokenizer=tokenizer,
        adapters_sha256=None if adapters is None else _hash_adapters(adapters),
        files=record_files(staging),
        evidence=evidence,
        tools={module: version(module) for module in ("onnx", "onnxruntime", "torch", "transformers")},
    )
    write_record(staging, record)
    return record


def _measure(
    graph: Path,
    caches: Sequence[CacheShape],
    model: TransformersLanguageModel,
    cases: Sequence[ParityCase],
    precision: ExportPrecision,
) -> Evidence:
    decoder = Decoder(graph, caches)
    try:
        return measure_logits(decoder, model.embed, cases, precision)
    finally:
        decoder.close()


def _quantize_in_place(graph: Path, bits: int) -> None:
    from pargo_export.llm.onnx.quantize import quantize_weights

    with tempfile.TemporaryDirectory(dir=graph.parent.parent, prefix="float32.") as floats:
        for path in graph.parent.glob(f"{graph.name}*"):
            path.rename(Path(floats) / path.name)
        quantize_weights(Path(floats) / graph.name, graph, bits)


def _save_embeddings(model: TransformersLanguageModel, path: Path) -> int:
    """Write the table of embeddings, in float16 if that loses nothing; return its number of rows."""
    from safetensors.numpy import save_file

    rows = int(model.model.get_input_embeddings().weight.shape[0])
    table = model.embed(range(rows))
    with np.errstate(over="ignore"):
        halves = table.astype(np.float16)
    is_exact = np.array_equal(halves.astype(np.float32), table)
    save_file({TABLE: halves if is_exact else table}, path)
    return rows


def _hash_adapters(adapters: str | os.PathLike[str]) -> str:
    from pargo_export.checkpoint.files import open_source

    return sha256_files(open_source(Path(adapters)).files)
