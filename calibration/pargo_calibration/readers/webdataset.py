"""WebDataset shards: tar archives read in place, never unpacked."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.records import caption_of
from pargo_calibration.readers.source import Entry, Item, is_image_name, make_item, read_range

__all__ = ["WebDatasetSource"]

_NO_CAPTION = (0, 0, 0)
_TEXT, _JSON = 1, 2


class WebDatasetSource:
    """Samples whose members share a name up to the first dot: an image, and perhaps `.txt` or `.json`.

    The index is made from the headers alone; it holds names, offsets and sizes. Of a damaged archive,
    what lies before the damage is used, and one more entry reports the damage when it is loaded.
    """

    kind: Literal["webdataset"] = "webdataset"

    def __init__(self, root: Path, names: Sequence[str], location: str) -> None:
        self.location = location
        self._root = root
        self._shards = sorted(names)
        self._damage: dict[int, str] = {}
        self._entries = [entry for shard in range(len(self._shards)) for entry in self._index_shard(shard)]

    def entries(self) -> Sequence[Entry]:
        """One entry per sample with an image, shards sorted by path, samples in the order of the archive."""
        return self._entries

    def load(self, entry: Entry) -> Item:
        """Read the image and the caption of one sample.

        Raises:
            CalibrationDataError: The archive is cut, or this entry stands for its damage.
        """
        shard, *place = entry.place
        if not place:
            raise CalibrationDataError(f"{entry.name}: {self._damage[shard]}")
        offset, size, form, caption_offset, caption_size = place
        with (self._root / self._shards[shard]).open("rb") as file:
            content = read_range(file, offset, size, entry.name)
            caption = read_range(file, caption_offset, caption_size, entry.name) if form else b""
        return make_item(entry.name, content, _decode_caption(caption, form))

    def _index_shard(self, shard: int) -> Iterator[Entry]:
        """Yield the samples of one archive, and its damage."""
        name = self._shards[shard]
        images: dict[str, tuple[int, int]] = {}
        captions: dict[str, tuple[int, int, int]] = {}
        damage = None
        try:
            with (self._root / name).open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in _regular_members(archive):
                    _note(member, images, captions)
                _check_end(file, archive.offset)
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            damage = (
                f"found a damaged or compressed archive ({error}), expected a plain .tar; "
                "decompress it, or copy or download it again"
            )
        for key, place in images.items():
            yield Entry(f"{name}/{key}", (shard, *place, *captions.get(key, _NO_CAPTION)))
        if damage:
            self._damage[shard] = damage
            yield Entry(f"{name}:end", (shard,))


def _regular_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    before = -1
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # keeps every header otherwise
        if archive.offset <= before:  # a negative size would send the reader back, for ever
            raise tarfile.ReadError(f"member {member.name!r} has an impossible size")
        before = archive.offset
        if member.isreg() and not member.issparse():
            yield member


def _check_end(file: IO[bytes], offset: int) -> None:
    """Refuse a broken header after the first, which tarfile takes for the end of the archive."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"no valid header at offset {offset}")


def _note(
    member: tarfile.TarInfo,
    images: dict[str, tuple[int, int]],
    captions: dict[str, tuple[int, int, int]],
) -> None:
    """Put a member where it belongs; the first of several images or captions of a sample counts."""
    path = PurePosixPath(member.name)
    stem, _, extension = path.name.partition(".")
    if not stem:
        return  # hidden: macOS puts such a twin beside every file
    key = (path.parent / stem).as_posix()
    form = {"txt": _TEXT, "json": _JSON}.get(extension)
    if form:
        captions.setdefault(key, (form, member.offset_data, member.size))
    elif is_image_name(path.name):
        images.setdefault(key, (member.offset_data, member.size))


def _decode_caption(caption: bytes, form: int) -> str | None:
    """Return the caption; a broken one is no reason to lose the image."""
    if form == _TEXT:
        return caption.decode(errors="replace").strip()
    if form == _JSON:
        try:
            return caption_of(json.loads(caption))
        except (ValueError, RecursionError):
            return None
    return None
