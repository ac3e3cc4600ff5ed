"""The builder's progress as one number, and how a build is stopped."""

from __future__ import annotations

import signal
import threading

import pytest

from pargo_export.engine.monitor import STEPS, BuildProgress, watch_for_interrupt


@pytest.fixture
def seen():
    """Return a list for what `advance` is called with."""
    return []


@pytest.fixture
def progress(seen):
    """Return the progress of a build that shows itself in `seen`."""
    return BuildProgress(lambda done, total: seen.append((done, total)), threading.Event())


def test_inner_phases_fill_the_step_of_the_outer_one(progress, seen):
    """Half of an inner phase in the first of two steps is a quarter of all."""
    progress.start("all", None, 2)
    progress.start("inner", "all", 4)
    progress.step("inner", 1)
    assert seen[-1] == (STEPS // 4, STEPS)
    progress.finish("inner")
    progress.step("all", 0)
    assert seen[-1] == (STEPS // 2, STEPS)
    progress.step("all", 1)
    assert seen[-1] == (STEPS, STEPS)


def test_progress_never_goes_back(progress, seen):
    """A new inner phase begins where the outer one stands; what was shown is not shown again."""
    progress.start("all", None, 2)
    progress.start("inner", "all", 2)
    progress.step("inner", 1)
    progress.finish("inner")
    progress.start("inner", "all", 2)
    progress.step("inner", 0)
    progress.step("unknown", 0)
    assert seen == sorted(set(seen))


def test_a_build_stops_at_the_step_after_it_was_cancelled(seen):
    """Also from another thread; the builder is told so once and for all."""
    cancel = threading.Event()
    progress = BuildProgress(lambda *values: seen.append(values), cancel)
    progress.start("all", None, 3)
    assert progress.step("all", 0)
    cancel.set()
    assert not progress.step("all", 1)
    assert progress.stopped


def test_what_a_callback_raises_comes_after_the_build():
    """Nothing may be raised into TensorRT: the build is stopped, and the error raised then."""

    def fail(_done, _total):
        raise ValueError("the bar broke")

    progress = BuildProgress(fail, threading.Event())
    progress.start("all", None, 2)
    assert not progress.step("all", 0)
    with pytest.raises(ValueError, match="the bar broke"):
        progress.reraise()


def test_ctrl_c_stops_the_build_and_is_raised_after_it(progress):
    """Inside the block the signal raises nothing; the old handler is back afterwards."""
    handler = signal.getsignal(signal.SIGINT)
    progress.start("all", None, 2)
    watch = watch_for_interrupt(progress)
    watch.__enter__()
    signal.raise_signal(signal.SIGINT)
    assert not progress.step("all", 0)
    with pytest.raises(KeyboardInterrupt):
        watch.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_of_somebody_else_stays(progress):
    """Who handles Ctrl-C already goes on doing so."""
    caught = []
    old = signal.signal(signal.SIGINT, lambda *_: caught.append(True))
    try:
        with watch_for_interrupt(progress):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, old)
    assert caught
    assert not progress.stopped
