"""How close the visual tokens of a variant are to the baseline's, and how long they take, both on the same images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pargo_export.evaluation.mme.data import MmeImage
from pargo_export.evaluation.mme.records import EncodeTimes, TokenAgreement
from pargo_export.evaluation.mme.sources import TokenSource
from pargo_export.graph.comparison import compare

__all__ = ["compare_sources"]

Array = NDArray[np.float32]


def compare_sources(
    baseline: TokenSource,
    found: TokenSource,
    images: Sequence[MmeImage],
    *,
    advance: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - named for its callers
) -> tuple[TokenAgreement, EncodeTimes]:
    """Encode images one by one with both, in turns, after one image that is not timed.

    Args:
        baseline: The baseline.
        found: The variant.
        images: At least one.
        advance: Called with the number of images that are done, and of all.

    Raises:
        ParityError: Shapes differ, or a token of the variant is not finite.
    """
    for source in (baseline, found):
        source.encode([images[0].path])
    stages, times = [], []
    for index, image in enumerate(images):
        if index % 2:  # what the machine does meanwhile hits both alike
            second, second_ms = _timed(found, image)
            first, first_ms = _timed(baseline, image)
        else:
            first, first_ms = _timed(baseline, image)
            second, second_ms = _timed(found, image)
        stages.append(compare("visual_tokens", image.name, first, second))
        times.append((first_ms, second_ms))
        advance(index + 1, len(images))
    ratios = [stage.sqnr_db for stage in stages if stage.sqnr_db is not None]
    agreement = TokenAgreement(
        num_images=len(images),
        mean_cosine=statistics.fmean(stage.mean_cosine or 0.0 for stage in stages),
        worst_cosine=min(stage.cosine for stage in stages),
        max_abs=max(stage.max_abs for stage in stages),
        sqnr_db=min(ratios, default=None),
    )
    return agreement, EncodeTimes(
        num_images=len(images),
        baseline_ms=statistics.median(first for first, _ in times),
        variant_ms=statistics.median(second for _, second in times),
        ratio=statistics.median(second / first for first, second in times),
    )


def _timed(source: TokenSource, image: MmeImage) -> tuple[Array, float]:
    start = time.perf_counter()
    tokens = source.encode([image.path])
    return tokens, 1e3 * (time.perf_counter() - start)
