"""Fit an RGB image of any size to the input size of the model, one function a mode.

Sizes in signatures are height before width, as in array shapes; Pillow's own sizes are width first.
"""

from __future__ import annotations

from typing import TypeAlias

from PIL import Image

from pargo_export.errors import ImageError
from pargo_export.preprocessing.decoding import MAX_PIXELS
from pargo_export.preprocessing.spec import OFFICIAL_CANVAS_SIZE, PreprocessSpec

__all__ = [
    "Color",
    "cover_and_crop",
    "expand_and_resize",
    "fit_to_input",
    "pad_and_crop",
    "resize",
    "resize_and_pad",
]

Color: TypeAlias = tuple[int, int, int]


def fit_to_input(image: Image.Image, spec: PreprocessSpec, *, name: str = "image") -> Image.Image:
    """Fit an RGB image to `spec.height` x `spec.width` pixels by `spec.mode`.

    Args:
        image: An RGB image, as `load_image` returns it.
        spec: The preprocessing of the bundle.
        name: What messages call the image.

    Raises:
        ImageError: The picture is so long and thin that every mode but `pad` and `official-eval` would fill the memory.
    """
    height, width, color = spec.height, spec.width, spec.pad_color
    if spec.mode == "pad":
        return resize_and_pad(image, height, width, color)
    if spec.mode in ("resize", "resize-bilinear"):
        smooth = Image.Resampling.BILINEAR if spec.mode == "resize-bilinear" else Image.Resampling.BICUBIC
        return resize(image, height, width, smooth, name=name)
    if spec.mode == "square-resize":
        return expand_and_resize(image, height, width, color, name=name)
    if spec.mode == "center-crop":
        return cover_and_crop(image, height, width, name=name)
    return pad_and_crop(image, height, width, color)


def resize(
    image: Image.Image,
    height: int,
    width: int,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
    *,
    name: str = "image",
) -> Image.Image:
    """Resize with one of Pillow's filters (antialiased when shrinking); the aspect ratio is lost.

    One call, as in the official code. Pillow 13 resizes the height of tall pictures before the width and
    older versions after it, which changes single values by a level or more: the manifest records the
    Pillow version of the export, and the golden tensors are those of Pillow 13.

    Raises:
        ImageError: The picture is so long and thin that what is in between is too large.
    """
    _check_intermediate(image, image.height, width, name)
    return image.resize((width, height), resample)


def resize_and_pad(image: Image.Image, height: int, width: int, color: Color) -> Image.Image:
    """Resize keeping the aspect ratio and centre on a canvas of `color`.

    Sizes and offsets are rounded down as the official `resize_and_pad` does; unlike there, a side is
    at least one pixel, so that very long and thin pictures work.
    """
    ratio = min(width / image.width, height / image.height)
    inner_width, inner_height = max(1, int(image.width * ratio)), max(1, int(image.height * ratio))
    return _centre(resize(image, inner_height, inner_width), height, width, color)


def expand_and_resize(
    image: Image.Image, height: int, width: int, color: Color, *, name: str = "image"
) -> Image.Image:
    """Expand with `color` to the aspect ratio of `height` x `width`, picture centred, then resize.

    Raises:
        ImageError: The picture is so long and thin that the expanded one is too large.
    """
    expanded_width = max(image.width, round(image.height * width / height))
    expanded_height = max(image.height, round(image.width * height / width))
    _check_intermediate(image, expanded_height, expanded_width, name)
    if (expanded_width, expanded_height) != image.size:
        image = _centre(image, expanded_height, expanded_width, color)
    return resize(image, height, width, name=name)


def cover_and_crop(image: Image.Image, height: int, width: int, *, name: str = "image") -> Image.Image:
    """Resize keeping the aspect ratio until both sides reach the input, then cut out the middle.

    Sizes and offsets are rounded down as the image processors of `transformers` do it for `shortest_edge` and
    `do_center_crop`.

    Raises:
        ImageError: The picture is so long and thin that the resized one is too large.
    """
    if height * image.width >= width * image.height:  # the height is what is reached last
        covered = (height, max(width, int(height * image.width / image.height)))
    else:
        covered = (max(height, int(width * image.height / image.width)), width)
    _check_intermediate(image, *covered, name)
    resized = resize(image, *covered, name=name)
    top, left = (covered[0] - height) // 2, (covered[1] - width) // 2
    return resized.crop((left, top, left + width, top + height))


def pad_and_crop(image: Image.Image, height: int, width: int, color: Color) -> Image.Image:
    """Pad to the canvas of the official evaluation and keep the top-left `height` x `width`.

    The official evaluation pads to 448 x 448 while its model reads a 336 x 336 input, so that the right
    and the bottom of the picture are never seen. Probably a mistake, reproduced to compare scores.
    """
    canvas = resize_and_pad(image, OFFICIAL_CANVAS_SIZE, OFFICIAL_CANVAS_SIZE, color)
    return canvas.crop((0, 0, width, height))


def _check_intermediate(image: Image.Image, height: int, width: int, name: str) -> None:
    """Refuse to make more than `MAX_PIXELS` pixels on the way to the model input."""
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{name}: {image.width}x{image.height} pixels; fitted to the model input it grows to {width}x{height} "
            f"on the way, expected at most {MAX_PIXELS} pixels; use mode 'pad', or crop the picture"
        )


def _centre(image: Image.Image, height: int, width: int, color: Color) -> Image.Image:
    canvas = Image.new("RGB", (width, height), color)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas
