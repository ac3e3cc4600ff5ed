"""Options of a build: defaults, names, batch buckets, contradictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from pargo_export.bundle import BatchProfile, Bundle
from pargo_export.engine.options import EngineOptions, buckets
from pargo_export.errors import ConfigError


def texts(profiles):
    """Return profiles as texts."""
    return [str(profile) for profile in profiles]


def test_batch_buckets_meet_without_a_gap():
    """Each size is the largest and the chosen batch of its bucket, which begins behind the one before."""
    assert texts(buckets((1, 4, 8))) == ["1-1-1", "2-4-4", "5-8-8"]
    assert texts(buckets((4,))) == ["1-4-4"]


@pytest.mark.parametrize("sizes", [(), (0, 2), (4, 2), (2, 2)])
def test_batch_sizes_must_ascend(sizes):
    """Anything but positive, ascending sizes is refused."""
    with pytest.raises(ConfigError, match="expected for example 1, 4, 8"):
        buckets(sizes)


def test_the_default_profile_ends_at_the_variants_largest_batch(engine_bundle):
    """One profile, with kernels chosen for batch 1."""
    variant = Bundle.open(engine_bundle).variant("fp16")
    assert texts(EngineOptions().profiles_for(variant)) == ["1-1-4"]
    assert texts(EngineOptions(profiles=buckets((1, 3))).profiles_for(variant)) == ["1-1-1", "2-3-3"]


def test_batches_that_the_variant_was_not_made_for_are_refused(engine_bundle):
    """The graph was measured up to its largest batch only."""
    variant = Bundle.open(engine_bundle).variant("fp16")
    with pytest.raises(ConfigError, match=r"profile 1-8-8 has batch 8, but .* up to 4; .*--max-batch 8"):
        EngineOptions(profiles=buckets((8,))).profiles_for(variant)
    fixed = variant.model_copy(update={"max_batch": 1})
    one = BatchProfile(min_batch=1, opt_batch=1, max_batch=1)
    with pytest.raises(ConfigError, match="fixed batch 1, which needs one profile"):
        EngineOptions(profiles=(one, one)).profiles_for(fixed)


@pytest.mark.parametrize(
    ("options", "flavor", "name"),
    [
        ({}, "tensorrt", "fp16-sm87"),
        ({}, "rtx", "fp16-rtx"),
        ({"capabilities": ("8.6", "12.0")}, "rtx", "fp16-rtx-sm86-sm120"),
        ({"name": "mine"}, "rtx", "mine"),
    ],
)
def test_engines_are_named_after_variant_and_device(options, flavor, name):
    """The name says for which GPUs an engine is, unless it is given."""
    assert EngineOptions(**options).engine_name("fp16", flavor, "8.7") == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flavor": "trt"}, "flavor is 'trt'; known: auto, tensorrt, rtx"),
        ({"plugins": "maybe"}, "plugins is 'maybe'"),
        ({"capabilities": ("sm86",)}, "'sm86' is not of the form '8.6'"),
        ({"capabilities": ("8.6",), "flavor": "tensorrt"}, "builds for the GPU of this machine"),
        ({"plugin_libraries": (Path("a.so"),)}, "plugins is 'off'"),
        ({"workspace_bytes": 0}, "workspace_bytes is 0"),
        ({"optimization_level": 6}, "from 0 to 5"),
        ({"min_share": 1.5}, "from 0 to 1"),
        ({"name": "../x"}, "expected a letter or digit"),
    ],
)
def test_contradictions_are_refused(options, message):
    """What is unknown, out of range or contradicts itself is named."""
    with pytest.raises(ConfigError, match=message):
        EngineOptions(**options)


def test_settings_hold_what_was_asked_for():
    """Defaults that TensorRT decides are left out."""
    assert EngineOptions(workspace_bytes=5).settings() == {
        "timing_cache": True,
        "profiling": False,
        "plugins": "off",
        "min_share": 0.99,
        "workspace_bytes": 5,
    }
    assert EngineOptions(optimization_level=0).settings()["optimization_level"] == 0
