"""The runtime around an engine that takes fewer images than its variant, on stand-ins of CUDA and TensorRT."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pargo_export.bundle import BatchProfile
from pargo_export.errors import InputError
from pargo_export.runtime import Runtime, describe_provenance
from pargo_export.runtime.backends.tensorrt import TENSORRT
from pargo_export.runtime.selection import Candidate

TWO = (BatchProfile(min_batch=1, opt_batch=1, max_batch=2),)
PIXELS = np.random.default_rng(3).standard_normal((5, 3, 28, 28), np.float32)


@pytest.fixture
def runtime(open_engine):
    """A runtime on an engine for two images; its variant was made for four."""
    runner, _, _ = open_engine(profiles=TWO)
    (engine,) = open_engine.bundle.manifest.engines.values()
    variant = open_engine.bundle.manifest.variants[engine.variant]
    assert variant.max_batch == 4
    with Runtime(open_engine.bundle, Candidate(variant, TENSORRT, engine), runner) as opened:
        yield opened


def expected(values):
    """Return what the stand-in of an engine computes."""
    from runtime.tensorrt.fake_tensorrt import expected_tokens

    return expected_tokens(values, (1, 16))


def test_images_are_split_by_what_the_engine_takes(runtime):
    """More images than fit into one run, into new memory and into the caller's."""
    assert runtime.max_batch == 2
    assert np.allclose(runtime.encode(PIXELS), expected(PIXELS))
    out = np.empty((5, 1, 16), np.float32)
    assert runtime.encode_into(PIXELS, out) is out
    assert np.allclose(out, expected(PIXELS))
    assert np.allclose(runtime.submit(PIXELS[:3]).result(), expected(PIXELS[:3]))


def test_larger_batch_sizes_are_refused(runtime):
    """In the name of the engine."""
    with pytest.raises(
        InputError, match="found 3, expected 1 to 2, the largest that engine 'fp32-sm89' was made for"
    ):
        runtime.encode(PIXELS, batch_size=3)


def test_pictures_are_prepared_on_the_host(runtime):
    """The engine takes normalised pixels, so the host normalises."""
    picture = Image.new("RGB", (28, 28), (255, 0, 0))
    assert np.allclose(runtime.encode(picture), expected(runtime.preprocess(picture)))


def test_results_name_the_engine(runtime):
    """Which code computed them can be told later."""
    found = describe_provenance(runtime, ["a.png"])
    assert (found["engine"], found["engine_sha256"]) == ("fp32-sm89", runtime.engine.engine_sha256)
    assert (found["backend"], found["variant"]) == ("tensorrt", "fp32")
