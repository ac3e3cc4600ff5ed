"""Detailed descriptions of a scene, as those of ParGoCap: every thing, its attributes and its place."""

from __future__ import annotations

from collections import Counter

from questions import article, plural
from scenes import Item, Scene, Text, place, row

__all__ = ["CAPTION_QUESTION", "INVENTORY_QUESTION", "caption", "inventory"]

CAPTION_QUESTION = "Describe the image in detail."
INVENTORY_QUESTION = "List everything in the image."


def caption(scene: Scene) -> str:
    """Describe a scene in reading order, then count what is there.

    The place of a thing comes first, so that what follows is asked of one part of the image.
    """
    parts = [
        f"at the {place(thing.x, thing.y)} {_described(thing)}"
        for thing in sorted(scene.things, key=lambda thing: (row(thing.y), thing.x))
    ]
    sentences = [f"The image shows {', '.join(parts)}."] if parts else ["The image shows nothing."]
    counts = Counter(item.shape for item in scene.items)
    if counts:
        counted = [f"{number} {shape if number == 1 else plural(shape)}" for shape, number in counts.items()]
        sentences.append(f"It has {', '.join(sorted(counted))}.")
    return " ".join(sentences)


def inventory(scene: Scene) -> str:
    """Describe a scene thing by thing in the order of their names, each by what it is, where, and how it looks.

    The name comes first, so that what follows is asked of the thing of that name, wherever it is.
    """
    parts = []
    for thing in sorted(scene.things, key=lambda thing: (_name(thing), row(thing.y), thing.x)):
        text = f"the {_name(thing)} is at the {place(thing.x, thing.y)}"
        if isinstance(thing, Item):
            text += f", {thing.color}, {thing.size}" + (f", {thing.texture}" if thing.size != "tiny" else "")
        parts.append(text)
    return f"There are {len(parts)} things: {'; '.join(parts)}."


def _name(thing: Item | Text) -> str:
    return f'{thing.kind} "{thing.content}"{_solved(thing)}' if isinstance(thing, Text) else thing.shape


def _solved(text: Text) -> str:
    return f" with the answer {sum(map(int, text.content.split('+')))}" if text.kind == "sum" else ""


def _described(thing: Item | Text) -> str:
    if isinstance(thing, Text):
        return f"the {_name(thing)}"
    texture = "" if thing.size == "tiny" else f"{thing.texture} "
    return article(f"{thing.size} {texture}{thing.color} {thing.shape}")
