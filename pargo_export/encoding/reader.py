"""Read an encoded data set: in order, or image by image."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.bundle import sha256_file
from pargo_export.encoding.places import work_directory
from pargo_export.encoding.records import INDEX_NAME, EncodedIndex, read_record
from pargo_export.encoding.shard_files import require_format
from pargo_export.encoding.stored_shards import StoredShard, open_shard
from pargo_export.errors import InputError, IntegrityError

__all__ = ["EncodedTokens", "open_encoded"]

_OPEN_SHARDS = 8


def open_encoded(path: str | os.PathLike[str]) -> EncodedTokens:
    """Open what `encode_dataset` wrote.

    Raises:
        InputError: There is no index, or a shard is missing or of another size.
        MissingDependencyError: The shards are Parquet files, and PyArrow is not installed.
    """
    root = Path(path)
    index = read_record(root / INDEX_NAME, EncodedIndex)
    if index is None:
        begun = work_directory(root).exists()
        mend = "call `pargo-export encode-dataset` again to finish it" if begun else "check the path"
        raise InputError(f"{root}: found no {INDEX_NAME}, expected an encoded data set; {mend}")
    require_format(index.plan.format)
    for shard in index.shards:
        file = root / shard.file
        size = file.stat().st_size if file.is_file() else None
        if size != shard.size_bytes:
            found = "it is missing" if size is None else f"found {size} bytes"
            raise InputError(
                f"{file}: {found}, expected {shard.size_bytes} bytes; encode again, whole shards are kept"
            )
    return EncodedTokens(root, index)


class EncodedTokens:
    """Visual tokens on disk; a context manager. Files are mapped, so only what is asked for is read.

    ::

        with open_encoded("tokens") as encoded:
            encoded["street.jpg"]              # [Q, C], in the stored dtype
            for name, tokens in encoded: ...   # in the order of the input

    Attributes:
        path: The directory.
        index: What lies in it.
        shape: Of the tokens of one image, `[Q, C]`.
        dtype: `float16` or `float32`.
    """

    def __init__(self, path: Path, index: EncodedIndex) -> None:
        self.path = path
        self.index = index
        self.shape: tuple[int, int] = index.plan.shape
        self.dtype = np.dtype(index.plan.dtype)
        self._open: OrderedDict[int, StoredShard] = OrderedDict()
        self._places: dict[str, tuple[int, int]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; again does nothing. What is read later opens them again."""
        self._open.clear()

    def __len__(self) -> int:
        return self.index.rows

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Yield name and tokens `[Q, C]` of every image, in the order of the input."""
        for number, shard in enumerate(self.index.shards):
            if shard.rows:
                yield from self._shard(number)

    def __contains__(self, name: object) -> bool:
        return name in self._find()

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        """Tokens `[Q, C]` of one image.

        Raises:
            KeyError: There are none of that name; `index` tells which images failed.
        """
        number, row = self._find()[name]
        return self._shard(number).tokens(row)

    def carried(self, name: str) -> dict[str, Any]:
        """Return what was carried along with one image, by column.

        Raises:
            KeyError: There are no tokens of that name.
        """
        number, row = self._find()[name]
        return self._shard(number).carried(row)

    @property
    def ids(self) -> list[str]:
        """Names of all images that have tokens, in the order of the input."""
        return list(self._find())

    def verify(self) -> None:
        """Hash every shard.

        Raises:
            IntegrityError: One is not what was written.
        """
        for shard in self.index.shards:
            found = sha256_file(self.path / shard.file)
            if found != shard.sha256:
                raise IntegrityError(
                    f"{self.path / shard.file}: found sha256 {found}, expected {shard.sha256}; encode again, whole shards are "
                    "kept"
                )

    def _find(self) -> dict[str, tuple[int, int]]:
        """Return shard and row of every image; read once."""
        if self._places is None:
            self._places = {
                name: (number, row)
                for number, shard in enumerate(self.index.shards)
                if shard.rows
                for row, name in enumerate(self._shard(number).ids())
            }
        return self._places

    def _shard(self, number: int) -> StoredShard:
        """Return an open shard; the one that was not used longest is closed when there are many."""
        if number not in self._open:
            record, plan = self.index.shards[number], self.index.plan
            self._open[number] = open_shard(
                self.path / record.file,
                record,
                shard_format=plan.format,
                shape=self.shape,
                dtype=plan.dtype,
            )
            while len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]
