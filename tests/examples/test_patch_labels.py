"""What the tower is trained on is what was drawn."""

from __future__ import annotations

import numpy as np
from backgrounds import IMAGE_SIZE
from drawing import draw
from patch_labels import LABEL_SIZES, LETTERS, patch_labels
from scenes import COLORS, SHAPES, Item, Scene, Text


def test_labels_follow_the_drawing():
    """A patch is labelled with the thing that covers it: its shape, colour, texture and size, or its letter."""
    scene = Scene(
        (Item("square", "green", "striped", "large", 24, 20, 20),), Text("7A", "word", "red", 60, 72)
    )
    drawing = draw(np.random.default_rng(0), scene, np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
    labels = patch_labels(scene, drawing, 8).reshape(12, 12, len(LABEL_SIZES))
    assert labels[2, 2].tolist() == [1 + SHAPES.index("square"), 1 + COLORS.index("green"), 2, 1, 1, 0]
    assert labels[1:4, 1:4, 0].all()
    assert labels[:, :, 4].sum() == 1
    assert not labels[5:, :, 0].any()
    # The letters' cells lie in the columns 49 to 59 and 60 to 70 of the rows 64 to 79.
    assert labels[8, 6:9, 5].tolist() == [1 + LETTERS.index(letter) for letter in "77A"]
    assert labels[8, 5, 5] == labels[7, 7, 5] == 0
    assert drawing.pixels[20, 20, 1] > drawing.pixels[20, 20, 0]
