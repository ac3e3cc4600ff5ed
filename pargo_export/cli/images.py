"""Encode pictures batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.errors import ImageError
from pargo_export.runtime import Runtime

__all__ = ["EncodedImages", "encode_images"]


@dataclass(frozen=True)
class EncodedImages:
    """What a run made.

    Attributes:
        tokens: `[B, Q, C_llm]`, one row a picture.
        names: The pictures, in order.
        skipped: Pictures that could not be read, with the reason.
        seconds: Time for reading and encoding.
    """

    tokens: NDArray[np.float32]
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    seconds: float


def encode_images(
    runtime: Runtime,
    images: list[Path],
    *,
    batch_size: int | None = None,
    skip_broken: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> EncodedImages:
    """Encode pictures, so many at a time as fit into a batch.

    Args:
        runtime: What encodes them.
        images: The pictures.
        batch_size: Pictures in one run of the graph; by default as many as the graph takes.
        skip_broken: Leave out pictures that cannot be read, instead of failing.
        progress: Called with a short text before each batch.

    Raises:
        ImageError: A picture cannot be read, or with `skip_broken` none of them can.
        InputError: The graph takes no pictures, or `batch_size` is out of range.
        BackendError: The execution failed.
    """
    start = time.perf_counter()
    size = batch_size or runtime.variant.max_batch
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    parts: list[Any] = []
    for first in range(0, len(images), size):
        progress(f"encoding {min(first + size, len(images))} of {len(images)} images")
        batch = list(_prepare(runtime, images[first : first + size], skipped, skip_broken=skip_broken))
        if batch:
            names += [name for name, _ in batch]
            parts.append(runtime.encode(np.concatenate([row for _, row in batch]), batch_size=batch_size))
    if not parts:
        raise ImageError(f"none of the {len(images)} pictures can be read; the first: {skipped[0][1]}")
    return EncodedImages(np.concatenate(parts), tuple(names), tuple(skipped), time.perf_counter() - start)


def _prepare(
    runtime: Runtime, images: list[Path], skipped: list[tuple[str, str]], *, skip_broken: bool
) -> Iterator[tuple[str, Any]]:
    """Yield name and input `[1, ...]` of every picture that can be read."""
    for path in images:
        try:
            yield str(path), runtime.prepare(path)
        except ImageError as error:  # noqa: PERF203 - nothing beside decoding a picture
            if not skip_broken:
                raise
            skipped.append((str(path), str(error)))
