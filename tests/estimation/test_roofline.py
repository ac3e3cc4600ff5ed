"""The time of kernels, against sums done by hand."""

from __future__ import annotations

import pytest

from pargo_export.estimation.roofline import BlockTime, Rates, time_operations
from pargo_export.inspect.tally import Narrow, Tally

RATES = Rates(flops_per_s=1e12, narrow_flops_per_s=2e12, bytes_per_s=1e9, launch_s=1e-6, misaligned=3.0)
FAST_MEMORY = Rates(flops_per_s=1e12, narrow_flops_per_s=2e12, bytes_per_s=1e15, launch_s=0.0)


def _time(tally, rates=RATES, **options):
    return time_operations(tally.operations, rates, element_bytes=2, **options)


def test_a_product_that_memory_bounds():
    """8 x 16 times 16 x 32: weights, input and output once, then the output read and written again."""
    tally = Tally()
    tally.product(8, 16, 32, bias=False)
    found = _time(tally)
    moved = 2 * (16 * 32 + 8 * 16 + 8 * 32) + 2 * 2 * 8 * 32
    assert found.compute_s == 0
    assert found.memory_s == pytest.approx(moved / 1e9)
    assert (found.kernels, found.launches_s) == (2, pytest.approx(2e-6))
    assert found.limit == "launches" if moved / 1e9 < 2e-6 else "memory"


def test_a_product_that_computing_bounds():
    """With memory that costs nothing only the operations are left."""
    tally = Tally()
    tally.product(64, 64, 64)
    found = _time(tally, FAST_MEMORY)
    assert found.compute_s == pytest.approx(2 * 64**3 / 1e12)
    assert found.limit == "compute"


def test_merged_products_are_one_kernel():
    """What reads the same matrix is launched once, and its sums are compared together."""
    apart, merged = Tally(), Tally()
    for index in range(3):
        apart.product(64, 64, 64)
        merged.product(64, 64, 64, is_input_read=not index)
    assert _time(apart).kernels == 6
    assert _time(merged).kernels == 2
    saved = 2 * 2 * 64 * 64 / 1e9
    assert _time(apart).memory_s - _time(merged).memory_s == pytest.approx(saved)
    assert _time(merged, FAST_MEMORY).compute_s == pytest.approx(_time(apart, FAST_MEMORY).compute_s)


def test_eight_bits_compute_faster_and_move_less():
    """The 8-bit rate holds if weight and input are narrow; a narrow weight alone only saves bytes."""
    tallies = {}
    for name, narrow in (
        ("float", Narrow(False, False)),
        ("weight", Narrow(True, False)),
        ("both", Narrow(True, True)),
    ):
        tallies[name] = Tally()
        tallies[name].product(64, 64, 64, bias=False, narrow=narrow)
    computing = {name: _time(tally, FAST_MEMORY).compute_s for name, tally in tallies.items()}
    assert computing["float"] == computing["weight"] == 2 * computing["both"]
    moving = {name: _time(tally).memory_s * 1e9 for name, tally in tallies.items()}
    assert moving["float"] - moving["weight"] == pytest.approx(64 * 64)
    assert moving["weight"] - moving["both"] == pytest.approx(64 * 64)


def test_misaligned_channels():
    """A width of 30 takes three times as long as its operations say, one of 32 does not."""
    for width, factor in ((30, 3), (32, 1)):
        tally = Tally()
        tally.product(512, 64, width, bias=False)
        slow = Rates(1e9, 1e9, 1e15, 0.0, misaligned=3.0)
        assert _time(tally, slow).compute_s == pytest.approx(factor * 2 * 512 * 64 * width / 1e9)


def test_unfused_attention_moves_its_scores():
    """Fused: one kernel, no scores; unfused: two kernels more, and every score four times."""
    tally = Tally()
    tally.attention(2, 8, 16, 32, num_scores=8 * 16)
    fused, unfused = _time(tally), _time(tally, unfused_heads=4)
    assert (fused.kernels, unfused.kernels) == (1, 3)
    assert unfused.memory_s - fused.memory_s == pytest.approx(4 * 2 * 4 * (2 * 8 * 16) / 1e9)


def test_nothing_takes_no_time():
    """A block without operations has no kernel."""
    tally = Tally()
    tally.product(0, 8, 8)
    tally.attention(0, 8, 8, 8, num_scores=64)
    tally.norm(8)
    assert _time(tally) == BlockTime()
