"""`language_model.json`: what an exported language model is, and the hashes of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from pargo_export._version import __version__
from pargo_export.bundle import Evidence, atomic_write, sha256_file
from pargo_export.bundle.fields import BundlePath, Count, Positive, Sha256
from pargo_export.config import Record
from pargo_export.errors import ConfigError, IntegrityError
from pargo_export.llm.opening import EXPORTED_FILE

__all__ = [
    "RECORD_NAME",
    "SCHEMA_VERSION",
    "CacheShape",
    "ExportedFile",
    "ExportedLanguageModel",
    "check_files",
    "is_exported_language_model",
    "read_record",
    "record_files",
    "write_record",
]

RECORD_NAME = EXPORTED_FILE
SCHEMA_VERSION = "1.0"  # a reader takes every minor version of its major version
_HASHED_UP_TO_BYTES = 64 * 2**20  # weights beyond are compared by size: a 7B model would take minutes to open


class ExportedFile(Record):
    """One file beside the record."""

    sha256: Sha256
    size_bytes: Count


class CacheShape(Record):
    """Keys or values that one layer keeps: `[B, heads, positions, width]`."""

    heads: Positive
    width: Positive


class ExportedLanguageModel(Record):
    """The record of an exported language model.

    Attributes:
        schema_version: Version of this record, `MAJOR.MINOR`.
        written_by: Version of pargo-export.
        name: Of the directory that it was made from.
        model_type: Of transformers, such as `llama`.
        precision: Of the weights of the graph: `fp32`, `int8`, `int4`.
        hidden_size: Width C of the embeddings.
        vocab_size: Number of logits.
        bos_token_id: Token that begins a sequence; `None` if there is none.
        end_token_ids: Tokens that end one.
        keys: Of each layer, what its cache keeps as keys.
        values: The same as values.
        graph: The decoder: `inputs_embeds`, `attention_mask`, caches in; `logits` of the last position, caches out.
        embeddings: safetensors with the table `weight` `[V, C]`.
        tokenizer: `tokenizer.json`, or the `tokenizer.model` of InternLM2.
        adapters_sha256: Of the checkpoint whose adapters were merged; `None` if there were none.
        files: Every file but this one, by name.
        evidence: Logits against PyTorch in float32, before anything was written.
        tools: Versions of the tools that made it.
    """

    schema_version: str = SCHEMA_VERSION
    written_by: str = __version__
    name: str
    model_type: str
    precision: Literal["fp32", "int8", "int4"]
    hidden_size: Positive
    vocab_size: Positive
    bos_token_id: Count | None
    end_token_ids: tuple[Count, ...]
    keys: tuple[CacheShape, ...] = Field(min_length=1)
    values: tuple[CacheShape, ...] = Field(min_length=1)
    graph: BundlePath
    embeddings: BundlePath
    tokenizer: BundlePath
    adapters_sha256: Sha256 | None = None
    files: dict[BundlePath, ExportedFile]
    evidence: Evidence
    tools: dict[str, str] = Field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, without the record."""
        return sum(file.size_bytes for file in self.files.values())


def is_exported_language_model(directory: Path) -> bool:
    """Whether a directory was written by `export_language_model`."""
    return (directory / RECORD_NAME).is_file()


def record_files(directory: Path) -> dict[str, ExportedFile]:
    """Return size and hash of every file of a directory."""
    return {
        path.name: ExportedFile(sha256=sha256_file(path), size_bytes=path.stat().st_size)
        for path in sorted(directory.iterdir())
        if path.name != RECORD_NAME
    }


def write_record(directory: Path, record: ExportedLanguageModel) -> None:
    """Write the record of a directory whose other files are there."""
    atomic_write(directory / RECORD_NAME, record.model_dump_json(indent=2).encode() + b"\n")


def read_record(directory: Path) -> ExportedLanguageModel:
    """Read the record of an exported language model.

    Raises:
        ConfigError: There is none, it cannot be read, or it is of another schema version.
    """
    path = directory / RECORD_NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{directory}: found no {RECORD_NAME}, expected an exported language model; make one: "
            f"pargo-export llm DIR -o {directory}"
        ) from error
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}; export the language model again") from error
    record = ExportedLanguageModel.parse(values, source=str(path))
    if record.schema_version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ConfigError(
            f"{path}: found schema version {record.schema_version} (written by pargo-export {record.written_by}), "
            f"expected {SCHEMA_VERSION.partition('.')[0]}.*; export the language model again with this version"
        )
    return record


def check_files(directory: Path, record: ExportedLanguageModel) -> None:
    """Compare the files with the record: all by size, those up to 64 MiB by content too.

    Raises:
        IntegrityError: A file is missing, or is not the one that was exported.
    """
    for name, expected in record.files.items():
        path = directory / name
        if not path.is_file():
            raise IntegrityError(f"{path} is missing; copy the whole directory again")
        size = path.stat().st_size
        if size != expected.size_bytes:
            raise IntegrityError(
                f"{path}: found {size} bytes, expected {expected.size_bytes}; copy the directory again"
            )
        if size <= _HASHED_UP_TO_BYTES and sha256_file(path) != expected.sha256:
            raise IntegrityError(
                f"{path}: its content is not what was exported (SHA-256); copy the directory again"
            )
