"""Answer a question of the synthetic data from the description of its scene: written apart from the generator."""

from __future__ import annotations

import re

from backgrounds import IMAGE_SIZE
from questions import ENDING
from scenes import COLORS, Item, Scene


def holds(scene: Scene, question: str) -> bool:  # noqa: C901, PLR0911 - one case a phrasing
    """Answer a question from the description of the scene, by reading its words: written apart from the generator."""
    text = question.removesuffix(ENDING)
    assert text != question
    shapes = [item.shape for item in scene.items]

    def only(shape: str) -> Item:
        (found,) = (item for item in scene.items if item.shape == shape)
        return found

    if found := re.fullmatch(r"Is there an? (\w+) in this image\?", text):
        return found[1] in shapes
    if found := re.fullmatch(r"Is there only one (\w+) in the image\?", text):
        return shapes.count(found[1]) == 1
    if found := re.fullmatch(r"Are there (\d+) (\w+)s in the image\?", text):
        return shapes.count("cross" if found[2] == "crosse" else found[2]) == int(found[1])
    if found := re.fullmatch(
        r"Is the (\w+) (on the left side of|on the right side of|above|below) the (\w+)\?", text
    ):
        one, other = only(found[1]), only(found[3])
        return {
            "on the left side of": one.x < other.x,
            "on the right side of": one.x > other.x,
            "above": one.y < other.y,
            "below": one.y > other.y,
        }[found[2]]
    if found := re.fullmatch(r"Is the (\w+) in the (left|right|top|bottom) half of the image\?", text):
        item, middle = only(found[1]), IMAGE_SIZE / 2
        return {
            "left": item.x < middle,
            "right": item.x > middle,
            "top": item.y < middle,
            "bottom": item.y > middle,
        }[found[2]]
    if found := re.fullmatch(r'Is the (word|number) in the image "(\w+)"\?', text):
        assert scene.text is not None
        assert scene.text.kind == found[1]
        return scene.text.content == found[2]
    if found := re.fullmatch(r"Is there an? tiny (\w+) (\w+) in this image\?", text):
        return any((i.size, i.color, i.shape) == ("tiny", found[1], found[2]) for i in scene.items)
    if found := re.fullmatch(r"Is the small (\w+) (plain|striped|dotted)\?", text):
        return only(found[1]).texture == found[2]
    if found := re.fullmatch(r"Is the answer to the arithmetic question in the image (\d+)\?", text):
        assert scene.text is not None
        left, right = scene.text.content.split("+")
        return int(left) + int(right) == int(found[1])
    found = re.fullmatch(r"Is the (\w+) (\w+)\?", text)
    assert found, text
    assert found[2] in COLORS
    return only(found[1]).color == found[2]
