"""Keep the stack on which a thread handles signals, whatever a library does to it."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

__all__ = ["SignalStack", "keep_signal_stack"]

_DISABLED = 2  # SS_DISABLE: signals are handled on the ordinary stack


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux, see sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Give the calling thread its alternate signal stack back at the end of the block.

    OpenVINO's CPU plugin gives the thread that loads it such a stack, and unmaps it in the thread that happens to release
    the last model. If these are two threads, the first one keeps the address of nothing, and the next signal that Python
    handles there (Ctrl-C) kills the process without a word. What the library set is put aside while the thread that has
    it is known; unmapping it later is then harmless.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc = ctypes.CDLL(None)
    before, after = SignalStack(), SignalStack()
    is_known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        libc.sigaltstack(None, ctypes.byref(after))
        # One that is too small for the registers that are in use by now (AMX) is refused: then rather none.
        is_changed = is_known and after.address != before.address
        if is_changed and libc.sigaltstack(ctypes.byref(before), None) != 0:
            libc.sigaltstack(ctypes.byref(SignalStack(None, _DISABLED, 0)), None)
