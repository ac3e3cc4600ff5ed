"""Pictures prepared side by side."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from pargo_export.errors import ImageError
from pargo_export.preprocessing import PictureThreads, PreprocessSpec
from pargo_export.runtime.inputs import InputReader
from pargo_export.signature import TensorSpec

WAIT_S = 60
SPEC = PreprocessSpec(height=28, width=42)
PIXELS = TensorSpec(name="pixel_values", dtype="float32", shape=("batch", 3, 28, 42))


@pytest.fixture
def threads():
    """Return three threads, ended afterwards."""
    found = PictureThreads(3)
    yield found
    found.close()


def prepare(images, threads):
    """Prepare images as a runtime does."""
    reader = InputReader(PIXELS, "float", SPEC, threads=threads)
    reading = reader.read(images)
    return reader.prepare(reading, 0, len(reading))


def test_pictures_are_prepared_at_the_same_time(threads):
    """Three calls meet; one after the other they would wait for each other for ever."""
    meeting = threading.Barrier(3, timeout=WAIT_S)
    threads.for_each(lambda _: meeting.wait(), ["a", "b", "c"])


def test_the_order_is_kept_and_the_pixels_are_those_of_one_thread(threads, photo_path, cat, encode):
    """Whatever the source: paths, bytes, arrays, images, files and prepared pixels, some of them twice."""
    image, path = Image.fromarray(cat), photo_path("rocket.jpg")
    with Image.open(path) as opened, path.open("rb") as file:
        sources = [path, str(path), encode(cat, "PNG"), cat, image, image, opened, file, file, cat[:30]]
        sources += [np.full((3, 28, 42), 0.5, np.float32), np.full((3, 28, 42), 200, np.uint8)] * 2
        found = prepare(sources, threads)
        alone = [prepare([source], PictureThreads(1))[0] for source in sources]
    assert np.array_equal(found, alone)


def test_the_first_broken_picture_in_order_is_reported(threads, cat, encode):
    """Not the one that happens to fail first: the slow one before it wins."""
    slow = io.BytesIO(b"no picture, read by the calling thread")
    good = encode(np.tile(cat, (20, 20, 1)), "PNG")
    for sources, index in (
        ([cat, good[:-3000], b"", slow], 1),
        ([good, slow, b"", b"x"], 1),
        ([cat, cat, b"", slow], 2),
    ):
        with pytest.raises(ImageError, match=rf"^images\[{index}\]"):
            prepare(sources, threads)


def test_nothing_runs_any_more_when_an_error_is_raised(threads):
    """The caller may change the pictures again: what was begun has ended, what was not never begins."""
    begun, ended, both = [], [], threading.Barrier(3, timeout=WAIT_S)

    def fail_first(index):
        begun.append(index)
        if index < 3:
            both.wait()
        if index == 0:
            raise ZeroDivisionError
        threading.Event().wait(0.02)
        ended.append(index)

    with pytest.raises(ZeroDivisionError):
        threads.for_each(fail_first, [b""] * 50)
    assert sorted(begun) == [0, *sorted(ended)]
    assert len(begun) < 50


def test_after_closing_the_calling_thread_does_it(threads, cat):
    """Also for calls that come while the threads end; none is left."""
    others = set(threading.enumerate())
    before = prepare([cat, cat[:20]], threads)
    assert set(threading.enumerate()) > others
    threads.close()
    threads.close()
    assert np.array_equal(prepare([cat, cat[:20]], threads), before)
    assert set(threading.enumerate()) == others


def test_one_picture_starts_no_thread(cat):
    """Nor do several with one thread."""
    number = threading.active_count()
    prepare([cat], PictureThreads(3))
    prepare([cat, cat], PictureThreads(1))
    assert threading.active_count() == number


def test_by_default_the_cores_decide():
    """At least one thread, at most eight."""
    assert 1 <= PictureThreads().num_threads <= 8
    assert PictureThreads(20).num_threads == 20
