"""Draw a scene on a background, and say which pixels belong to what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from backgrounds import IMAGE_SIZE
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scenes import Item, Scene, Text, text_size

__all__ = ["Drawing", "draw"]

_RGB = {
    "red": (210, 30, 30),
    "green": (40, 160, 50),
    "blue": (40, 70, 215),
    "yellow": (240, 215, 40),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "purple": (150, 50, 180),
}
_COLOR_JITTER = 18
_SCALE = 4  # shapes are drawn so many times larger and reduced: smooth edges
_FONT_SIZE = 17
_LETTER_WIDTH = text_size("A")[0]
# Corners of the polygons, in a square from 0 to 1.
_POLYGONS = {
    "square": ((0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)),
    "triangle": ((0.5, 0.02), (1.0, 0.96), (0.0, 0.96)),
    "diamond": ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)),
    "cross": tuple(
        (x, y)
        for x, y in (
            (0.34, 0),
            (0.66, 0),
            (0.66, 0.34),
            (1, 0.34),
            (1, 0.66),
            (0.66, 0.66),
            (0.66, 1),
            (0.34, 1),
            (0.34, 0.66),
            (0, 0.66),
            (0, 0.34),
            (0.34, 0.34),
        )
    ),
    "star": tuple(
        (
            0.5 + radius * np.sin(np.pi * corner / 5),
            0.53 - radius * np.cos(np.pi * corner / 5),
        )
        for corner, radius in enumerate((0.53, 0.22) * 5)
    ),
}


@dataclass(frozen=True)
class Drawing:
    """A drawn scene.

    Attributes:
        pixels: uint8 `[IMAGE_SIZE, IMAGE_SIZE, 3]`.
        item_map: int8 `[IMAGE_SIZE, IMAGE_SIZE]`: 1 + index of the item that covers the pixel, 0: none.
        letter_map: int8 of the same shape: 1 + index of the letter whose cell holds the pixel, 0: none.
    """

    pixels: NDArray[np.uint8]
    item_map: NDArray[np.int8]
    letter_map: NDArray[np.int8]


def draw(rng: np.random.Generator, scene: Scene, background: NDArray[np.uint8]) -> Drawing:
    """Draw `scene`; colours vary a little from image to image.

    Args:
        rng: Chooses the shades and where stripes and dots begin.
        scene: What to draw.
        background: uint8 `[IMAGE_SIZE, IMAGE_SIZE, 3]`.
    """
    canvas = Image.fromarray(background.copy())
    item_map = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.int8)
    letter_map = np.zeros_like(item_map)
    for index, item in enumerate(scene.items):
        _draw_item(rng, canvas, item, item_map, index + 1)
    if scene.text is not None:
        _draw_text(rng, canvas, scene.text, letter_map)
    return Drawing(np.asarray(canvas), item_map, letter_map)


def _shade(rng: np.random.Generator, color: str) -> tuple[int, int, int]:
    shifted = np.array(_RGB[color]) + rng.integers(-_COLOR_JITTER, _COLOR_JITTER, size=3, endpoint=True)
    red, green, blue = (int(value) for value in np.clip(shifted, 0, 255))
    return red, green, blue


def _contrast(color: str) -> tuple[int, int, int]:
    """Return what is drawn around and inside a colour: dark, or light for the dark ones."""
    return (235, 235, 235) if color in ("black", "blue", "purple") else (20, 20, 20)


@cache
def _mask(shape: str, pixels: int) -> Image.Image:
    side = pixels * _SCALE
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    if shape in ("circle", "ring"):
        pen.ellipse((0, 0, side - 1, side - 1), fill=255)
        if shape == "ring":
            inset = int(side * 0.27)
            pen.ellipse((inset, inset, side - 1 - inset, side - 1 - inset), fill=0)
    else:
        pen.polygon([(x * (side - 1), y * (side - 1)) for x, y in _POLYGONS[shape]], fill=255)
    return mask.resize((pixels, pixels), Image.Resampling.BOX)


def _draw_item(
    rng: np.random.Generator, canvas: Image.Image, item: Item, item_map: NDArray[np.int8], index: int
) -> None:
    left, top = item.x - item.pixels // 2, item.y - item.pixels // 2
    # The outline: the same shape, one pixel larger on every side. A tiny shape would be more outline than colour.
    if item.size != "tiny":
        canvas.paste(_contrast(item.color), (left - 1, top - 1), _mask(item.shape, item.pixels + 2))
    mask = _mask(item.shape, item.pixels)
    fill = Image.new("RGB", mask.size, _shade(rng, item.color))
    _draw_texture(rng, fill, item)
    canvas.paste(fill, (left, top), mask)
    part = item_map[top : top + item.pixels, left : left + item.pixels]
    part[np.asarray(mask) > 127] = index


def _draw_texture(rng: np.random.Generator, fill: Image.Image, item: Item) -> None:
    if item.texture == "plain":
        return
    pen, side, ink = ImageDraw.Draw(fill), item.pixels, _contrast(item.color)
    start = int(rng.integers(0, 4))
    if item.texture == "striped":
        for y in range(start, side, 4):
            pen.line((0, y, side, y), fill=ink, width=1)
        return
    for row, y in enumerate(range(start, side, 4)):
        for x in range(2 * (row % 2), side, 4):
            pen.rectangle((x, y, x + 1, y + 1), fill=ink)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Return the font that Pillow carries, so that no font of the machine matters."""
    font = ImageFont.load_default(_FONT_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType; install the wheel from PyPI: pip install pillow")
    return font


def _draw_text(
    rng: np.random.Generator, canvas: Image.Image, text: Text, letter_map: NDArray[np.int8]
) -> None:
    width, height = text_size(text.content)
    left, top = text.x - width // 2, text.y - height // 2
    pen, shade = ImageDraw.Draw(canvas), _shade(rng, text.color)
    for index, letter in enumerate(text.content):
        x = left + index * _LETTER_WIDTH
        pen.text(
            (x + _LETTER_WIDTH / 2, text.y),
            letter,
            font=_font(),
            fill=shade,
            anchor="mm",
            stroke_width=1,
            stroke_fill=_contrast(text.color),
        )
        letter_map[top : top + height, x : x + _LETTER_WIDTH] = index + 1
