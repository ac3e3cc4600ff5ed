"""Arrays of pixels, already of the model's input size."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.source import CountedEntries, Entry, Item, make_item

__all__ = ["PixelSource"]

_ARRAY_NAME = "pixel_values"
_EXPECTED = f"an array {_ARRAY_NAME!r} (or a single one), uint8 or normalised float32, of shape [N, 3, H, W]"
_READ_ERRORS = (OSError, ValueError, EOFError, RuntimeError, SafetensorError, zipfile.BadZipFile, zlib.error)


class PixelSource:
    """Pixels in `.npz` or `.safetensors`; each image is read when asked for.

    A compressed `.npz` (`np.savez_compressed`) cannot be read in parts and is held in memory whole.
    """

    kind: Literal["pixels"] = "pixels"

    def __init__(self, path: Path, location: str) -> None:
        self.location = location
        self._name = path.name
        open_array = _open_npz if path.suffix.lower() == ".npz" else _open_safetensors
        try:
            self._count, self._read = open_array(path)
        except _READ_ERRORS as error:
            raise CalibrationDataError(
                f"{path.name}: cannot be read ({error}), expected {_EXPECTED}; make the file again"
            ) from error

    def entries(self) -> Sequence[Entry]:
        """One entry per image, in the order of the array."""
        return CountedEntries(self._count, lambda index: Entry(f"{self._name}:{index}", (index,)))

    def load(self, entry: Entry) -> Item:
        """Read the pixels `[3, H, W]` of one image.

        Raises:
            CalibrationDataError: The file is damaged, or a pixel is not finite.
        """
        try:
            pixels = self._read(entry.place[0])
        except _READ_ERRORS as error:
            raise CalibrationDataError(
                f"{entry.name}: cannot be read ({error}); copy the file again"
            ) from error
        return make_item(entry.name, pixels)


def _open_safetensors(path: Path) -> tuple[int, Callable[[int], NDArray[Any]]]:
    file: Any = safe_open(path, framework="np")  # its methods carry no types
    array = file.get_slice(_choose(list(file.keys()), path.name))
    dtype = {"U8": "uint8", "F32": "float32"}.get(array.get_dtype(), array.get_dtype())
    shape = _check(dtype, array.get_shape(), path.name)
    return shape[0], lambda index: array[index : index + 1][0]


def _open_npz(path: Path) -> tuple[int, Callable[[int], NDArray[Any]]]:
    with zipfile.ZipFile(path) as archive:
        arrays = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        chosen = _choose(list(arrays), path.name)
        member = archive.getinfo(arrays[chosen])
        with archive.open(member) as file:
            dtype, shape, fortran_order = _read_header(file)
            _check(dtype.newbyteorder("=").name, shape, path.name)
            header_size = file.tell()
    if member.compress_type == zipfile.ZIP_STORED and not fortran_order:
        array: NDArray[Any] = np.memmap(path, dtype, "r", _start_of(path, member) + header_size, shape)
    else:
        with np.load(path, allow_pickle=False) as loaded:
            array = loaded[chosen]
    return shape[0], lambda index: np.asarray(array[index], dtype.newbyteorder("="))


def _read_header(file: Any) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Return dtype, shape and whether columns come first; the array itself is not read, nor any pickle in it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    return dtype, shape, fortran_order


def _start_of(path: Path, member: zipfile.ZipInfo) -> int:
    """Return the offset of the first byte of a stored member."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    # The local header's own lengths of name and extra field; the directory's may differ.
    name_size, extra_size = (int.from_bytes(header[start : start + 2], "little") for start in (26, 28))
    return member.header_offset + 30 + name_size + extra_size


def _choose(names: list[str], file: str) -> str:
    if _ARRAY_NAME in names:
        return _ARRAY_NAME
    if len(names) == 1:
        return names[0]
    raise CalibrationDataError(
        f"{file}: found the arrays {sorted(names)[:10]}, expected {_EXPECTED}; name one so"
    )


def _check(dtype: str, shape: Sequence[int], file: str) -> tuple[int, ...]:
    if dtype not in ("uint8", "float32") or len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise CalibrationDataError(
            f"{file}: found {dtype}{list(shape)}, expected {_EXPECTED}; convert it, colour channels second"
        )
    return tuple(shape)
