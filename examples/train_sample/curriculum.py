"""Images with one thing first, then with more: a model from nothing learns to look where there is one thing to see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scenes import Scene

__all__ = ["Curriculum"]


class Curriculum:
    """Which images a step may see.

    Args:
        scenes: Of all images.
        steps_per_thing: Steps until images with one thing more come in; 0: all from the start.
    """

    def __init__(self, scenes: Sequence[Scene], steps_per_thing: int) -> None:
        self._steps_per_thing = steps_per_thing
        # A stable order, so that the images with at most k things are its beginning.
        num_things = np.array([len(scene.things) for scene in scenes])
        self._order = np.argsort(num_things, kind="stable")
        self._ends = np.cumsum(np.bincount(num_things))

    def choose(self, rng: np.random.Generator, step: int, count: int) -> NDArray[np.int64]:
        """Return the indices of `count` random images for a step, counted from 0."""
        most = len(self._ends) - 1
        allowed = min(1 + step // self._steps_per_thing, most) if self._steps_per_thing else most
        # The first images with anything in them, where there are none of the allowed number yet.
        end = int(self._ends[allowed]) or int(self._ends[self._ends > 0][0])
        return self._order[rng.integers(end, size=count)]
