"""Sampling: the seed alone decides, every content comes once, and nothing unreadable stops it."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from pargo_calibration import (
    CalibrationDataError,
    Duplicate,
    Item,
    Unreadable,
    dataset_sha256,
    open_source,
    random_source,
    sample,
)


@pytest.fixture
def source():
    """Twenty images."""
    return random_source(20, 0, height=2, width=2)


def names(found):
    """Names in the order they came."""
    return [item.name for item in found]


def test_order_is_a_shuffle_that_can_be_repeated(source):
    """Equal seeds give equal orders, other seeds others, and nothing is lost."""
    first, again, other = (names(sample(source, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) == sorted(names(source.entries()))
    expected = names(source.entries())
    random.Random(1).shuffle(expected)  # noqa: S311  the order that is promised
    assert first == expected


@pytest.mark.parametrize("count", [1, 3, 7, 25])
def test_shards_share_the_order(source, count):
    """Taken in turn from all shards, the whole order comes back; a shard may be empty."""
    whole = names(sample(source, seed=5))
    for number in range(count):
        assert names(sample(source, seed=5, shard=(number, count))) == whole[number::count]


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_refuses_a_shard_that_does_not_exist(source, shard):
    """At once, not when the first image is asked for."""
    with pytest.raises(CalibrationDataError, match=f"shard {shard[0]} of {shard[1]} does not exist"):
        sample(source, seed=0, shard=shard)


def test_is_lazy(source, monkeypatch):
    """What is not asked for is not read."""
    loaded = []
    load = source.load
    monkeypatch.setattr(source, "load", lambda entry: loaded.append(entry) or load(entry))
    stream = sample(source, seed=0)
    assert not loaded
    next(stream)
    assert len(loaded) == 1


def test_copies_and_broken_entries_are_told_apart(tmp_path, photos):
    """A copy names the item it repeats, a broken entry its reason; items after it still come."""
    for name, content in (("a.jpg", photos[0]), ("b.jpg", photos[0]), ("c.jpg", photos[1]), ("d.jpg", b"")):
        (tmp_path / name).write_bytes(content)
    for seed in range(6):
        found = list(sample(open_source(tmp_path), seed=seed))
        items = [item for item in found if isinstance(item, Item)]
        (duplicate,) = [item for item in found if isinstance(item, Duplicate)]
        (unreadable,) = [item for item in found if isinstance(item, Unreadable)]
        assert {item.content for item in items} == set(photos[:2])
        assert {duplicate.name, duplicate.of} == {"a.jpg", "b.jpg"}
        assert duplicate.of in names(items)
        assert found.index(duplicate) > names(found).index(duplicate.of)
        assert unreadable.name == "d.jpg"
        assert "no bytes" in unreadable.reason


def test_dataset_hash_is_of_the_set(source):
    """Order does not matter, content does; it can be made again with sha256 and sort."""
    hashes = [source.load(entry).sha256 for entry in source.entries()]
    shuffled = np.random.default_rng(0).permutation(hashes).tolist()
    assert dataset_sha256(iter(shuffled)) == dataset_sha256(hashes)
    assert dataset_sha256(hashes[1:]) != dataset_sha256(hashes)
    assert dataset_sha256(hashes) == hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


@pytest.mark.parametrize("wrong", ["", "a" * 63, "A" * 64, "a" * 64 + "\n", "photo.jpg"])
def test_dataset_hash_refuses_other_text(wrong):
    """A name instead of a hash is a mistake."""
    with pytest.raises(CalibrationDataError, match="expected the sha256 of items"):
        dataset_sha256(["b" * 64, wrong])
