"""Read one picture from wherever it is."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pargo_export.errors import ImageError, InputError
from pargo_export.preprocessing.color import convert_to_rgb, read_turn, turn_upright
from pargo_export.preprocessing.decoding import check_size, load_pixels, open_image
from pargo_export.preprocessing.draft import draft
from pargo_export.preprocessing.silence import pillow_silenced
from pargo_export.preprocessing.spec import PreprocessSpec

__all__ = ["ImageSource", "load_image"]

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[np.uint8]
)

_ARRAY_SHAPES = "[H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"


def load_image(
    source: ImageSource, *, name: str = "image", draft_for: PreprocessSpec | None = None
) -> Image.Image:
    """Read a picture as an upright 8-bit RGB image.

    The EXIF orientation is applied (the official code ignores it). RGBA from a PNG or made in memory is
    composited on white; other alpha is dropped. 16-bit grey is scaled to 8 bit. Of an animation the
    first frame is used, of a Pillow image the current one. JPEGs are decoded at full size, unless `draft_for` is given.

    Args:
        source: Path, encoded bytes, binary file object, Pillow image, or uint8 array `[H, W]`,
            `[H, W, 1]`, `[H, W, 3]` (RGB) or `[H, W, 4]` (RGBA). A file object is read from its
            beginning and left open.
        name: What messages call a source that is not a path.
        draft_for: What the image is going to be fitted to: a JPEG, encoded, may then be decoded at a half, a quarter or
            an eighth of its size, see `preprocessing.draft`.

    Returns:
        An image of mode RGB. For a Pillow image that needs no change it is `source` itself: do not modify it.

    Raises:
        ImageError: The file is missing, unreadable, damaged, too large (more than 89 478 485 pixels), of
            no supported format (BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP) or of a mode without a
            defined white.
        InputError: `source` is of another type, or an array of another dtype or shape.
    """
    if isinstance(source, np.ndarray):
        return _finish(_image_from_array(source, name), name)
    if isinstance(source, Image.Image):
        return _finish(source, name)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        with _open_path(path) as file:
            return _decode(file, path, draft_for)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), name, draft_for)
    if hasattr(source, "read"):
        return _decode(_rewind(source, name), name, draft_for)
    raise InputError(
        f"{name}: found {type(source).__name__}, expected a path, bytes, a binary file object, a Pillow image "
        f"or a uint8 array {_ARRAY_SHAPES}"
    )


def _decode(file: IO[bytes], name: str, draft_for: PreprocessSpec | None) -> Image.Image:
    with pillow_silenced:
        image = open_image(file, name)
        if draft_for is not None:
            draft(image, draft_for)
        return _finish(image, name)


def _finish(image: Image.Image, name: str) -> Image.Image:
    """Check, decode, convert and turn an opened image."""
    check_size(image, name)
    with pillow_silenced:
        load_pixels(image, name)
        turn = read_turn(image)
        return turn_upright(convert_to_rgb(image, name), turn)


def _open_path(path: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: a directory, expected a picture; pass the files in it") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be opened ({error}); check the path and its permissions") from error


def _rewind(file: IO[bytes], name: str) -> IO[bytes]:
    """Return `file` at its beginning, or its remaining bytes if it cannot seek."""
    if isinstance(file, io.TextIOBase):
        raise InputError(f"{name}: found a file opened as text, expected binary; open it with mode 'rb'")
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):
        return io.BytesIO(file.read())
    return file


def _image_from_array(array: NDArray[np.generic], name: str) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if (
        array.dtype != np.uint8
        or not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4)))
        or not array.size
    ):
        raise InputError(
            f"{name}: found {array.dtype}{list(shape)}, expected uint8 {_ARRAY_SHAPES}, not empty; "
            "convert to 0..255 and move channels last"
        )
    return Image.fromarray(array)
