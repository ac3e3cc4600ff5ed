"""The evidence of a variant, stage by stage, and what its quantization left in float."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pargo_export.bundle import StageEvidence

__all__ = ["StageAccuracy", "group_kept", "worst_by_stage"]


@dataclass(frozen=True)
class StageAccuracy:
    """The worst of the measurements of one stage, each number by itself.

    Attributes:
        stage: The stage.
        mean_cosine: Smallest mean cosine similarity of an image; `None` if it was not measured.
        worst_cosine: Smallest cosine similarity of a token.
        sqnr_db: Smallest signal-to-noise ratio of an image; `None` if it was not measured.
        max_abs: Largest absolute difference.
        worst_source: Input with the smallest ratio, or, without ratios, the smallest cosine.
    """

    stage: str
    mean_cosine: float | None
    worst_cosine: float
    sqnr_db: float | None
    max_abs: float
    worst_source: str


def worst_by_stage(measured: Iterable[StageEvidence]) -> tuple[StageAccuracy, ...]:
    """Summarize measurements, one line a stage, in the order in which the stages come."""
    stages: dict[str, list[StageEvidence]] = defaultdict(list)
    for item in measured:
        stages[item.stage].append(item)
    return tuple(_worst(stage, items) for stage, items in stages.items())


def group_kept(kept: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the linears that stayed in float by the reason, the commonest first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, reason in kept.items():
        groups[reason].append(path)
    return {
        reason: tuple(paths) for reason, paths in sorted(groups.items(), key=lambda group: -len(group[1]))
    }


def _worst(stage: str, items: list[StageEvidence]) -> StageAccuracy:
    means = [item.mean_cosine for item in items if item.mean_cosine is not None]
    rated = [(item.sqnr_db, item.source) for item in items if item.sqnr_db is not None]
    ratio, source = min(rated, default=(None, min(items, key=lambda item: item.cosine).source))
    return StageAccuracy(
        stage=stage,
        mean_cosine=min(means, default=None),
        worst_cosine=min(item.cosine for item in items),
        sqnr_db=ratio,
        max_abs=max(item.max_abs for item in items),
        worst_source=source,
    )
