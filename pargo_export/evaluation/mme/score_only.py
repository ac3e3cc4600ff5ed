"""Score result files that exist already, and compare them; needs no bundle and no language model."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from pargo_export.evaluation.mme.compare import compare_answers
from pargo_export.evaluation.mme.records import Comparison, MmeEvaluation, VariantResult
from pargo_export.evaluation.mme.results import read_official_pairs, read_pairs
from pargo_export.evaluation.mme.scoring import score_pairs

__all__ = ["score_only"]


def score_only(
    directory: str | os.PathLike[str],
    *,
    baseline: str | os.PathLike[str] | None = None,
    strict_official: bool = False,
    seed: int = 0,
) -> MmeEvaluation:
    """Score a folder of result files, beside another one if that is given.

    Args:
        directory: Holds `TASK.txt` for each task.
        baseline: Another such folder, with answers to the same questions.
        strict_official: Read them as the official calculator does; see `score_results`.
        seed: Of the bootstrap.

    Raises:
        InputError: There are no results, a file is malformed, or the questions of the two differ.
        MissingDependencyError: SciPy is not installed, which only a comparison needs.
    """
    read = read_official_pairs if strict_official else read_pairs
    folders = [Path(item) for item in (baseline, directory) if item is not None]
    pairs = [read(folder) for folder in folders]
    variants = tuple(
        VariantResult(
            name=str(folder), results=str(folder), scores=score_pairs(found, strict_official=strict_official)
        )
        for folder, found in zip(folders, pairs, strict=True)
    )
    comparisons: tuple[Comparison, ...] = ()
    if baseline is not None:
        names = [item.name for item in variants]
        comparisons = (compare_answers(*pairs, baseline_name=names[0], name=names[1], seed=seed),)
    return MmeEvaluation(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        variants=variants,
        comparisons=comparisons,
        warnings=tuple(f"{item.name}: {warning}" for item in variants for warning in item.scores.warnings),
    )
