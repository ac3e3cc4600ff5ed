"""What to encode, how to store it, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pargo_export.errors import ConfigError

__all__ = ["DTYPES", "EncodeOptions", "OnError", "StoredPrecision", "TokenFormat"]

TokenFormat: TypeAlias = Literal["parquet", "safetensors"]
StoredPrecision: TypeAlias = Literal["fp16", "fp32"]
OnError: TypeAlias = Literal["stop", "record"]

DTYPES = {"fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class EncodeOptions:
    """Choices of `encode_dataset`.

    Attributes:
        format: Of the shards.
        shard_size: Images of one shard: the unit of work, of resuming, and of what is done again after a failure.
        precision: Of the stored tokens; the graph has its own.
        variant: Graph to run; `None`: the one that suits the machine best.
        backend: What runs it, as `Runtime.open` names it.
        batch_size: Images in one run; `None`: as many as the graph was made for.
        threads: CPU threads of one process; `None`: all cores, with Ray shared evenly by the workers.
        on_error: What an unreadable image does: `"stop"` everything, or be left out and listed (`"record"`).
        id_column: Of Parquet: the column with the name of each image; `None`: `id`, or the place of the row.
        image_column: Of Parquet: the column with bytes, paths, or structs of both; `None`: one of the usual names.
        carry: Columns to store beside the tokens; `None`: the caption, if there is one; empty: none.
        executor: `"local"`, this process; or `"ray"`, Ray workers.
        workers: Ray workers; `None`: one for each machine of the cluster.
        address: Of a running Ray cluster, `"auto"` for that of this machine; `None`: start one here, for this call.
        gpus: GPUs that each Ray worker asks for.

    Raises:
        ConfigError: A choice is unknown or out of range.
    """

    format: TokenFormat = "parquet"
    shard_size: int = 512
    precision: StoredPrecision = "fp16"
    variant: str | None = None
    backend: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    on_error: OnError = "stop"
    id_column: str | None = None
    image_column: str | None = None
    carry: tuple[str, ...] | None = None
    executor: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None
    gpus: float = 0

    def __post_init__(self) -> None:
        for name, choices in (
            ("format", ("parquet", "safetensors")),
            ("precision", tuple(DTYPES)),
            ("on_error", ("stop", "record")),
            ("executor", ("local", "ray")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        for name in ("shard_size", "batch_size", "threads", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: found {value}, expected at least 1")
        if self.gpus < 0:
            raise ConfigError(f"gpus: found {self.gpus}, expected 0 or more")
        given = [name for name in ("workers", "address", "gpus") if getattr(self, name)]
        if self.executor == "local" and given:
            raise ConfigError(
                f"{', '.join(given)}: of use to Ray alone; choose the executor 'ray', or leave out"
            )
        if self.carry is not None and len(set(self.carry)) != len(self.carry):
            raise ConfigError(f"carry: found {', '.join(self.carry)}, expected each column once")
