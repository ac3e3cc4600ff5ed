"""Micro-batching: what arrives within the window is computed in one run, and nobody notices."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from held_picture import WAIT_S, HeldPicture
from tolerances import TOLERANCES

from pargo_export.errors import DeadlineError, ImageError
from pargo_export.runtime import Runtime

LONG_MS = 1e3 * WAIT_S  # a window that nobody may wait for


@pytest.fixture
def open_gathering(bundle_path):
    """Return a function that opens a runtime with a window; it is closed at the end."""
    opened = []

    def open_runtime(gather_ms, **options):
        opened.append(Runtime.open(bundle_path, threads=1, gather_ms=gather_ms, **options))
        events = []
        opened[-1].subscribe(events.append)
        return opened[-1], events

    yield open_runtime
    for runtime in opened:
        runtime.close()


def test_what_waits_is_computed_in_one_run(open_gathering, runtime, photos):
    """Submissions up to the largest batch run together; each future has its own tokens."""
    gathering, events = open_gathering(LONG_MS)
    futures = [gathering.submit(images) for images in (photos[0], photos[1:3], photos[3])]
    for future, images in zip(futures, (photos[:1], photos[1:3], photos[3:4]), strict=True):
        tokens = future.result(WAIT_S)
        assert tokens.shape == (len(images), 22, 80)
        assert tokens.flags.writeable
        assert np.abs(tokens - runtime.encode(images)).max() <= TOLERANCES["runtime-batching"].value
    assert [(event.kind, event.num_requests, event.num_images) for event in events] == [("run", 3, 4)]


def test_gathered_tokens_are_those_of_the_same_batch(open_gathering, runtime, photos):
    """Bit by bit what `encode` computes of the same images in one call."""
    gathering, _ = open_gathering(LONG_MS)
    futures = [gathering.submit(photo) for photo in photos[:4]]
    tokens = np.concatenate([future.result(WAIT_S) for future in futures])
    assert np.array_equal(tokens, runtime.encode(photos[:4]))


def test_a_broken_picture_fails_alone(open_gathering, runtime, photos):
    """The others of its run get their tokens."""
    gathering, events = open_gathering(LONG_MS)
    good = [gathering.submit(photo) for photo in photos[:2]]
    broken = gathering.submit([photos[2], b"no picture"])
    good += [gathering.submit(photo) for photo in photos[2:4]]
    with pytest.raises(ImageError, match=r"^images\[1\]"):
        broken.result(WAIT_S)
    for future, photo in zip(good, photos, strict=False):
        found = future.result(WAIT_S)
        assert np.abs(found - runtime.encode(photo)).max() <= TOLERANCES["runtime-batching"].value
    assert [(event.kind, event.num_requests) for event in events] == [("failed", 1), ("run", 4)]


def test_what_does_not_fit_runs_next(open_gathering, photos):
    """A submission that would exceed the largest batch begins the next run; a longer one, or one with a batch size, is alone."""
    gathering, events = open_gathering(LONG_MS)
    batches = (photos[:3], photos[:2], photos[:5], photos[:2], photos[:1])
    futures = [
        gathering.submit(batch, batch_size=1 if index == 4 else None) for index, batch in enumerate(batches)
    ]
    for future, batch in zip(futures, batches, strict=True):
        assert len(future.result(WAIT_S)) == len(batch)
    assert [(event.num_requests, event.num_images) for event in events] == [
        (1, 3),
        (1, 2),
        (1, 5),
        (1, 2),
        (1, 1),
    ]


def test_a_window_ends(open_gathering, photos):
    """A submission that stays alone is computed after the window, and its wait counts as queueing."""
    gathering, events = open_gathering(20.0)
    assert gathering.submit(photos[0]).result(WAIT_S).shape == (1, 22, 80)
    assert events[0].queue_s >= 0.02
    assert events[0].preprocess_s > 0
    assert events[0].run_s > 0


def test_a_deadline_within_the_window_is_kept(open_gathering, photos):
    """A submission in a hurry does not wait for company."""
    gathering, _ = open_gathering(LONG_MS)
    assert gathering.submit(photos[0], deadline_s=WAIT_S / 2).result(WAIT_S / 2).shape == (1, 22, 80)


def test_what_became_too_late_is_left_out(open_gathering, photos):
    """A deadline that passes while the pictures of a run are prepared is noticed before it runs."""
    gathering, events = open_gathering(500.0)
    late = gathering.submit(photos[0], deadline_s=0.6)
    held = HeldPicture(photos[1].read_bytes())
    other = gathering.submit(held)
    assert held.entered.wait(WAIT_S)
    time.sleep(0.6)
    held.release()
    assert isinstance(late.exception(WAIT_S), DeadlineError)
    assert other.result(WAIT_S).shape == (1, 22, 80)
    assert [(event.kind, event.num_requests) for event in events] == [("expired", 1), ("run", 1)]


def test_closing_ends_the_window(open_gathering, photos):
    """What was begun is computed at once, with what it has."""
    gathering, _ = open_gathering(LONG_MS)
    held = HeldPicture(photos[0].read_bytes())
    held.release()
    future = gathering.submit(held)
    assert held.entered.wait(WAIT_S)
    gathering.close()
    assert future.result(0).shape == (1, 22, 80)


def test_each_future_has_the_library_of_its_images(open_gathering, runtime, photos):
    """Tensors of PyTorch come back as tensors, beside arrays of NumPy."""
    gathering, events = open_gathering(LONG_MS)
    pixels = runtime.preprocess(photos[:4])
    futures = [gathering.submit(torch.from_numpy(pixels[:2].copy())), gathering.submit(pixels[2:])]
    tensor, array = (future.result(WAIT_S) for future in futures)
    assert isinstance(tensor, torch.Tensor)
    assert isinstance(array, np.ndarray)
    found = np.concatenate([tensor.numpy(), array])
    assert np.array_equal(found, runtime.encode(pixels))
    assert events[0].num_requests == 2
