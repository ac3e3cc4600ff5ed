"""The stack on which a thread handles signals."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

import pytest

from pargo_export.runtime.backends.signal_stack import SignalStack, keep_signal_stack

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone")

SIZE = 1 << 16

# Opened here, closed in another thread; then Ctrl-C.
PROGRAM = """
import signal, sys, threading
from pargo_export.runtime import Runtime

kept = [Runtime.open(sys.argv[1], backend=sys.argv[2], variant="fp32", threads=1)]

def close():
    kept.pop().close()

closing = threading.Thread(target=close)
closing.start()
closing.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def current():
    """Return the address of this thread's alternate stack, `None` if it has none."""
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address if stack.flags != 2 else None


def replace(memory):
    """Set another stack, as a library does."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    stack = SignalStack(address, 0, SIZE)
    assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
    return address


def replace_and_fail(memory):
    """Set another stack, then raise."""
    with keep_signal_stack():
        replace(memory)
        raise ZeroDivisionError


@pytest.mark.parametrize("backend", ["openvino", "openvino-bf16"])
def test_ctrl_c_after_a_runtime_was_closed_in_another_thread(bundle_path, backend):
    """The signal is handled; it must not find the stack that OpenVINO took away with the last model."""
    openvino = pytest.importorskip("openvino")
    if backend == "openvino-bf16":
        with keep_signal_stack():
            capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in capabilities:
            pytest.skip("this CPU has no bfloat16 products")
    command = [sys.executable, "-c", PROGRAM, str(bundle_path), backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_a_stack_comes_back_also_after_an_error():
    """Whoever had one has it again."""
    memories = [mmap.mmap(-1, SIZE), mmap.mmap(-1, SIZE)]
    with keep_signal_stack():  # the test's own mess
        mine = replace(memories[0])
        with pytest.raises(ZeroDivisionError):
            replace_and_fail(memories[1])
        assert current() == mine


def test_no_stack_is_no_stack_again():
    """Whoever had none has none."""
    memory = mmap.mmap(-1, SIZE)
    with keep_signal_stack():
        none = SignalStack(None, 2, 0)
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(none), None) == 0
        with keep_signal_stack():
            replace(memory)
        assert current() is None


def test_an_unchanged_stack_is_left_alone():
    """Nothing happens to it."""
    before = current()
    with keep_signal_stack():
        pass
    assert current() == before
