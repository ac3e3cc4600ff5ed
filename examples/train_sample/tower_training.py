"""Pretraining of the tower, and the features that the frozen tower gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from backgrounds import IMAGE_SIZE
from corpus import PATCH_SIZE, Corpus
from fused_attention import fuse_attention
from numpy.typing import NDArray
from patch_labels import LABEL_SIZES
from torch import Tensor, nn
from torch.nn import functional
from training import Log, Schedule, Stage, run_stage

from pargo_export.bundle import atomic_write
from pargo_export.config import VisionConfig
from pargo_export.model.tower import VisionTower
from pargo_export.preprocessing.spec import CLIP_MEAN, CLIP_STD

__all__ = ["VISION", "Tower", "features", "normalised", "train_tower"]

VISION = VisionConfig(
    image_size=IMAGE_SIZE,
    patch_size=PATCH_SIZE,
    width=128,
    num_layers=4,
    head_width=32,
    hidden_width=341,  # 128 * 8 / 3 rounded down, as EVA-02 has it: not a multiple of 8
    rope_grid=IMAGE_SIZE // PATCH_SIZE,
    head_features=16,
)
# Of patches without a thing, which are most; letters are rarest.
_NOTHING_WEIGHT = {"letter": 0.05}
_NOTHING_ELSE = 0.2
_FEATURE_BATCH = 64
_LABELS = (*LABEL_SIZES, "row", "column")


class Tower(nn.Module):
    """The tower and `ln_vision`, named as in `VisualFrontEnd`."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.tower = VisionTower(config)
        self.output_norm = nn.LayerNorm(config.width, eps=config.output_norm_eps)
        nn.init.normal_(self.tower.embedding.class_token, std=0.02)
        nn.init.normal_(self.tower.embedding.position, std=0.02)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """`[B, 3, S, S]`, normalised -> image features `[B, N, C]`."""
        tokens: Tensor = self.output_norm(self.tower(pixel_values))
        return tokens[:, 1:]


class _Labelled(nn.Module):
    """The tower with the linear heads that are thrown away after pretraining."""

    def __init__(self, tower: Tower, config: VisionConfig) -> None:
        super().__init__()
        self.tower = tower
        side = config.grid_size
        self.sizes = [*LABEL_SIZES.values(), side, side]
        self.heads = nn.Linear(config.width, sum(self.sizes))
        index = torch.arange(config.num_patches)
        self.register_buffer("places", torch.stack([index // side, index % side], dim=1), persistent=False)

    def logits(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """`[B, 3, S, S]` -> for each label `[B, N, classes]`; the last two are row and column of the patch."""
        parts: tuple[Tensor, ...] = self.heads(self.tower(pixel_values)).float().split(self.sizes, dim=-1)
        return parts

    def loss(self, pixel_values: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of all labels; labels int64 `[B, N, 6]`."""
        places = self.places.expand(len(labels), -1, -1)
        targets = torch.cat([labels, places], dim=-1).flatten(0, 1)  # [B*N, 8]
        total = torch.zeros(())
        for index, (name, logits) in enumerate(zip(_LABELS, self.logits(pixel_values), strict=True)):
            weight = torch.ones(self.sizes[index])
            if name in LABEL_SIZES:
                weight[0] = _NOTHING_WEIGHT.get(name, _NOTHING_ELSE)
            total = total + functional.cross_entropy(logits.flatten(0, 1), targets[:, index], weight)
        return total / len(self.sizes)


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 `[B, H, W, 3]` -> float32 `[B, 3, H, W]`, as the runtime prepares a picture of the input size."""
    values = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (CLIP_MEAN, CLIP_STD))
    return (values - mean) / std


def train_tower(
    directory: Path,
    corpus: Corpus,
    held_out: Corpus,
    log: Log,
    *,
    seed: int,
    schedule: Schedule,
    batch: int = 32,
    config: VisionConfig = VISION,
    low_precision: bool = True,
    resume: bool = False,
    stop_after: int | None = None,
) -> Tower:
    """Train a tower on patch labels and return it, frozen.

    Args:
        directory: Where its checkpoint is kept.
        corpus: Training images.
        held_out: Images for the accuracy in the log.
        log: Gets the losses.
        seed: Chooses initial weights and the order of images.
        schedule: Steps and learning rate.
        batch: Images of one step.
        config: Sizes.
        low_precision: Compute matrix products in bfloat16.
        resume: Go on from the last checkpoint.
        stop_after: Stop after this many steps.
    """
    torch.manual_seed(seed)
    tower = Tower(config)
    model = _Labelled(tower, config)
    fuse_attention(model, config.num_patches)

    def loss(step: int) -> Tensor:
        chosen = np.random.default_rng([seed, step]).integers(len(corpus), size=batch)
        chosen.sort()
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            return model.loss(
                normalised(corpus.pixels[chosen]), torch.from_numpy(corpus.labels[chosen]).long()
            )

    def check() -> dict[str, float]:
        return _accuracies(model, held_out)

    run_stage(
        Stage("tower", model, loss, schedule, check), directory, log, resume=resume, stop_after=stop_after
    )
    return tower.eval().requires_grad_(requires_grad=False)


@torch.no_grad()
def _accuracies(model: _Labelled, held_out: Corpus) -> dict[str, float]:
    """Return for each label the share of the patches that show something and are labelled rightly."""
    count = min(len(held_out), _FEATURE_BATCH)
    labels = torch.from_numpy(np.array(held_out.labels[:count])).long()
    found = [logits.argmax(-1) for logits in model.logits(normalised(held_out.pixels[:count]))]
    result = {}
    for index, name in enumerate(LABEL_SIZES):
        shown = labels[..., index] > 0
        result[name] = round(float((found[index] == labels[..., index])[shown].float().mean()), 3)
    return result


@torch.no_grad()
def features(tower: Tower, corpus: Corpus, path: Path, identity: str) -> NDArray[np.float16]:
    """Return the tower's features of all images, float16 `[M, N, C]`, computed once and memory-mapped.

    Args:
        tower: The frozen tower.
        corpus: The images.
        path: Where they are kept; `.npy`.
        identity: Names tower and corpus; features that were made of others are made again.
    """
    stamp = path.with_suffix(".json")
    if not (stamp.is_file() and json.loads(stamp.read_text()) == identity):
        path.parent.mkdir(parents=True, exist_ok=True)
        config = tower.tower.embedding.position.shape
        shape = (len(corpus), config[1] - 1, config[2])
        table = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        for start in range(0, len(corpus), _FEATURE_BATCH):
            part = slice(start, start + _FEATURE_BATCH)
            table[part] = tower(normalised(corpus.pixels[part])).numpy().astype(np.float16)
        table.flush()
        atomic_write(stamp, lambda stream: stream.write(json.dumps(identity).encode()))
    found: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return found
