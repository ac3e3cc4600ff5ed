"""The training images in memory-mapped files: pixels, patch labels, captions and questions, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from backgrounds import IMAGE_SIZE, Split
from captions import caption, inventory
from examples_stream import make_example
from numpy.typing import NDArray
from patch_labels import LABEL_SIZES, patch_labels
from questions import Pair
from scenes import Item, Scene, Text

from pargo_export.bundle import atomic_write

__all__ = ["PATCH_SIZE", "Corpus", "make_corpus", "open_corpus"]

PATCH_SIZE = 8
_CHUNK = 256  # images that one task of the process pool makes
_NUM_PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2


@dataclass(frozen=True)
class Corpus:
    """Images of one split with all that training needs.

    Attributes:
        pixels: uint8 `[M, IMAGE_SIZE, IMAGE_SIZE, 3]`.
        labels: int8 `[M, N, 6]`, see `patch_labels`.
        captions: Of each image two, see `captions.caption` and `captions.inventory`.
        pairs: Question pairs of each image.
        scenes: What is in each image; for new questions.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int8]
    captions: tuple[tuple[str, str], ...]
    pairs: tuple[tuple[Pair, ...], ...]
    scenes: tuple[Scene, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.captions)

    def task(self, index: int) -> str:
        """Return the task that an image was made for."""
        return self.pairs[index][0].task

    def texts(self) -> Iterator[str]:
        """Yield every caption and question: what the tokenizer is made for."""
        for described, listed in self.captions:
            yield from (described, listed)
        for pairs in self.pairs:
            for pair in pairs:
                yield from (pair.yes, pair.no, *(f" {answer}" for answer in pair.answers))


def make_corpus(directory: Path, *, seed: int, split: Split, count: int, processes: int = 1) -> Corpus:
    """Make a corpus, or open the one that is there if it was made with the same arguments."""
    made_with = {"seed": seed, "split": split, "count": count}
    stamp = directory / "corpus.json"
    if not (stamp.is_file() and json.loads(stamp.read_text()) == made_with):
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory, seed, split, count, processes)
        atomic_write(stamp, lambda stream: stream.write(json.dumps(made_with).encode()))
    return open_corpus(directory)


def open_corpus(directory: Path) -> Corpus:
    """Open a corpus that `make_corpus` wrote."""
    with (directory / "texts.jsonl").open() as stream:
        records = [json.loads(line) for line in stream]
    return Corpus(
        pixels=np.load(directory / "pixels.npy", mmap_mode="r"),
        labels=np.load(directory / "labels.npy", mmap_mode="r"),
        captions=tuple((record["caption"], record["inventory"]) for record in records),
        pairs=tuple(tuple(Pair(*pair) for pair in record["pairs"]) for record in records),
        scenes=tuple(_scene(record["scene"]) for record in records),
    )


def _write(directory: Path, seed: int, split: Split, count: int, processes: int) -> None:
    pixels = np.lib.format.open_memmap(
        directory / "pixels.npy", "w+", np.uint8, (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    )
    labels = np.lib.format.open_memmap(
        directory / "labels.npy", "w+", np.int8, (count, _NUM_PATCHES, len(LABEL_SIZES))
    )
    starts = range(0, count, _CHUNK)
    arguments = (repeat(seed), repeat(split), starts, [min(start + _CHUNK, count) for start in starts])
    with (directory / "texts.jsonl").open("w") as stream, ProcessPoolExecutor(processes) as pool:
        for start, (images, classes, records) in zip(starts, pool.map(_chunk, *arguments), strict=True):
            pixels[start : start + len(images)] = images
            labels[start : start + len(classes)] = classes
            stream.writelines(json.dumps(record) + "\n" for record in records)
    pixels.flush()
    labels.flush()


def _scene(record: dict[str, Any]) -> Scene:
    text = record["text"]
    return Scene(tuple(Item(**item) for item in record["items"]), None if text is None else Text(**text))


def _chunk(
    seed: int, split: Split, start: int, stop: int
) -> tuple[NDArray[np.uint8], NDArray[np.int8], list[dict[str, object]]]:
    images, classes, records = [], [], []
    for index in range(start, stop):
        example = make_example(seed, split, index)
        images.append(example.drawing.pixels)
        classes.append(patch_labels(example.scene, example.drawing, PATCH_SIZE).astype(np.int8))
        pairs = [astuple(pair) for pair in example.pairs]
        records.append(
            {
                "caption": caption(example.scene),
                "inventory": inventory(example.scene),
                "pairs": pairs,
                "scene": asdict(example.scene),
            }
        )
    return np.stack(images), np.stack(classes), records
