"""What every run of a study shares: images, tokenizer, the frozen tower and its features. Made once, then opened."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import Corpus, make_corpus
from mme_data import write_mme
from stages import Data
from tower_training import Tower, features, train_tower
from training import Log, Schedule
from transformers import PreTrainedTokenizerFast
from vocabulary import make_tokenizer

from pargo_export.bundle import sha256_file
from pargo_export.config import VisionConfig

__all__ = ["Preparation", "Prepared", "prepare"]


@dataclass(frozen=True)
class Preparation:
    """How much is made.

    Attributes:
        seed: Of the data and of the tower.
        train_images: Images to train on.
        held_out_images: Images of the calibration photographs, for the accuracies in the log.
        images_per_task: Images of each task of the test set.
        tower: Schedule of the tower's pretraining.
        tower_batch: Images of one of its steps.
        low_precision: Compute matrix products in bfloat16 while training.
    """

    seed: int
    train_images: int
    held_out_images: int
    images_per_task: int
    tower: Schedule
    tower_batch: int = 24
    low_precision: bool = True


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes:
        tower: Frozen.
        tokenizer: Of the language model.
        train: Training images as features.
        held_out: Others.
        mme: Folder of the test set.
        seconds: What each part took, 0 if it was there.
    """

    tower: Tower
    tokenizer: Any
    train: Data
    held_out: Data
    mme: Path
    seconds: dict[str, float]


def prepare(
    directory: Path, preparation: Preparation, vision: VisionConfig, log: Log, *, processes: int, resume: bool
) -> Prepared:
    """Make what is missing in `directory`, and open the rest."""
    clock = _Clock()
    seed = preparation.seed
    train = make_corpus(
        directory / "train", seed=seed, split="train", count=preparation.train_images, processes=processes
    )
    held_out = make_corpus(
        directory / "held-out", seed=seed, split="calibration", count=preparation.held_out_images
    )
    if not (directory / "mme" / "Data_json").is_dir():
        write_mme(directory / "mme", seed=seed, images_per_task=preparation.images_per_task)
    clock.lap("data")
    tokenizer = _tokenizer(directory / "tokenizer", train)
    clock.lap("tokenizer")
    tower = train_tower(
        directory,
        train,
        held_out,
        log,
        seed=seed,
        schedule=preparation.tower,
        batch=preparation.tower_batch,
        config=vision,
        low_precision=preparation.low_precision,
        resume=resume,
    )
    clock.lap("tower")
    identity = sha256_file(directory / "tower.pt")
    parts = [
        Data(features(tower, corpus, directory / f"{name}-features.npy", identity), corpus)
        for name, corpus in (("train", train), ("held-out", held_out))
    ]
    clock.lap("features")
    return Prepared(tower, tokenizer, parts[0], parts[1], directory / "mme", clock.seconds)


def _tokenizer(directory: Path, corpus: Corpus) -> Any:
    if not (directory / "tokenizer.json").is_file():
        make_tokenizer(corpus.texts()).save_pretrained(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now
