"""How much memory kernels may ask for."""

from __future__ import annotations

import pytest

from pargo_export.engine import workspace
from pargo_export.engine.workspace import find_free_memory, find_workspace

GIB = 1 << 30


@pytest.mark.parametrize(
    ("shared", "free", "expected"),
    [
        (False, 20 * GIB, 19 * GIB),
        (False, GIB // 2, GIB // 4),
        (True, 30 * GIB, 15 * GIB),
        (True, 5 * GIB, 2 * GIB),
        (True, 2 * GIB, GIB // 4),
        (True, None, None),
    ],
)
def test_a_margin_is_left(shared, free, expected):
    """1 GiB on a GPU of its own; on a Jetson half, and 3 GiB for the weights in host memory."""
    assert find_workspace(shared=shared, free_bytes=free) == expected


def test_shared_memory_is_what_the_kernel_can_give(tmp_path):
    """On a Jetson caches count as free."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemFree: 3 kB\nMemAvailable:  50 kB\n")
    assert find_free_memory(shared=True, meminfo=meminfo) == 50 * 1024
    meminfo.write_text("MemTotal: 100 kB\n")
    assert find_free_memory(shared=True, meminfo=meminfo) is None
    assert find_free_memory(shared=True, meminfo=tmp_path / "none") is None


class Driver:
    """As much of the CUDA driver as is asked; `refuse` names a function that fails."""

    def __init__(self, refuse=""):
        self.refuse, self.calls = refuse, []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name == self.refuse:
                return 100
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 7 * GIB, 8 * GIB
            return 0

        return call


def test_a_gpu_of_its_own_is_asked_within_its_context(monkeypatch):
    """The context is left and released again."""
    driver = Driver()
    monkeypatch.setattr(workspace, "load_driver", lambda: driver)
    assert find_free_memory(shared=False) == 7 * GIB
    assert driver.calls[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]


@pytest.mark.parametrize(
    "function",
    ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"],
)
def test_a_driver_that_fails_gives_no_answer(monkeypatch, function):
    """Then TensorRT's own limit stays, and what was taken is given back."""
    driver = Driver(function)
    monkeypatch.setattr(workspace, "load_driver", lambda: driver)
    assert find_free_memory(shared=False) is None
    assert ("cuDevicePrimaryCtxRelease_v2" in driver.calls) == (
        function in {"cuCtxPushCurrent_v2", "cuMemGetInfo_v2"}
    )


def test_without_a_driver_there_is_no_answer(monkeypatch):
    """No driver, no GPU."""

    def missing():
        raise OSError("libcuda.so.1")

    monkeypatch.setattr(workspace, "load_driver", missing)
    assert find_free_memory(shared=False) is None
