"""Decode a large JPEG at a fraction of its size: faster, and not quite the same pixels."""

from __future__ import annotations

from PIL import Image

from pargo_export.preprocessing.color import read_turn
from pargo_export.preprocessing.spec import OFFICIAL_CANVAS_SIZE, PreprocessSpec

__all__ = ["DRAFT_MARGIN", "draft"]

DRAFT_MARGIN = 2.0  # what is decoded is at least so many times as large as what it is resized to

_SCALES = (8, 4, 2)  # of the discrete cosine transform
_SIDEWAYS = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


def draft(image: Image.Image, spec: PreprocessSpec) -> int:
    """Let an opened JPEG be decoded at 1/2, 1/4 or 1/8 of its size, if enough is left for the input of the model.

    Only by what divides both sides: then the picture lands on the same pixels of the input as without.

    Args:
        image: As it was opened, not decoded yet; anything but a JPEG is left alone.
        spec: What it is going to be fitted to. Mode `square-resize` is left alone.

    Returns:
        What both sides were divided by; 1: nothing was changed.
    """
    if image.format != "JPEG" or spec.mode == "square-resize":
        return 1
    width, height = image.size
    needed_width, needed_height = _needed(image, spec)
    for scale in _SCALES:
        is_exact = width % scale == 0 and height % scale == 0
        if is_exact and width >= scale * needed_width and height >= scale * needed_height:
            image.draft(None, (width // scale, height // scale))
            return width // image.width
    return 1


def _needed(image: Image.Image, spec: PreprocessSpec) -> tuple[float, float]:
    """Return the smallest width and height to decode, of the picture as it is stored."""
    is_sideways = read_turn(image) in _SIDEWAYS
    width, height = image.size[::-1] if is_sideways else image.size
    canvas = (OFFICIAL_CANVAS_SIZE,) * 2 if spec.mode == "official-eval" else (spec.width, spec.height)
    if spec.mode in ("resize", "resize-bilinear"):
        fitted = (float(canvas[0]), float(canvas[1]))
    else:
        reach = max if spec.mode == "center-crop" else min
        ratio = reach(canvas[0] / width, canvas[1] / height)
        fitted = (width * ratio, height * ratio)
    needed = (DRAFT_MARGIN * fitted[0], DRAFT_MARGIN * fitted[1])
    return needed[::-1] if is_sideways else needed
