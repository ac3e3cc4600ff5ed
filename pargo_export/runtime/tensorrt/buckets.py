"""Which batch sizes are prepared for an engine, and by which of its profiles each is computed.

A batch is padded to the next size that is prepared, so that few CUDA graphs serve every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pargo_export.bundle import BatchProfile
from pargo_export.runtime.slots import batch_sizes

__all__ = ["Bucket", "choose_buckets"]


@dataclass(frozen=True)
class Bucket:
    """One prepared batch size.

    Attributes:
        batch: Images.
        profile: Index of the profile.
    """

    batch: int
    profile: int


def choose_buckets(profiles: Sequence[BatchProfile]) -> tuple[Bucket, ...]:
    """Return what to prepare, ascending by batch: powers of two, and the sizes that the profiles name.

    Sizes that no profile allows are left out. Of several profiles for a size the one is taken whose kernels were chosen
    for the batch that is nearest, and among those the narrowest.

    Args:
        profiles: Of the engine, in its order; at least one.
    """
    largest = max(profile.max_batch for profile in profiles)
    named = {
        size for profile in profiles for size in (profile.min_batch, profile.opt_batch, profile.max_batch)
    }
    buckets = []
    for batch in sorted({*batch_sizes(largest), *named}):
        fitting = [
            (abs(profile.opt_batch - batch), profile.max_batch - profile.min_batch, index)
            for index, profile in enumerate(profiles)
            if profile.min_batch <= batch <= profile.max_batch
        ]
        if fitting:
            buckets.append(Bucket(batch, min(fitting)[2]))
    return tuple(buckets)
