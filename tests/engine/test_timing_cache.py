"""Measured kernels of earlier builds, kept in the bundle."""

from __future__ import annotations

import pytest
from engine.rtx import rtx_with

from pargo_export.bundle import Bundle, BundleTransaction
from pargo_export.engine.timing_cache import cache_path, read_cache, take_cache, use_cache
from pargo_export.trt import load_tensorrt

pytest.importorskip("tensorrt_rtx")
PATH = "engines/tensorrt-10.3.0-sm87.timing.cache"


class Cache:
    """A cache that remembers its content."""

    def __init__(self, content):
        self.content = content

    def serialize(self):
        """Return the content."""
        return self.content


class Config:
    """As much of `IBuilderConfig` as keeps a timing cache; takes what begins with `own`, or nothing, as TensorRT does."""

    def __init__(self):
        self.cache = None

    def create_timing_cache(self, content):
        """Return a cache with the content."""
        return Cache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        """Take a cache of this device."""
        assert ignore_mismatch is False
        if cache.content and not cache.content.startswith(b"own"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        """Return the cache."""
        return self.cache


def test_the_cache_is_of_one_flavor_version_and_gpu():
    """RTX has none: its methods do nothing since 1.2."""
    assert cache_path(load_tensorrt("rtx"), "8.6") is None
    tensorrt = rtx_with("tensorrt", __version__="10.3.0")
    assert cache_path(tensorrt, "8.7") == PATH


def test_a_cache_of_this_device_is_used():
    """What was measured before is there again after the build."""
    config = Config()
    assert use_cache(config, b"own kernels") == ()
    assert take_cache(config) == b"own kernels"


def test_a_cache_of_another_device_is_dropped_with_a_note():
    """An empty one is filled instead; a first build has nothing to note."""
    config = Config()
    (note,) = use_cache(config, b"foreign")
    assert "another device" in note
    assert take_cache(config) == b""
    assert use_cache(Config(), b"") == ()
    assert take_cache(Config()) == b""


def test_a_cache_that_was_tampered_with_is_not_read(bundle):
    """It is checked against its hash before TensorRT reads it."""
    with BundleTransaction(bundle) as transaction:
        transaction.stage(PATH).write_bytes(b"own kernels")
        record = transaction.record(PATH, stage="engine")
        transaction.commit(transaction.previous.merged(files={PATH: record}))
    opened = Bundle.open(bundle)
    assert read_cache(opened, PATH) == (b"own kernels", ())
    assert read_cache(opened, None) == (b"", ())
    assert read_cache(opened, "engines/other.timing.cache") == (b"", ())
    (bundle / PATH).write_bytes(b"own kernelt")
    content, (note,) = read_cache(opened, PATH)
    assert content == b""
    assert "sha256" in note


@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_the_calls_are_those_of_the_real_configuration():
    """RTX still has the methods, with the same names and arguments."""
    tensorrt = load_tensorrt("rtx")
    config = tensorrt.module.Builder(tensorrt.logger).create_builder_config()
    assert use_cache(config, b"") == ()
    assert len(take_cache(config)) > 0
