"""From a decoded Pillow image of any mode to an upright RGB image."""

from __future__ import annotations

import struct

import numpy as np
from PIL import ExifTags, Image

from pargo_export.errors import ImageError

__all__ = ["convert_to_rgb", "read_turn", "turn_upright"]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow raises for an EXIF block that is not one.
_EXIF_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error)

_WHITE = (255, 255, 255)


def read_turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns a decoded image upright by its EXIF orientation.

    None: it is upright, says nothing about it, or its EXIF block is unreadable.
    """
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _EXIF_ERRORS:
        return None


def turn_upright(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Turn an image; the result carries no metadata, so that it is not turned again."""
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info.clear()
    return turned


def convert_to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert a decoded image to RGB as the official code does; an RGB image is returned as it is.

    RGBA from a PNG, or without a format (made in memory), is composited on white. Any other mode or
    format goes through Pillow's conversion: alpha is dropped, CMYK is converted without a profile.

    Unlike in the official code, 16-bit grey is scaled to 8 bit instead of clipped: the high byte is
    kept, as Pillow does for 16-bit colour.

    Raises:
        ImageError: The mode has no defined white (`F`), or its values are not 16-bit (`I`).
    """
    if image.mode == "RGB":
        return image
    if image.mode == "RGBA" and image.format in ("PNG", None):
        background = Image.new("RGB", image.size, _WHITE)
        background.paste(image, mask=image.getchannel("A"))
        return background
    if image.mode == "F":
        raise ImageError(
            f"{name}: 32-bit float pixels (mode F) have no defined white; scale them to 0..255 and save 8 bit"
        )
    if image.mode.startswith("I"):
        return _keep_high_byte(image, name).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(
            f"{name}: mode {image.mode} cannot be converted to RGB ({error}); save it as RGB"
        ) from error


def _keep_high_byte(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit grey (modes `I;16*`, or `I` with 16-bit values) to 8 bit."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low < 0 or high > 0xFFFF:
        raise ImageError(
            f"{name}: integer pixels (mode {image.mode}) from {low} to {high}, expected 16-bit values "
            "(0 to 65535); scale them and save 8 or 16 bit"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))
