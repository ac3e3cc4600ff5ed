"""What a runtime tells those who watch it."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest

from pargo_export.errors import InputError
from pargo_export.runtime.events import RunEvent


@pytest.fixture
def events(runtime):
    """Return the list that every event of the shared runtime is appended to, as long as the test runs."""
    found = []
    unsubscribe = runtime.subscribe(found.append)
    yield found
    unsubscribe()


def test_each_call_is_one_event(runtime, events, photos):
    """However many runs a call takes; its stages fit into the time that it took."""
    begin = time.perf_counter()
    runtime.encode(photos, batch_size=2)
    took_s = time.perf_counter() - begin
    runtime.encode_into(photos[:1], np.empty((1, 22, 80), np.float32))
    runtime.submit(photos[0]).result(60)
    assert [(event.kind, event.num_images, event.error) for event in events] == [
        ("run", 5, ""),
        ("run", 1, ""),
        ("run", 1, ""),
    ]
    assert 0 < events[0].preprocess_s + events[0].run_s <= took_s
    assert events[0].run_s > 0 < events[0].preprocess_s
    assert [event.queue_s > 0 for event in events] == [False, False, True]


def test_a_failed_call_is_an_event(runtime, events, photos):
    """With the class of its error and the message."""
    with pytest.raises(InputError):
        runtime.encode(photos, batch_size=99)
    assert [(event.kind, event.num_images) for event in events] == [("failed", 0)]
    assert events[0].error.startswith("InputError: batch_size: found 99")


def test_a_listener_hears_nothing_after_it_unsubscribed(runtime, photos):
    """The others go on; one that subscribed twice hears everything twice, until both subscriptions end."""
    heard = []
    ends = [runtime.subscribe(heard.append) for _ in range(2)]
    runtime.encode(photos[0])
    assert len(heard) == 2
    ends[0]()
    ends[0]()
    runtime.encode(photos[0])
    assert len(heard) == 3
    ends[1]()
    runtime.encode(photos[0])
    assert len(heard) == 3
    assert all(isinstance(event, RunEvent) for event in heard)


def test_the_error_of_a_listener_is_logged_and_changes_nothing(runtime, events, photos, caplog):
    """The caller has the tokens, and the listeners after it are called."""

    def fail(_):
        raise ZeroDivisionError

    unsubscribe = runtime.subscribe(fail)
    later = []
    also = runtime.subscribe(later.append)
    with caplog.at_level(logging.ERROR, "pargo_export.runtime.events"):
        assert runtime.encode(photos[0]).shape == (1, 22, 80)
    unsubscribe()
    also()
    assert len(events) == len(later) == 1
    assert "a listener of runtime events failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
