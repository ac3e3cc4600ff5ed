"""Estimates against known times: what docs/estimate.md claims."""

from __future__ import annotations

import importlib
import math
import re
import sys
from pathlib import Path

import pytest

from pargo_export.estimation.fractions import load_fractions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    """The study under benchmarks/, imported as it imports its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("estimate_validation")
    for name in ("estimate_validation", "vision_towers", "common"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def times(study):
    """The times that the constants are fitted to."""
    return study.fitted_times()


def test_every_known_time_is_within_the_claimed_error(study, times):
    """FP16 on five devices: the middle is off by at most 15 %, and the range holds every time."""
    constants = load_fractions().reached.model_dump()
    assert len(times) == 38
    assert {known.device for known in times} == {
        "thor",
        "orin-agx-64",
        "orin-nx-16-super",
        "orin-nano-8",
        "h100",
    }
    for known in times:
        assert abs(study.predict_ms(known, constants) / known.ms - 1) <= 0.15, known.model
        assert study.is_covered(known), known.model


def test_the_constants_are_the_fitted_ones(study, times):
    """The package has what the study finds, rounded."""
    found, shipped = study.fit(times), load_fractions().reached
    for name, value in found.items():
        assert getattr(shipped, name) == pytest.approx(value, rel=0.02), name


@pytest.mark.parametrize("device", ["h100", "thor"])
def test_a_device_that_was_left_out(study, times, device):
    """The two hardest ones: predicted from the others, every time is within 20 %."""
    constants = study.fit([known for known in times if known.device != device])
    ratios = [math.exp(study.error(known, constants)) for known in times if known.device == device]
    assert len(ratios) >= 10
    assert 1 / 1.2 <= min(ratios) <= max(ratios) <= 1.2


@pytest.mark.parametrize("precision", ["bf16", "fp8", "int8"])
def test_other_precisions_are_in_their_ranges(study, precision):
    """BF16, FP8 and INT8 on the H100, none of which the constants were fitted to."""
    found = study.measured_times(precision)
    assert found
    assert all(study.is_covered(known) for known in found)


def test_the_misaligned_tower_is_named_as_a_miss(study):
    """Qwen2.5-VL has 3420 hidden channels: its middle is off by up to 32 %, its range holds."""
    found = [known for known in study.published_times() if not known.is_aligned]
    constants = load_fractions().reached.model_dump()
    assert {known.model for known in found} == {"qwen2_5-vl-7b"}
    assert all(study.is_covered(known) for known in found)
    assert min(study.predict_ms(known, constants) / known.ms - 1 for known in found) == pytest.approx(
        -0.32, abs=0.01
    )


def test_operations_of_a_tower_by_hand(study):
    """Qwen3.5-0.8B with 4 x 100 patches: twelve blocks of four products and an attention, patches and merger."""
    tower = study.read_published()["towers"]["qwen3_5-0_8b"]
    blocks = study.tower_blocks(tower, 1, 100)
    flops = sum(count * sum(operation.flops for operation in found) for found, count in blocks)
    linears = 12 * 2 * 400 * (4 * 768**2 + 2 * 768 * 3072)
    attention = 12 * 4 * 400**2 * 768
    ends = 2 * 400 * 1536 * 768 + 2 * 100 * (3072**2 + 3072 * 1024)
    assert flops == linears + attention + ends


def test_the_document_has_the_current_tables(study):
    """Every row that the study prints, but those of the constants, is in docs/estimate.md."""
    document = (ROOT / "docs" / "estimate.md").read_text("utf-8")
    tables = study.report().partition("## Every time")[2]
    rows = re.findall(r"^\| .*$", tables, re.MULTILINE)
    assert len(rows) > 70
    assert [row for row in rows if row not in document] == []
