"""The builder's progress, and how to stop it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from pargo_export.trt import TensorRT

if TYPE_CHECKING:
    from tensorrt import IProgressMonitor

__all__ = ["STEPS", "BuildProgress", "make_monitor", "watch_for_interrupt"]

STEPS = 1000  # of a whole build, as `advance` counts them


@dataclass
class _Phase:
    parent: str | None
    num_steps: int
    done: int = 0


class BuildProgress:
    """Nested phases of a build as one number, and the wish to stop.

    Phases come from several threads. Nothing may be raised into TensorRT, so what goes wrong in a callback stops the
    build and is raised after it, by `reraise`.

    Attributes:
        stopped: Whether the build was told to stop.
    """

    def __init__(self, advance: Callable[[int, int], None], cancel: threading.Event) -> None:
        self.stopped = False
        self._advance = advance
        self._cancel = cancel
        self._phases: dict[str, _Phase] = {}
        self._shown = -1
        self._asked_to_stop = False
        self._error: BaseException | None = None
        self._lock = threading.RLock()

    def start(self, name: str, parent: str | None, num_steps: int) -> None:
        """A phase begins, inside the current step of its parent."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, num_steps))

    def finish(self, name: str) -> None:
        """A phase ends, also one that did not come to its last step."""
        with self._lock:
            self._phases.pop(name, None)

    def stop(self) -> None:
        """Ask for the end of the build at its next step."""
        self._asked_to_stop = True

    def step(self, name: str, step: int) -> bool:
        """A step is done; return whether to go on."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = max(phase.done, step + 1)
            self._show()
            self.stopped |= self._asked_to_stop or self._cancel.is_set() or self._error is not None
            return not self.stopped

    def reraise(self) -> None:
        """Raise what a callback raised."""
        if self._error is not None:
            raise self._error

    def _show(self) -> None:
        roots = [name for name, phase in self._phases.items() if phase.parent is None]
        done = int(STEPS * max((self._fraction(name) for name in roots), default=0.0))
        if done <= self._shown or self._error is not None:
            return
        self._shown = done
        try:
            self._advance(done, STEPS)
        except BaseException as error:  # noqa: BLE001 - raised again when TensorRT has returned
            self._error = error

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        inner = [self._fraction(child) for child, item in self._phases.items() if item.parent == name]
        return min(1.0, (phase.done + max(inner, default=0.0)) / phase.num_steps)


def make_monitor(tensorrt: TensorRT, progress: BuildProgress) -> IProgressMonitor:
    """Return an object of the module's `IProgressMonitor`; keep it as long as the builder's configuration."""
    interface = tensorrt.module.IProgressMonitor

    class Monitor(interface):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            interface.__init__(self)  # the bindings want it called by name

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

    return Monitor()


@contextlib.contextmanager
def watch_for_interrupt(progress: BuildProgress) -> Iterator[None]:
    """Make Ctrl-C stop the build at its next step, and raise `KeyboardInterrupt` after it.

    Python would raise it inside a callback, that is inside TensorRT, which ends the process. Elsewhere than in the main
    thread, and where somebody else handles the signal, nothing is changed.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    interrupted = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        progress.stop()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if interrupted:
            raise KeyboardInterrupt
