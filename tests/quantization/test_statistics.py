"""Statistics of activations survive the way to disk and back."""

from __future__ import annotations

import numpy as np
import pytest
from quantization.samples import observed

from pargo_export.errors import CalibrationError
from pargo_export.quantization.statistics import Observation, pack, unpack

RANDOM = np.random.default_rng(20240904)


def some_observation():
    """Return an observation of a plain and a smoothed activation."""
    values = RANDOM.standard_normal((50, 6)).astype(np.float32)
    factors = np.exp(RANDOM.standard_normal(6)).astype(np.float32)
    activations = {"b.second": observed(values, factors), "a.first/query": observed(-values)}
    return Observation(activations, {"note": "é"})


def test_round_trip_is_exact(tmp_path):
    """Order, numbers, factors and strings come back; the numbers pack to the same bytes."""
    before = some_observation()
    path = tmp_path / "some.safetensors"
    path.write_bytes(pack(before))
    after = unpack(path)
    assert list(after.activations) == ["b.second", "a.first/query"]
    assert after.metadata == {"note": "é"}
    assert pack(Observation(after.activations)) == pack(Observation(before.activations))
    for name, item in before.activations.items():
        found = after.activations[name]
        assert (found.factors is None) == (item.factors is None) == (found.smoothed is None)
        for part in ("plain", "smoothed"):
            if getattr(item, part) is not None:
                left, right = getattr(found, part).to_arrays(), getattr(item, part).to_arrays()
                assert all(np.array_equal(left[key], right[key]) for key in right)
    assert np.array_equal(after.activations["b.second"].factors, before.activations["b.second"].factors)


def test_continued_statistics_are_those_of_one_pass(tmp_path):
    """What is loaded can take in further values."""
    values = RANDOM.standard_normal((90, 6)).astype(np.float32) * 4
    path = tmp_path / "some.safetensors"
    path.write_bytes(pack(Observation({"a": observed(values[:40])})))
    loaded = unpack(path)
    loaded.activations["a"].plain.update(values[40:])
    assert pack(loaded) == pack(Observation({"a": observed(values)}))


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "count", "empty"])
def test_damaged_files_are_refused(tmp_path, damage):
    """The message names the file and what to do."""
    observation = some_observation()
    if damage == "count":
        observation.activations["b.second"].plain.count += 1
    content = pack(observation)
    content = {"cut": content[:-7], "text": b"{}", "empty": b""}.get(damage, content)
    path = tmp_path / "some.safetensors"
    if damage != "missing":
        path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"some\.safetensors cannot be read \(.*calibrate again"):
        unpack(path)
