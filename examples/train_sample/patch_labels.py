"""What every patch of an image shows: dense labels for the tower's pretraining, which the renderer knows.

They stand for what a pretrained CLIP tower knows about local content. They say nothing about questions, and they ask
for nothing beyond a patch and its surroundings, so they favour no projector.
"""

from __future__ import annotations

import numpy as np
from drawing import Drawing
from numpy.typing import NDArray
from scenes import COLORS, SHAPES, TEXTURES, Scene

__all__ = ["LABEL_SIZES", "LETTERS", "patch_labels"]

LETTERS = "".join(sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+")))
SIZES = ("large", "small", "tiny")
# Classes of each label; class 0 is "nothing of that kind here".
LABEL_SIZES = {
    "shape": 1 + len(SHAPES),
    "color": 1 + len(COLORS),
    "texture": 1 + len(TEXTURES),
    "size": 1 + len(SIZES),
    "centre": 2,
    "letter": 1 + len(LETTERS),
}
_MIN_PIXELS = 10  # of a patch that a thing must cover


def patch_labels(scene: Scene, drawing: Drawing, patch_size: int) -> NDArray[np.int64]:
    """Return int64 `[N, 6]`: for each patch, row by row, the classes in the order of `LABEL_SIZES`.

    `centre` is 1 where the centre of an item lies: what tells two things side by side from one.
    """
    items = _dominant(drawing.item_map, patch_size)
    letters = _dominant(drawing.letter_map, patch_size)
    table = np.zeros((1 + len(scene.items), 4), np.int64)
    for index, item in enumerate(scene.items, start=1):
        table[index] = (
            1 + SHAPES.index(item.shape),
            1 + COLORS.index(item.color),
            1 + TEXTURES.index(item.texture),
            1 + SIZES.index(item.size),
        )
    spelled = np.zeros(1 + (0 if scene.text is None else len(scene.text.content)), np.int64)
    if scene.text is not None:
        spelled[1:] = [1 + LETTERS.index(letter) for letter in scene.text.content]
    side = drawing.item_map.shape[0] // patch_size
    centres = np.zeros((side, side), np.int64)
    for item in scene.items:
        centres[item.y // patch_size, item.x // patch_size] = 1
    return np.concatenate(
        [table[items], centres.reshape(-1, 1), spelled[letters][:, None]],
        axis=1,
    )


def _dominant(index_map: NDArray[np.int8], patch_size: int) -> NDArray[np.int64]:
    """Return `[N]`: the index that covers most of each patch, 0 where none covers enough."""
    side = index_map.shape[0] // patch_size
    patches = index_map.reshape(side, patch_size, side, patch_size).swapaxes(1, 2).reshape(side * side, -1)
    counts = np.stack([(patches == index).sum(axis=1) for index in range(int(index_map.max()) + 1)], axis=1)
    counts[:, 0] = _MIN_PIXELS - 1  # so that "none" wins against whatever covers fewer pixels
    return counts.argmax(axis=1).astype(np.int64)
