"""What is written about an encoded data set: its plan, each shard, and the index of all.

The schema version is `MAJOR.MINOR`, as that of a bundle: a minor version adds fields, which older readers keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from pargo_export._version import __version__
from pargo_export.bundle.fields import Count, Positive, Sha256
from pargo_export.config import Record
from pargo_export.encoding.options import TokenFormat
from pargo_export.errors import ConfigError, InputError

__all__ = [
    "INDEX_NAME",
    "KIND",
    "SCHEMA_VERSION",
    "EncodedBy",
    "EncodedFrom",
    "EncodedIndex",
    "FailedImage",
    "Plan",
    "ShardRecord",
    "find_differences",
    "read_record",
    "to_json",
]

SCHEMA_VERSION = "1.0"
KIND = "pargo-export encoded data set"
INDEX_NAME = "index.json"

_RecordType = TypeVar("_RecordType", bound=Record)
_ShardName = Annotated[str, Field(pattern=r"^part-\d{5,}-of-\d{5,}\.(parquet|safetensors)$")]

# What may differ between a run and its continuation: who wrote it, and how the path to the data was spelled.
_INFORMATIVE = {"written_by", "input.location", "schema_version"}


class EncodedFrom(Record):
    """The images.

    Attributes:
        kind: Form of the data, for example `"webdataset"`.
        location: Where it lay, as it was given.
        num_images: Images that were found.
        fingerprint: Hash of the names and sizes of its files; of manifests and arrays, of their content.
        id_column: Of Parquet: where the names of the images are from.
        image_column: Of Parquet: the column of the images, if it was named.
        carried: Columns that are stored beside the tokens.
    """

    kind: str
    location: str
    num_images: Positive
    fingerprint: Sha256
    id_column: str | None = None
    image_column: str | None = None
    carried: tuple[str, ...] = ()


class EncodedBy(Record):
    """What computes the tokens.

    Attributes:
        variant: Graph of the bundle.
        backend: What runs it.
        engine: TensorRT engine that runs, if one does.
        graph_sha256: Hash of the graph and its weights.
        preprocessing_sha256: Hash of how pictures become inputs.
        batch_size: Images in one run.
    """

    variant: str
    backend: str
    engine: str | None = None
    graph_sha256: Sha256
    preprocessing_sha256: Sha256
    batch_size: Positive


class Plan(Record):
    """Everything that decides on the bytes of the shards.

    Attributes:
        kind: Says what the file is.
        schema_version: Version of this schema.
        written_by: Version of pargo-export that planned.
        input: The images.
        model: What computes the tokens.
        output: Name of the output, for example `"visual_tokens"`.
        shape: Of the tokens of one image, `[Q, C]`.
        dtype: `"float16"` or `"float32"`.
        format: Of the shards.
        shard_size: Images of each shard; the last one may have fewer.
    """

    kind: str = KIND
    schema_version: str = SCHEMA_VERSION
    written_by: str = __version__
    input: EncodedFrom
    model: EncodedBy
    output: str
    shape: tuple[Positive, Positive]
    dtype: str
    format: TokenFormat
    shard_size: Positive

    @property
    def num_shards(self) -> int:
        """Number of shards: that of the images, divided and rounded up."""
        return -(-self.input.num_images // self.shard_size)

    def images_of(self, number: int) -> tuple[int, int]:
        """First image of a shard, and the one behind its last."""
        start = number * self.shard_size
        return start, min(start + self.shard_size, self.input.num_images)

    def file_of(self, number: int) -> str:
        """Name of the file of a shard."""
        return f"part-{number:05}-of-{self.num_shards:05}.{self.format}"


class FailedImage(Record):
    """An image that could not be read.

    Attributes:
        id: Its name.
        reason: Why.
    """

    id: str
    reason: str


class ShardRecord(Record):
    """One finished shard.

    Attributes:
        number: Of the shard, from 0.
        file: Its file.
        sha256: Hash of the file.
        size_bytes: Size of the file.
        start: First image, in the order of the input.
        num_images: Images that were looked at.
        rows: Images with tokens, in the order of the input.
        failed: The others.
        images_sha256: One hash for the contents of the images with tokens.
    """

    number: Count
    file: _ShardName
    sha256: Sha256
    size_bytes: Count
    start: Count
    num_images: Positive
    rows: Count
    failed: tuple[FailedImage, ...] = ()
    images_sha256: Sha256


class EncodedIndex(Record):
    """A whole encoded data set.

    Attributes:
        kind: Says what the file is.
        schema_version: Version of this schema.
        plan: How it was made.
        rows: Images with tokens.
        num_failed: Images that could not be read.
        shards: The shards, in order.
    """

    kind: str = KIND
    schema_version: str = SCHEMA_VERSION
    plan: Plan
    rows: Count
    num_failed: Count
    shards: tuple[ShardRecord, ...]


def to_json(record: Record) -> bytes:
    """Text of a record: the same for the same content."""
    return (
        json.dumps(record.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False).encode()
        + b"\n"
    )


def read_record(path: Path, record_type: type[_RecordType]) -> _RecordType | None:
    """Read a record; `None` if there is no such file.

    Raises:
        InputError: It cannot be read, is something else, or of another major version.
    """
    try:
        values: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a record of `pargo-export encode-dataset`"
        ) from error
    if "kind" in record_type.model_fields:
        _check_kind(values, path)
    try:
        return record_type.parse(values, source=str(path))
    except ConfigError as error:
        raise InputError(f"{error}; encode again, into another directory") from error


def _check_kind(values: Any, path: Path) -> None:
    kind = values.get("kind") if isinstance(values, dict) else type(values).__name__
    if kind != KIND:
        raise InputError(f"{path}: found {kind!r}, expected what `pargo-export encode-dataset` wrote")
    version = str(values.get("schema_version"))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise InputError(
            f"{path}: found schema version {version}, expected {SCHEMA_VERSION.partition('.')[0]}.x; read it with the "
            "version of pargo-export that wrote it"
        )


def find_differences(found: Plan, wanted: Plan) -> list[str]:
    """Say which choices of two plans differ: `"model.variant: fp32 there, int8 now"`."""
    before, now = (dict(_flatten(plan.model_dump(mode="json"))) for plan in (found, wanted))
    return [
        f"{name}: {before.get(name)} there, {now.get(name)} now"
        for name in sorted(before.keys() | now.keys())
        if name not in _INFORMATIVE and before.get(name) != now.get(name)
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
