"""Image and caption of one record of a manifest, under the names that datasets use."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pargo_calibration.errors import CalibrationDataError
from pargo_calibration.readers.source import is_image_name, read_image_file

__all__ = ["BYTES_KEYS", "CAPTION_KEYS", "IMAGE_KEYS", "PATH_KEYS", "caption_of", "read_image"]

PATH_KEYS = ("image", "image_path", "file_name", "filename", "img", "img_path", "path", "file")
BYTES_KEYS = ("image_bytes", "image_base64", "base64", "bytes", "jpg", "jpeg", "png", "webp")
IMAGE_KEYS = PATH_KEYS + BYTES_KEYS
CAPTION_KEYS = ("caption", "text", "description", "conversations")

# What base64 of a JPEG, PNG, GIF or RIFF (WebP) file begins with.
_BASE64_PREFIXES = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")


def read_image(record: Any, root: Path, name: str) -> bytes:
    """Return the encoded image of a record.

    The value is a path, base64 text, a `data:` address, bytes, or an object with `bytes` or `path`. A
    relative path may not leave `root`; an absolute one is taken as it is, because whoever wrote the
    manifest meant it. Links are followed: stores of downloaded files are made of them.

    Raises:
        CalibrationDataError: There is no image, or it cannot be read.
    """
    if not isinstance(record, Mapping):
        raise CalibrationDataError(
            f"{name}: found {type(record).__name__}, expected an object with an image under one of {list(IMAGE_KEYS)}"
        )
    for key in IMAGE_KEYS:
        if record.get(key) is not None:
            return _read_value(record[key], root, name, is_base64=key in BYTES_KEYS)
    raise CalibrationDataError(
        f"{name}: found the keys {sorted(map(str, record))}, expected an image under one of {list(IMAGE_KEYS)}; "
        "rename the key"
    )


def caption_of(record: Any) -> str | None:
    """Return the caption of a record, the first answer of a conversation included; `None` if there is none."""
    if not isinstance(record, Mapping):
        return None
    for key in CAPTION_KEYS:
        value = record.get(key)
        if isinstance(value, list):
            value = next((found for found in map(_text_of_turn, value) if found), None)
        if isinstance(value, str):
            return value.strip()
    return None


def _text_of_turn(turn: Any) -> str | None:
    """Return a caption of a list of captions, or what the model answered in a conversation (LLaVA)."""
    if isinstance(turn, Mapping):
        turn = turn.get("value") if turn.get("from") in ("gpt", "assistant") else None
    return turn if isinstance(turn, str) else None


def _read_value(value: Any, root: Path, name: str, *, is_base64: bool) -> bytes:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return _read_value(value["bytes"], root, name, is_base64=True)
        return _read_value(value.get("path"), root, name, is_base64=False)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        found = f"a list of {len(value)}" if isinstance(value, (list, tuple)) else repr(value)[:40]
        raise CalibrationDataError(
            f"{name}: found {found} as the image, expected one path or one encoded image"
        )
    if value.startswith("data:"):
        return _decode_base64(value.partition(",")[2], name)
    if is_base64 or (value.startswith(_BASE64_PREFIXES) and not is_image_name(value)):
        return _decode_base64(value, name)
    return read_image_file(_resolve(value, root, name), name)


def _decode_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CalibrationDataError(
            f"{name}: found broken base64 ({error}), expected a whole encoded image"
        ) from error


def _resolve(value: str, root: Path, name: str) -> Path:
    if "://" in value:
        raise CalibrationDataError(
            f"{name}: found the address {value[:80]!r}, expected a file; download the images first, nothing is fetched here"
        )
    path = Path(value)
    if Path(os.path.normpath(path)).parts[:1] == ("..",):
        raise CalibrationDataError(
            f"{name}: path {value!r} leaves the folder of the manifest; move the manifest up, or write an absolute path"
        )
    return root / path
