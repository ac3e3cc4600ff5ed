"""Launching a compiled kernel through the CUDA driver: what the driver is told."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
from fake_cuda_driver import FakeCudaDriver

from pargo_kernels import cubin_launcher
from pargo_kernels.cubin_launcher import CompiledKernel, CudaDriverError, launch, load, pack_arguments

KERNEL = CompiledKernel("twice", b"cubin", ("*fp16", "i32", "fp32", "*fp32"), num_warps=4, shared_bytes=1024)
SIZES = [8, 4, 4, 8, 8, 8]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeCudaDriver:
    """A driver without a GPU, and nothing loaded."""
    fake = FakeCudaDriver(SIZES)
    monkeypatch.setattr(cubin_launcher, "_driver", lambda: fake)
    monkeypatch.setattr(cubin_launcher, "_functions", {})
    return fake


def test_arguments_lie_at_the_addresses_in_order(driver: FakeCudaDriver) -> None:
    """Pointers, integers and floats arrive as the kernel reads them, then two null pointers."""
    launch(KERNEL, (5, 3), (0x7F00_0000_1000, -7, 1.0, 0x10), stream=99)
    values = driver.launches[0]["values"]
    one = int.from_bytes(bytes(ctypes.c_float(1.0)), "little")
    assert values == [0x7F00_0000_1000, -7, one, 0x10, 0, 0]


def test_geometry_comes_from_grid_and_warps(driver: FakeCudaDriver) -> None:
    """Missing axes of the grid are 1, a warp is 32 threads."""
    launch(KERNEL, (5, 3), (16, 1, 0.0, 32), stream=99)
    told = driver.launches[0]
    assert (told["grid"], told["block"]) == ((5, 3, 1), (128, 1, 1))
    assert (told["shared"], told["stream"]) == (1024, 99)


def test_kernel_is_loaded_once_in_each_context(driver: FakeCudaDriver) -> None:
    """Two launches in one context load one module, another context loads its own."""
    for context in (77, 77, 78):
        driver.context = context
        launch(KERNEL, (1,), (16, 1, 0.0, 32), stream=0)
    assert len(driver.loaded) == 2
    functions = [told["function"] for told in driver.launches]
    assert functions[0] == functions[1] != functions[2]


@pytest.mark.parametrize(("shared", "asked"), [(48 * 1024, []), (48 * 1024 + 16, [48 * 1024 + 16])])
def test_large_shared_memory_is_asked_for(driver: FakeCudaDriver, shared: int, asked: list[int]) -> None:
    """Above 48 KiB a kernel has to opt in, below it does not."""
    load(replace(KERNEL, shared_bytes=shared))
    assert driver.shared_limits == asked


def test_number_that_does_not_fit_is_refused() -> None:
    """A stride beyond 32 bits is an error, not another stride."""
    with pytest.raises(ValueError, match="4294967296 does not fit the parameter's type i32"):
        pack_arguments(KERNEL, (16, 2**32, 0.0, 32))


def test_missing_argument_is_refused() -> None:
    """Scratch pointers are not passed by the caller, everything else is."""
    with pytest.raises(ValueError, match="3 arguments for a kernel with 4 parameters"):
        pack_arguments(KERNEL, (16, 1, 0.0))


def test_unknown_type_is_refused() -> None:
    """A type without a known size in memory is named."""
    with pytest.raises(ValueError, match="the type 'nvTmaDesc'"):
        pack_arguments(replace(KERNEL, parameters=("nvTmaDesc",)), (1,))


def test_no_scratch_pointers_where_the_kernel_has_none() -> None:
    """A kernel without them gets none."""
    assert len(pack_arguments(replace(KERNEL, scratch_pointers=0), (16, 1, 0.0, 32))) == 4


def test_failure_is_told_in_the_words_of_the_driver(driver: FakeCudaDriver) -> None:
    """A cubin for another GPU is refused with function, number, name and text."""
    driver.refuse = "cuModuleLoadData"
    with pytest.raises(
        CudaDriverError, match=r"cuModuleLoadData failed with 209 .*NO_BINARY_FOR_GPU no kernel"
    ):
        load(KERNEL)


def test_no_context_is_refused(driver: FakeCudaDriver) -> None:
    """Without a context there is nothing to load into."""
    driver.context = 0
    with pytest.raises(CudaDriverError, match="no CUDA context is current"):
        load(KERNEL)


def test_machine_without_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver's library is missing, the error says so."""

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    cubin_launcher._driver.cache_clear()
    with pytest.raises(CudaDriverError, match=r"no CUDA driver \(libcuda.so.1"):
        cubin_launcher.current_compute_capability()
