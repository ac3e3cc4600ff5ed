"""Keep Pillow's warnings out of the caller's sight while a picture is read."""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

__all__ = ["pillow_silenced"]


class _PillowSilence(AbstractContextManager[None]):
    """Ignore warnings raised inside Pillow for as long as any thread is reading a picture.

    Pillow warns about what does not concern the pixels (damaged EXIF, palette transparency) and about
    sizes that this package refuses by itself. The filters of `warnings` belong to the process and
    `catch_warnings` restores the wrong ones when threads overlap: so the first reader changes them,
    the last one restores them, and no picture waits for another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_readers = 0
        self._filters = ExitStack()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_readers)

    def __enter__(self) -> None:
        with self._lock:
            if self._num_readers == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._num_readers += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._num_readers -= 1
            if self._num_readers == 0:
                self._filters.close()

    def _forget_readers(self) -> None:
        """Begin anew in a forked child: the readers, and whoever held the lock, were threads of the parent."""
        self._lock = threading.Lock()
        self._num_readers = 0
        self._filters.close()


pillow_silenced = _PillowSilence()
