"""The gate: outputs against the reference, with the limits of the variant."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pargo_export.bench.gate import Reference, check_outputs, describe_failure
from pargo_export.bundle import Limits
from pargo_export.errors import ParityError

RANDOM = np.random.default_rng(0)
REFERENCE = Reference(RANDOM.standard_normal((3, 4, 8)).astype(np.float32), "fp32 in onnxruntime")


class Answering:
    """A process whose output is that of the reference, changed by a function."""

    def __init__(self, change, *, limits=None, precision="float32"):
        self._change = change
        self.spec = SimpleNamespace(limits=limits)
        self.facts = SimpleNamespace(precision=precision)

    def ask(self, do, *, num_images, batch, out):
        """Write the tokens of the first pictures, which begin again after the third, batch by batch."""
        assert (do, num_images) == ("encode", max(batch, 3))
        runs = [np.arange(first, first + batch) % 3 for first in range(0, num_images, batch)]
        tokens = [self._change(REFERENCE.outputs[run].copy()) for run in runs]
        np.save(out, np.concatenate(tokens)[:num_images])
        return {}


def test_equal_outputs_pass(tmp_path):
    """Every batch size is compared, also one with more images than there are pictures."""
    found = check_outputs(Answering(lambda tokens: tokens), REFERENCE, (1, 5), tmp_path / "found.npy")
    assert found.passed
    assert [stage.batch for stage in found.stages] == [1, 5]
    assert found.reference == "fp32 in onnxruntime"


def test_one_picture_is_not_enough(tmp_path):
    """At batch 1 too, several pictures are compared: what is right for the first may be wrong for the next."""

    def spoil(tokens):
        if np.array_equal(tokens[0], REFERENCE.outputs[2]):
            tokens[0] = 0
        return tokens

    assert not check_outputs(Answering(spoil), REFERENCE, (1,), tmp_path / "found.npy").passed


def test_a_row_that_is_wrong_in_a_batch_alone_fails(tmp_path):
    """Batch 1 may be right while the last picture of a batch is not."""

    def spoil(tokens):
        if len(tokens) > 1:
            tokens[-1] = 0
        return tokens

    found = check_outputs(Answering(spoil), REFERENCE, (1, 2), tmp_path / "found.npy")
    assert not found.passed
    assert "misses the limits, so it was not timed" in describe_failure(found)


@pytest.mark.parametrize(
    ("limits", "precision", "passes"),
    [
        (None, "float32", False),
        (None, "float16", True),
        (Limits(cosine=0.9), "float32", True),
        (Limits(sqnr_db=60.0), "int8", False),
    ],
)
def test_the_limits_are_those_of_the_subject(tmp_path, limits, precision, passes):
    """An error of a percent is much for float32, and little for what was accepted with it."""
    noise = RANDOM.normal(0, 0.01, (1, 4, 8)).astype(np.float32)
    process = Answering(lambda tokens: tokens + noise, limits=limits, precision=precision)
    assert check_outputs(process, REFERENCE, (1,), tmp_path / "found.npy").passed is passes


@pytest.mark.parametrize("change", [lambda tokens: tokens[:, 1:], lambda tokens: tokens * np.nan])
def test_what_cannot_be_compared(tmp_path, change):
    """Another shape and values that are not finite are errors of their own."""
    with pytest.raises(ParityError, match="visual_tokens on pictures of the benchmark"):
        check_outputs(Answering(change), REFERENCE, (1,), tmp_path / "found.npy")
