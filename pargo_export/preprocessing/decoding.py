"""From an encoded picture to a Pillow image, within limits."""

from __future__ import annotations

from typing import IO

from PIL import Image, UnidentifiedImageError

from pargo_export.errors import ImageError

__all__ = ["FORMATS", "MAX_PIXELS", "check_size", "load_pixels", "open_image"]

# What the pixels of one picture may number: Pillow's own default, whatever the process sets there.
MAX_PIXELS = 89_478_485

# Raster formats that Pillow decodes itself. Others start programs (EPS), need fonts or have no pixels.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "JPEG2000")

_NUM_HEAD_BYTES = 12


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """Identify an encoded picture and read its header; the pixels are decoded later, while `file` is open.

    Raises:
        ImageError: The file is empty, of no known format, damaged, or declares too many pixels.
    """
    head = file.read(_NUM_HEAD_BYTES)
    if not head:
        raise ImageError(f"{name}: empty (0 bytes), expected a picture; copy the file again")
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not a picture this package reads, begins with {head!r}; expected {', '.join(FORMATS)}; "
            "convert it to one of these, or copy the file again if it is damaged"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # decoders raise errors of many kinds for damaged headers
        raise _damaged(name, error) from error
    check_size(image, name)
    return image


def check_size(image: Image.Image, name: str) -> None:
    """Refuse an image without pixels, or with so many that decoding it would exhaust the memory.

    Raises:
        ImageError: A side is 0, or there are more than `MAX_PIXELS` pixels.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width}x{height} = {width * height} pixels")
    if width * height == 0:
        raise ImageError(f"{name}: {width}x{height} pixels (width x height), expected at least 1x1")


def load_pixels(image: Image.Image, name: str) -> None:
    """Decode the pixels of an image in place; an animation stays at its current frame.

    Raises:
        ImageError: The data are truncated or damaged.
    """
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # decoders raise errors of many kinds for damaged data
        raise _damaged(name, error) from error


def _too_large(name: str, found: str) -> ImageError:
    return ImageError(f"{name}: {found}; expected at most {MAX_PIXELS} pixels; make the picture smaller")


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(
        f"{name}: damaged or truncated ({type(error).__name__}: {error}); copy it again, or open it in an "
        "image editor and save it anew"
    )
