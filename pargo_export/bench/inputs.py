"""The pictures of a benchmark: encoded bytes in memory, so that no disk is timed."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bench.records import InputFacts
from pargo_export.bundle import sha256_bytes
from pargo_export.errors import ImageError
from pargo_export.preprocessing import load_image
from pargo_export.preprocessing.finding import find_images

__all__ = ["Pictures", "load_pictures"]

_NUM_VARIATIONS = 8
_NUM_PNG = 2  # of them; the rest is JPEG
_QUALITY = 90


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures.

    Attributes:
        contents: JPEG, PNG, ..., one picture each.
        facts: What the result says about them.
    """

    contents: tuple[bytes, ...]
    facts: InputFacts


def load_pictures(paths: Sequence[Path] = ()) -> Pictures:
    """Read pictures, and see that each can be decoded.

    Args:
        paths: Files, or folders of them; empty: the photograph of the package, whole, and shifted and cropped in
            different ways, as JPEG and PNG.

    Raises:
        ImageError: One cannot be read.
        InputError: A folder holds none.
    """
    if not paths:
        return _describe(*_vary_photograph())
    found = find_images(paths)
    contents = []
    for path in found:
        try:
            contents.append(path.read_bytes())
        except OSError as error:  # noqa: PERF203 - nothing beside reading a file
            raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    return _describe([path.name for path in found], contents)


def _vary_photograph() -> tuple[list[str], list[bytes]]:
    """Return names and contents: different pixels, so that nothing can be reused between runs, of different sizes."""
    names, contents = [PHOTOGRAPH.name], [PHOTOGRAPH.read_bytes()]
    pixels = np.asarray(load_image(PHOTOGRAPH, name=PHOTOGRAPH.name))
    height, width = pixels.shape[:2]
    for index in range(1, _NUM_VARIATIONS):
        top, left = height * index // 40, width * index // 50
        part = np.roll(pixels[top:, left:], (17 * index, 29 * index), axis=(0, 1))
        is_png = index > _NUM_VARIATIONS - 1 - _NUM_PNG
        file = io.BytesIO()
        Image.fromarray(part).save(file, "PNG" if is_png else "JPEG", quality=_QUALITY)
        names.append(f"{PHOTOGRAPH.stem}-{index}.{'png' if is_png else 'jpg'}")
        contents.append(file.getvalue())
    return names, contents


def _describe(names: Sequence[str], contents: Sequence[bytes]) -> Pictures:
    sizes = []
    for name, content in zip(names, contents, strict=True):
        image = load_image(content, name=name)
        sizes.append(image.width * image.height / 1e6)
    facts = InputFacts(
        num_pictures=len(contents),
        sha256=sha256_bytes("".join(map(sha256_bytes, contents)).encode()),
        names=tuple(names),
        median_megapixels=statistics.median(sizes),
    )
    return Pictures(tuple(contents), facts)
