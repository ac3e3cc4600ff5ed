"""Which batch sizes of an engine are prepared, and by which profile."""

from __future__ import annotations

import pytest

from pargo_export.bundle import BatchProfile
from pargo_export.runtime.tensorrt.buckets import choose_buckets


def choose(*sizes):
    """Return batch and profile of every bucket."""
    profiles = [BatchProfile(min_batch=low, opt_batch=best, max_batch=high) for low, best, high in sizes]
    return [(bucket.batch, bucket.profile) for bucket in choose_buckets(profiles)]


@pytest.mark.parametrize(
    ("profiles", "buckets"),
    [
        ([(1, 1, 1)], [(1, 0)]),
        ([(1, 1, 8)], [(1, 0), (2, 0), (4, 0), (8, 0)]),
        ([(1, 6, 12)], [(1, 0), (2, 0), (4, 0), (6, 0), (8, 0), (12, 0)]),
        ([(3, 3, 6)], [(3, 0), (4, 0), (6, 0)]),
        ([(1, 1, 1), (2, 4, 4), (5, 8, 8)], [(1, 0), (2, 1), (4, 1), (5, 2), (8, 2)]),
        ([(5, 8, 8), (1, 1, 4)], [(1, 1), (2, 1), (4, 1), (5, 0), (8, 0)]),
        ([(1, 1, 8), (1, 8, 8)], [(1, 0), (2, 0), (4, 0), (8, 1)]),
        ([(1, 1, 8), (1, 1, 2)], [(1, 1), (2, 1), (4, 0), (8, 0)]),
    ],
    ids=["one", "powers", "odd", "not from one", "buckets", "any order", "nearest best batch", "narrowest"],
)
def test_prepared_batches(profiles, buckets):
    """Powers of two and what the profiles name, each by the profile whose kernels suit it best."""
    assert choose(*profiles) == buckets


def test_sizes_between_profiles_are_left_out():
    """A size that no profile allows is computed by the next larger one."""
    assert choose((1, 1, 1), (8, 8, 16)) == [(1, 0), (8, 1), (16, 1)]
