"""A runtime, and one of every way in which a request can end."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pargo_export.errors import DeadlineError, ImageError, OverloadError
from pargo_export.runtime import Runtime

WAIT_S = 60  # far more than anything here takes; reached only by a deadlock
PICTURE = np.full((30, 40, 3), 90, np.uint8)


@pytest.fixture
def runtime(exported_bundle) -> Runtime:
    """Return a runtime in which one submission may wait."""
    with Runtime.open(exported_bundle, variant="fp32", threads=1, max_pending=1) as opened:
        yield opened


@pytest.fixture
def requests_by_outcome() -> dict[str, int]:
    """Return how many requests of `play` end in which way."""
    return {"completed": 2, "failed": 1, "replaced": 1, "refused": 1, "expired": 1}


@pytest.fixture
def images_by_outcome() -> dict[str, int]:
    """Return how many images they have; of those that are not computed nobody looks at them."""
    return {"completed": 3, "failed": 1, "replaced": 0, "refused": 0, "expired": 0}


@pytest.fixture
def play():
    """Return a function that makes these requests, and calls another one at a moment when one waits."""

    def make_requests(runtime: Runtime, while_one_waits=lambda: None) -> None:
        runtime.encode([PICTURE, PICTURE])
        with pytest.raises(ImageError):
            runtime.encode(b"no picture")
        go, entered = threading.Event(), threading.Event()

        def hold(_) -> None:
            if not entered.is_set():  # the first event is told by the thread that computes, and holds it up
                entered.set()
                go.wait(WAIT_S)

        release = runtime.subscribe(hold)
        first = runtime.submit(PICTURE)
        assert entered.wait(WAIT_S)
        try:
            replaced = runtime.submit(PICTURE)
            with pytest.raises(OverloadError):
                runtime.submit(PICTURE, when_full="refuse")
            while_one_waits()
            expired = runtime.submit(PICTURE, when_full="replace", deadline_s=0.02)
            time.sleep(0.03)
        finally:
            go.set()
        assert first.result(WAIT_S).shape == (1, 22, 80)
        assert isinstance(replaced.exception(WAIT_S), OverloadError)
        assert isinstance(expired.exception(WAIT_S), DeadlineError)
        release()

    return make_requests
