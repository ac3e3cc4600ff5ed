"""Find out what a path holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.folder import FolderSource, walk_files
from pargo_calibration.readers.manifest import JsonLinesSource, JsonSource
from pargo_calibration.readers.parquet import ParquetSource
from pargo_calibration.readers.pixels import PixelSource
from pargo_calibration.readers.source import IMAGE_SUFFIXES, DataSource, is_image_name
from pargo_calibration.readers.webdataset import WebDatasetSource

__all__ = ["open_source"]

_OF_ONE_FILE: dict[str, Callable[[Path, str], DataSource]] = {
    ".jsonl": JsonLinesSource,
    ".json": JsonSource,
    ".npz": PixelSource,
    ".safetensors": PixelSource,
}
_OF_MANY_FILES: dict[str, Callable[[Path, Sequence[str], str], DataSource]] = {
    ".parquet": ParquetSource,
    ".tar": WebDatasetSource,
}


def open_source(path: str | os.PathLike[str]) -> DataSource:
    """Open calibration data of any form.

    - a folder of images (with everything below it), or one image;
    - `.jsonl` or `.json`: an image-caption manifest;
    - `.parquet`, or a folder of them: an image column;
    - `.tar`, or a folder of them: WebDataset shards;
    - `.npz` or `.safetensors`: pixel values `[N, 3, H, W]`.

    Raises:
        CalibrationDataError: There is nothing at `path`, or nothing of these forms.
    """
    location = os.fspath(path)
    found = Path(location)
    try:
        if found.is_dir():
            return _open_folder(found, location)
        if found.is_file():
            return _open_file(found, location)
    except (OSError, ValueError) as error:
        raise CalibrationDataError(f"{location}: cannot be read ({error}); check its permissions") from error
    raise CalibrationDataError(f"{location}: no such file or folder; check the path")


def _open_file(path: Path, location: str) -> DataSource:
    suffix = path.suffix.lower()
    if is_image_name(path.name):
        return FolderSource(path.parent, [path.name], location)
    if suffix in _OF_MANY_FILES:
        return _OF_MANY_FILES[suffix](path.parent, [path.name], location)
    if suffix in _OF_ONE_FILE:
        return _OF_ONE_FILE[suffix](path, location)
    raise CalibrationDataError(
        f"{location}: found a file ending in {suffix!r}, expected a folder, an image, or one of "
        f"{sorted({*_OF_ONE_FILE, *_OF_MANY_FILES})}"
    )


def _open_folder(path: Path, location: str) -> DataSource:
    names: dict[str, list[str]] = {"image": [], **{suffix: [] for suffix in _OF_MANY_FILES}}
    for name in walk_files(path):
        form = "image" if is_image_name(name) else Path(name).suffix.lower()
        if form in names:
            names[form].append(name)
    forms = [form for form, found in names.items() if found]
    if not forms:
        raise CalibrationDataError(
            f"{location}: found no images, expected files ending in {sorted(IMAGE_SUFFIXES)}, or .parquet or .tar; "
            "a manifest (.jsonl, .json) or an array is opened by its own path"
        )
    if len(forms) > 1:
        raise CalibrationDataError(
            f"{location}: found files of several forms ({', '.join(forms)}), expected one; pass the folder of one of them"
        )
    if forms == ["image"]:
        return FolderSource(path, names["image"], location)
    return _OF_MANY_FILES[forms[0]](path, names[forms[0]], location)
