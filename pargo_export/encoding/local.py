"""The executor of one process: shard after shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from pargo_export.encoding.choose import Chosen, choose_model
from pargo_export.encoding.options import EncodeOptions
from pargo_export.encoding.records import ShardRecord
from pargo_export.encoding.work import Job, encode_shard, open_runtime

__all__ = ["Executor", "LocalExecutor"]


class Executor(Protocol):
    """What encodes shards; a context manager."""

    @property
    def threads(self) -> int | None:
        """CPU threads of one process; `None`: all cores."""

    def choose(self, bundle: Path, options: EncodeOptions) -> Chosen:
        """Choose the graph and its backend where it will run."""

    def run(self, job: Job, shards: Sequence[int], advance: Callable[[int], None]) -> Iterator[ShardRecord]:
        """Encode shards, and yield the record of each when it is whole, in any order.

        Args:
            job: What is to be made.
            shards: Their numbers.
            advance: Called with the images that were finished since.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class LocalExecutor:
    """Encodes in this process.

    Attributes:
        threads: CPU threads; `None`: all cores.
    """

    def __init__(self, threads: int | None) -> None:
        self.threads = threads

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is left: a run closes what it opens."""

    def choose(self, bundle: Path, options: EncodeOptions) -> Chosen:
        """Choose the graph and its backend."""
        return choose_model(bundle, options)

    def run(self, job: Job, shards: Sequence[int], advance: Callable[[int], None]) -> Iterator[ShardRecord]:
        """Encode shards one after the other, in their order."""
        with open_runtime(job) as runtime:
            for number in shards:
                yield encode_shard(runtime, job, number, advance)
