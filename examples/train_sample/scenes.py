"""Scenes: what is in an image, as data. Questions and captions are made from this, never from pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from backgrounds import IMAGE_SIZE, SPLITS, Split

__all__ = [
    "COLORS",
    "SHAPES",
    "TASKS",
    "TEXTURES",
    "WORDS",
    "Item",
    "Scene",
    "Size",
    "Text",
    "generator",
    "make_scene",
    "place",
    "row",
    "text_size",
]

Size: TypeAlias = Literal["large", "small", "tiny"]

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring")
COLORS = ("red", "green", "blue", "yellow", "white", "black", "purple")
TEXTURES = ("plain", "striped", "dotted")
# fmt: off
WORDS = (
    "CAT", "DOG", "SUN", "BUS", "CUP", "HAT", "KEY", "MAP", "BOX", "BED", "JAM", "LEG", "NET", "OIL", "PEN", "VAN",
    "TREE", "FISH", "BIRD", "BOOK", "DOOR", "LAMP", "MILK", "MOON", "ROAD", "SHIP", "WIND", "GOLD", "JUMP", "QUIZ",
)
# fmt: on
TASKS = ("existence", "count", "position", "color", "OCR", "fine_detail", "numerical_calculation")

_PIXELS: dict[Size, tuple[int, int]] = {"large": (20, 30), "small": (14, 18), "tiny": (8, 10)}
_THIRDS = 32  # pixels
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "center", "right")
_GAP = 3  # pixels between two things, and to the border
_LETTER_WIDTH, _LETTER_HEIGHT = 11, 16  # cells of a text; the drawing keeps to them
_ATTEMPTS = 60


@dataclass(frozen=True)
class Item:
    """One drawn shape.

    Attributes:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        texture: One of `TEXTURES`; tiny items are plain.
        size: Class of size.
        pixels: Side of its bounding square.
        x: Centre, in pixels from the left.
        y: Centre, in pixels from the top.
    """

    shape: str
    color: str
    texture: str
    size: Size
    pixels: int
    x: int
    y: int


@dataclass(frozen=True)
class Text:
    """Rendered letters: a word, a number or a sum.

    Attributes:
        content: What is written, for example `TREE`, `47` or `3+4`.
        kind: What it is.
        color: One of `COLORS`.
        x: Centre, in pixels from the left.
        y: Centre, in pixels from the top.
    """

    content: str
    kind: Literal["word", "number", "sum"]
    color: str
    x: int
    y: int


@dataclass(frozen=True)
class Scene:
    """What is in one image.

    Attributes:
        items: Shapes, none overlapping another or the text.
        text: Rendered letters, if any.
    """

    items: tuple[Item, ...]
    text: Text | None = None

    @property
    def things(self) -> list[Item | Text]:
        """Shapes and text."""
        return [*self.items, *([] if self.text is None else [self.text])]


Stream: TypeAlias = Literal["layout", "questions", "look"]
_STREAMS: tuple[Stream, ...] = ("layout", "questions", "look")


def generator(seed: int, split: Split, index: int, stream: Stream) -> np.random.Generator:
    """Return random numbers of one image: a stream of its own for every seed, split, index and purpose.

    What is asked about an image can so be changed without changing the image.
    """
    return np.random.default_rng([seed, SPLITS.index(split), index, _STREAMS.index(stream)])


def row(y: int) -> int:
    """Return the third of the image in which a height lies: 0, 1 or 2 from the top."""
    return min(y // _THIRDS, 2)


def place(x: int, y: int) -> str:
    """Return the ninth of the image in which a point lies, for example `top left`."""
    return f"{_ROWS[row(y)]} {_COLUMNS[min(x // _THIRDS, 2)]}"


def text_size(content: str) -> tuple[int, int]:
    """Return width and height of a text in pixels."""
    return _LETTER_WIDTH * len(content), _LETTER_HEIGHT


def make_scene(rng: np.random.Generator, task: str) -> Scene:
    """Return a random scene about which `task` can be asked.

    Raises:
        KeyError: There is no such task.
    """
    return _MAKERS[task](rng)


class _Layout:
    """Rectangles taken so far; finds room for another one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.taken: list[tuple[int, int, int, int]] = []

    def place(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the centre of a free rectangle, or `None` if none was found."""
        half_x, half_y = width // 2 + _GAP, height // 2 + _GAP
        for _ in range(_ATTEMPTS):
            x = int(self.rng.integers(half_x, IMAGE_SIZE - half_x + 1))
            y = int(self.rng.integers(half_y, IMAGE_SIZE - half_y + 1))
            box = (x - half_x, y - half_y, x + half_x, y + half_y)
            if all(_apart(box, other) for other in self.taken):
                self.taken.append(box)
                return x, y
        return None


def _apart(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _texture(rng: np.random.Generator, plain: float) -> str:
    return "plain" if rng.random() < plain else _pick(rng, TEXTURES)


def _items(
    rng: np.random.Generator, layout: _Layout, shapes: Sequence[str], size: Size, *, plain: float = 0.5
) -> list[Item]:
    """Place one item for each of `shapes`; those that find no room are left out."""
    items = []
    for shape in shapes:
        pixels = int(rng.integers(*_PIXELS[size], endpoint=True))
        color, texture = _pick(rng, COLORS), _texture(rng, plain)
        centre = layout.place(pixels, pixels)
        if centre is not None:
            items.append(Item(shape, color, texture if size != "tiny" else "plain", size, pixels, *centre))
    return items


def _some_shapes(rng: np.random.Generator, low: int, high: int, without: str = "") -> list[str]:
    """Return `low` to `high` different shapes."""
    others = [shape for shape in SHAPES if shape != without]
    return [others[i] for i in rng.permutation(len(others))[: rng.integers(low, high, endpoint=True)]]


def _text(rng: np.random.Generator, layout: _Layout, kind: Literal["word", "number", "sum"]) -> Text | None:
    if kind == "word":
        content = _pick(rng, WORDS)
    elif kind == "number":
        content = str(rng.integers(10, 100))
    else:
        content = f"{rng.integers(1, 10)}+{rng.integers(1, 10)}"
    centre = layout.place(*text_size(content))
    return None if centre is None else Text(content, kind, _pick(rng, COLORS), *centre)


def _word_or_number(rng: np.random.Generator) -> Literal["word", "number"]:
    return "word" if rng.random() < 0.6 else "number"


def _objects(rng: np.random.Generator) -> Scene:
    layout = _Layout(rng)
    text = _text(rng, layout, _word_or_number(rng)) if rng.random() < 0.2 else None
    items = _items(rng, layout, _some_shapes(rng, 2, 4), "large")
    items += _items(rng, layout, _some_shapes(rng, 0, 1), "tiny")
    return Scene(tuple(items), text)


def _counted(rng: np.random.Generator) -> Scene:
    layout = _Layout(rng)
    shape = _pick(rng, SHAPES)
    items = _items(rng, layout, [shape] * int(rng.integers(1, 5)), "small" if rng.random() < 0.3 else "large")
    return Scene((*items, *_items(rng, layout, _some_shapes(rng, 0, 2, without=shape), "large")))


def _written(rng: np.random.Generator) -> Scene:
    layout = _Layout(rng)
    text = _text(rng, layout, _word_or_number(rng))
    return Scene(tuple(_items(rng, layout, _some_shapes(rng, 0, 2), "large")), text)


def _detailed(rng: np.random.Generator) -> Scene:
    layout = _Layout(rng)
    items = _items(rng, layout, _some_shapes(rng, 1, 2), "small", plain=0.1)
    items += _items(rng, layout, _some_shapes(rng, 1, 2), "tiny")
    return Scene((*items, *_items(rng, layout, _some_shapes(rng, 0, 2), "large")))


def _calculated(rng: np.random.Generator) -> Scene:
    layout = _Layout(rng)
    text = _text(rng, layout, "sum")
    return Scene(tuple(_items(rng, layout, _some_shapes(rng, 0, 2), "large")), text)


_MAKERS = {
    "existence": _objects,
    "count": _counted,
    "position": _objects,
    "color": _objects,
    "OCR": _written,
    "fine_detail": _detailed,
    "numerical_calculation": _calculated,
}
