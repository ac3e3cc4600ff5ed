"""Write images with detailed descriptions, in a JSONL as ParGoCap's: for pretraining and for calibration."""

from __future__ import annotations

import json
from pathlib import Path

from backgrounds import Split
from captions import caption
from examples_stream import make_example
from PIL import Image

from pargo_export.bundle import atomic_write

__all__ = ["write_captions"]


def write_captions(directory: Path, *, seed: int, split: Split, count: int) -> Path:
    """Write `count` images of a split and `captions.jsonl`, which `pargo-export calibrate --data` reads.

    Returns:
        The manifest.
    """
    folder = directory / "images"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        example = make_example(seed, split, index)
        name = f"images/{index:06d}.png"
        Image.fromarray(example.drawing.pixels).save(directory / name)
        record = {
            "image": name,
            "caption": caption(example.scene),
            "photograph": example.photograph,
            "task": example.task,
        }
        lines.append(json.dumps(record) + "\n")
    manifest = directory / "captions.jsonl"
    atomic_write(manifest, lambda stream: stream.write("".join(lines).encode()))
    return manifest
