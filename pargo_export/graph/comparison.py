"""How far the stages of a graph are from the reference, and how far they may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pargo_export.bundle import Evidence, Limits, StageEvidence
from pargo_export.errors import ParityError

__all__ = ["PARITY_LIMITS", "compare", "find_failures", "require_parity"]

Array = NDArray[np.float32]

_BEST_SQNR_DB = 200.0

# max_abs is held against limit * max(1, standard deviation of the reference); cosine is the worst token's.
# Measured on the golden cases and the full size: docs/verified.md.
PARITY_LIMITS: dict[str, Limits] = {
    "float32": Limits(max_abs=1e-4, cosine=0.99999),
    "float16": Limits(max_abs=5e-2, cosine=0.999),
    "bfloat16": Limits(max_abs=4e-1, cosine=0.99),
}


def compare(stage: str, source: str, expected: Array, found: NDArray[np.generic]) -> StageEvidence:
    """Measure the agreement of one stage on one input; differences and cosines in float64.

    Raises:
        ParityError: The shapes differ or `found` holds NaN or infinity.
    """
    if expected.shape != found.shape:
        raise ParityError(
            f"{stage} on {source}: the graph gives {found.shape}, the reference {expected.shape}"
        )
    left, right = expected.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(right).all():
        bad = np.count_nonzero(~np.isfinite(right))
        raise ParityError(
            f"{stage} on {source}: {bad} of {right.size} values are NaN or infinite (largest reference value "
            f"{np.abs(left).max():.3g}); a half-precision overflow calls for bf16 or fp32"
        )
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    cosine = np.divide((left * right).sum(axis=-1), norms, out=np.ones_like(norms), where=norms > 0)
    difference = left - right
    noise = float((difference**2).mean())
    return StageEvidence(
        stage=stage,
        batch=expected.shape[0],
        source=source,
        max_abs=float(np.abs(difference).max()),
        cosine=float(cosine.min()),
        reference_std=float(left.std()),
        mean_cosine=float(cosine.mean()),
        # Equal to the last bit has no finite ratio; float32 cannot do better than this anyway.
        sqnr_db=min(_BEST_SQNR_DB, float(10 * np.log10((left**2).mean() / noise)))
        if noise
        else _BEST_SQNR_DB,
    )


def find_failures(stages: Sequence[StageEvidence], limits: Limits) -> list[StageEvidence]:
    """Return the measurements past the limits; a limit on what was not measured fails."""

    def fails(item: StageEvidence) -> bool:
        allowed = (limits.max_abs or np.inf) * max(1.0, item.reference_std)
        lowest = (
            (item.cosine, limits.cosine),
            (item.mean_cosine, limits.mean_cosine),
            (item.sqnr_db, limits.sqnr_db),
        )
        return item.max_abs > allowed or any(
            limit is not None and (found is None or found < limit) for found, limit in lowest
        )

    return [item for item in stages if fails(item)]


def require_parity(evidence: Evidence) -> None:
    """Turn failed evidence into an error.

    Raises:
        ParityError: Lists every stage past the limits, the first one in the network first.
    """
    failures = find_failures(evidence.stages, evidence.limits)
    if failures:
        lines = "; ".join(
            f"{item.stage} (batch {item.batch}, {item.source}): max abs {item.max_abs:.3g}, cosine {item.cosine:.6f}"
            for item in failures
        )
        raise ParityError(
            f"the graph does not compute what the reference computes (limits: max abs {evidence.limits.max_abs} "
            f"per unit of standard deviation, cosine {evidence.limits.cosine}): {lines}"
        )
