"""The queue of submissions: order, deadlines, back-pressure, cancellation, closing."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import numpy as np
import pytest
from held_picture import WAIT_S, HeldPicture

from pargo_export.errors import (
    BackendError,
    ConfigError,
    DeadlineError,
    ImageError,
    InputError,
    OverloadError,
)
from pargo_export.runtime import Runtime


@pytest.fixture
def open_queue(bundle_path):
    """Return a function that opens a runtime of its own and closes it at the end."""
    opened = []

    def open_runtime(**options):
        opened.append(Runtime.open(bundle_path, threads=1, **options))
        return opened[-1]

    yield open_runtime
    for runtime in opened:
        runtime.close()


@pytest.fixture
def held(photos):
    """Return a picture that nobody reads before it is released; released at the end."""
    picture = HeldPicture(photos[0].read_bytes())
    yield picture
    picture.release()


def hold(runtime, held):
    """Keep the computing thread busy until `held` is released."""
    future = runtime.submit(held)
    assert held.entered.wait(WAIT_S)
    return future


def test_futures_have_the_tokens_of_encode(runtime, photos):
    """What is submitted is computed in order; the last one done means that all are."""
    futures = [runtime.submit(photo, batch_size=1) for photo in photos]
    futures[-1].result(WAIT_S)
    assert all(future.done() for future in futures)
    for future, photo in zip(futures, photos, strict=True):
        assert np.array_equal(future.result(), runtime.encode(photo))


def test_an_error_comes_from_its_own_future(runtime, photos):
    """A bad input fails its own future and nothing else."""
    futures = [runtime.submit(images) for images in (b"no picture", [], photos[0])]
    assert isinstance(futures[0].exception(WAIT_S), ImageError)
    assert isinstance(futures[1].exception(WAIT_S), InputError)
    assert futures[2].result(WAIT_S).shape == (1, 22, 80)


def test_higher_priorities_are_computed_first(open_queue, photos, held):
    """Among those that wait, the priority decides, then the order of submission."""
    runtime, done = open_queue(), []
    hold(runtime, held)
    futures = {}
    for name, priority in (("a", 0), ("b", 5), ("c", 5), ("d", -1), ("e", 0)):
        futures[name] = runtime.submit(photos[0], priority=priority)
        futures[name].add_done_callback(lambda _, name=name: done.append(name))
    assert runtime.num_pending == 5
    held.release()
    wait(futures.values(), WAIT_S)
    runtime.close()
    assert "".join(done) == "bcaed"
    assert runtime.num_pending == 0


def test_what_is_too_late_is_never_computed(open_queue, photos, held):
    """A deadline that passes in the queue ends in a DeadlineError, and the picture is not even read."""
    runtime, events = open_queue(), []
    runtime.subscribe(events.append)
    hold(runtime, held)
    late = HeldPicture(photos[0].read_bytes())
    future = runtime.submit(late, deadline_s=0.01)
    in_time = runtime.submit(photos[0], deadline_s=WAIT_S)
    time.sleep(0.02)
    held.release()
    with pytest.raises(DeadlineError, match=r"not begun after \d+\.\d ms, expected within 10\.0 ms"):
        future.result(WAIT_S)
    assert in_time.result(WAIT_S).shape == (1, 22, 80)
    assert late.num_reads == 0
    assert [event.kind for event in events] == ["run", "expired", "run"]
    assert events[1].queue_s >= 0.01
    assert events[1].error.startswith("DeadlineError: not begun")


def test_the_deadline_counts_from_the_call(open_queue, photos, held):
    """Waiting for room in the queue takes from it: the call returns a future that is too late."""
    runtime = open_queue(max_pending=1)
    hold(runtime, held)
    queued = runtime.submit(photos[0])
    future = runtime.submit(photos[0], deadline_s=0.02)
    assert isinstance(future.exception(0), DeadlineError)
    held.release()
    assert queued.result(WAIT_S).shape == (1, 22, 80)


def test_a_full_queue_makes_the_caller_wait(open_queue, photos, held):
    """One more than `max_pending` waits until one is begun."""
    runtime = open_queue(max_pending=2)
    hold(runtime, held)
    queued = [runtime.submit(photos[0]) for _ in range(2)]
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(runtime.submit, photos[1])
        with pytest.raises(TimeoutError):
            blocked.result(0.05)
        held.release()
        assert np.array_equal(blocked.result(WAIT_S).result(WAIT_S), runtime.encode(photos[1]))
    assert all(future.done() for future in queued)


def test_a_full_queue_refuses(open_queue, photos, held):
    """With `when_full="refuse"` the caller gets the error at once, and what waits is not touched."""
    runtime, events = open_queue(max_pending=1), []
    hold(runtime, held)
    queued = runtime.submit(photos[0], when_full="refuse")
    runtime.subscribe(events.append)
    with pytest.raises(OverloadError, match="1 submissions wait already, expected fewer than 1; submit less"):
        runtime.submit(photos[1], when_full="refuse", priority=9)
    assert [event.kind for event in events] == ["refused"]
    held.release()
    assert queued.result(WAIT_S).shape == (1, 22, 80)


def test_the_latest_replaces_the_oldest_of_the_lowest_priority(open_queue, photos, held):
    """With `when_full="replace"` nobody waits, and nothing of higher priority is lost."""
    runtime, events = open_queue(max_pending=3), []
    runtime.subscribe(events.append)
    hold(runtime, held)
    first, second = runtime.submit(photos[1]), runtime.submit(photos[2])
    important = runtime.submit(photos[3], priority=1)
    latest = runtime.submit(photos[4], when_full="replace")
    assert isinstance(first.exception(0), OverloadError)
    with pytest.raises(OverloadError, match="or one of no higher priority"):
        runtime.submit(photos[0], when_full="replace", priority=-1)
    assert [event.kind for event in events] == ["replaced", "refused"]
    held.release()
    for future, photo in ((second, photos[2]), (important, photos[3]), (latest, photos[4])):
        assert np.array_equal(future.result(WAIT_S), runtime.encode(photo))


def test_what_is_too_late_gives_way_first(open_queue, photos, held):
    """A full queue of expired submissions refuses nobody."""
    runtime = open_queue(max_pending=1)
    hold(runtime, held)
    late = runtime.submit(photos[0], deadline_s=0.005)
    time.sleep(0.01)
    future = runtime.submit(photos[1], when_full="refuse")
    assert isinstance(late.exception(0), DeadlineError)
    held.release()
    assert future.result(WAIT_S).shape == (1, 22, 80)


def test_cancelling_makes_room_at_once(open_queue, photos, held):
    """A cancelled submission leaves the queue, whoever waits for it is told, and a blocked caller goes on."""
    runtime = open_queue(max_pending=1)
    running = hold(runtime, held)
    queued = runtime.submit(photos[0])
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(runtime.submit, photos[1])
        assert queued.cancel()
        assert queued.cancel()
        assert wait([queued], WAIT_S).done == {queued}
        future = blocked.result(WAIT_S)
    assert not running.cancel()
    held.release()
    assert future.result(WAIT_S).shape == (1, 22, 80)
    assert queued.cancelled()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline_s": 0}, "deadline_s: found 0, expected more than 0"),
        ({"deadline_s": float("nan")}, "deadline_s: found nan"),
        ({"when_full": "drop"}, "when_full: found 'drop', expected one of wait, refuse, replace"),
    ],
)
def test_unknown_options_are_refused(runtime, photos, options, message):
    """They are an error of the call, not of the future."""
    with pytest.raises(ConfigError, match=message):
        runtime.submit(photos[0], **options)


@pytest.mark.parametrize(
    "options",
    [{"max_pending": 0}, {"gather_ms": -1}, {"gather_ms": float("inf")}, {"preprocess_threads": 0}],
)
def test_unusable_queue_options_are_refused(bundle_path, options):
    """Opening says which option was found with which value."""
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=f"{name}: found {value}, expected"):
        Runtime.open(bundle_path, **options)


def test_close_finishes_what_runs_and_cancels_what_waits(open_queue, photos, held):
    """A submission that waits for room is refused; `close` returns when the running one is done."""
    runtime = open_queue(max_pending=1)
    running = hold(runtime, held)
    queued = runtime.submit(photos[0])
    with ThreadPoolExecutor(2) as pool:
        blocked = pool.submit(runtime.submit, photos[1])
        closing = pool.submit(runtime.close)
        with pytest.raises(CancelledError):
            queued.result(WAIT_S)
        with pytest.raises(BackendError, match="closed"):
            blocked.result(WAIT_S)
        assert not closing.done()
        held.release()
        closing.result(WAIT_S)
    assert running.result(0).shape == (1, 22, 80)


@pytest.mark.parametrize("gather_ms", [0, 1])
def test_closing_while_sixteen_threads_submit(open_queue, photos, gather_ms):
    """Every submission ends: computed, cancelled, replaced or refused; no thread of the runtime is left."""
    before = set(threading.enumerate())
    runtime = open_queue(max_pending=4, gather_ms=gather_ms, preprocess_threads=2)
    expected = runtime.encode(photos[:2])
    futures, started = [], threading.Barrier(17)

    def submit_until_closed(number):
        options = {"when_full": ("wait", "replace", "refuse")[number % 3], "priority": number}
        started.wait(WAIT_S)
        with contextlib.suppress(BackendError):
            while True:
                with contextlib.suppress(OverloadError):
                    futures.append(runtime.submit(photos[:2], deadline_s=WAIT_S, **options))
                time.sleep(0.001)

    with ThreadPoolExecutor(16) as pool:
        threads = [pool.submit(submit_until_closed, number) for number in range(16)]
        started.wait(WAIT_S)
        while not any(future.done() and not future.exception() for future in futures):
            time.sleep(0.001)
        runtime.close()
        for thread in threads:
            thread.result(WAIT_S)
    assert set(threading.enumerate()) <= before
    assert wait(futures, WAIT_S).not_done == set()
    computed = [future.result() for future in futures if not future.cancelled() and not future.exception()]
    assert computed
    assert all(np.abs(tokens - expected).max() <= 1e-5 for tokens in computed)
    errors = {type(future.exception()) for future in futures if not future.cancelled()}
    assert errors <= {type(None), OverloadError}


def test_a_callback_may_close_the_runtime(open_queue, photos):
    """The thread that computes does not wait for itself."""
    runtime, closed = open_queue(), threading.Event()

    def close(_):
        runtime.close()
        closed.set()

    runtime.submit(photos[0]).add_done_callback(close)
    assert closed.wait(WAIT_S)
    with pytest.raises(BackendError, match="closed"):
        runtime.submit(photos[0])
