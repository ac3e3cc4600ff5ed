"""Tensors of other libraries in, and back out."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from pargo_export.errors import InputError
from pargo_export.runtime.arrays import is_on_cuda, to_library, to_numpy

_DEVICE = (2, 0)  # kDLCUDA


class _Foreign:
    """An array-API array that is none of NumPy's, as JAX's are."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __array_namespace__(self):
        return types.SimpleNamespace(from_dlpack=lambda array: _Foreign(np.from_dlpack(array)))


class _OnDevice:
    """An array on a GPU that can be copied as CuPy's can."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        raise BufferError("on the GPU")

    def __dlpack_device__(self):
        return _DEVICE

    def get(self):
        return self._array

    def __array_namespace__(self):
        return types.SimpleNamespace(from_dlpack=None, asarray=_OnDevice)


def test_torch_tensor_comes_back_as_torch_tensor(runtime, photos):
    """The tokens of a tensor are a tensor, equal to those of the array."""
    pixels = runtime.preprocess(photos)
    tokens = runtime.encode(torch.from_numpy(pixels))
    assert isinstance(tokens, torch.Tensor)
    assert tokens.dtype == torch.float32
    assert np.array_equal(tokens.numpy(), runtime.encode(pixels))
    tokens += 1  # writable


def test_list_of_tensors_comes_back_as_tensor(runtime, photos):
    """If all items are tensors of one library, the result is one too; else it is a NumPy array."""
    tensors = list(torch.from_numpy(runtime.preprocess(photos[:2])))
    assert isinstance(runtime.encode(tensors), torch.Tensor)
    assert isinstance(runtime.encode([*tensors, photos[2]]), np.ndarray)
    assert isinstance(runtime.encode([*tensors, _Foreign(tensors[0].numpy())]), np.ndarray)


def test_uint8_tensor_is_a_picture(runtime):
    """Channels last, as for arrays."""
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert np.array_equal(runtime.encode(torch.from_numpy(picture)).numpy(), runtime.encode(picture))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_tensors_of_other_floats_are_converted(runtime, photos, dtype):
    """The result is float32 whatever came in."""
    pixels = torch.from_numpy(runtime.preprocess(photos[:2])).to(dtype)
    tokens = runtime.encode(pixels)
    assert tokens.dtype == torch.float32
    assert np.array_equal(tokens.numpy(), runtime.encode(pixels.float().numpy()))


def test_tensor_is_viewed_without_a_copy():
    """On the CPU the memory is the tensor's own."""
    tensor = torch.zeros(2, 3)
    assert to_numpy(tensor, "images").ctypes.data == tensor.data_ptr()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, 3, 84, 84, requires_grad=True),
        torch.zeros(1, 3, 84, 84, dtype=torch.bfloat16),
        torch.zeros(84, 84).to_sparse(),
        torch.empty(1, 3, 84, 84, device="meta"),
    ],
    ids=["gradient", "bfloat16", "sparse", "meta"],
)
def test_tensor_that_numpy_cannot_view_is_refused(runtime, tensor):
    """The message says how to convert it."""
    with pytest.raises(InputError, match=r"images\[1\]: torch\.Tensor .*tensor\.detach\(\)\.float\(\)"):
        runtime.encode([np.zeros((8, 8, 3), np.uint8), tensor])


def test_array_api_library_is_found_by_the_array(runtime, photos):
    """An array with `__array_namespace__` gets its result from that namespace."""
    pixels = runtime.preprocess(photos[:2])
    tokens = runtime.encode(_Foreign(pixels))
    assert isinstance(tokens, _Foreign)
    assert np.array_equal(tokens.array, runtime.encode(pixels))


def test_array_on_a_device_is_copied_and_the_result_goes_back(runtime, photos):
    """What offers `get` is read through it, and the result goes through `asarray` of its library."""
    pixels = runtime.preprocess(photos[:2])
    tokens = runtime.encode(_OnDevice(pixels))
    assert isinstance(tokens, _OnDevice)
    assert np.array_equal(tokens.get(), runtime.encode(pixels))


def test_unreadable_device_is_refused():
    """An array on a device without a way to copy it is refused."""
    array = types.SimpleNamespace(__dlpack__=None, __dlpack_device__=lambda: _DEVICE)
    with pytest.raises(InputError, match=r"on device \(2, 0\), expected the CPU; copy it there"):
        to_numpy(array, "images")


def test_library_that_cannot_take_arrays_gets_numpy():
    """Without `from_dlpack` in the caller's library the result stays a NumPy array."""
    result = np.zeros(2, np.float32)
    assert to_library(result, types.SimpleNamespace(__dlpack__=None)) is result


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_cuda_tensor_comes_back_to_its_device(runtime, photos):
    """A tensor on a GPU is encoded, and the result lies on the same GPU."""
    pixels = torch.from_numpy(runtime.preprocess(photos[:2]))
    tokens = runtime.encode(pixels.cuda())
    assert tokens.device == pixels.cuda().device
    assert np.array_equal(tokens.cpu().numpy(), runtime.encode(pixels).numpy())


def test_arrays_on_a_gpu_are_told_from_others():
    """By what they say of themselves: no library is asked, and NumPy arrays are on the host."""
    assert is_on_cuda(_OnDevice(np.zeros(2)))
    assert not is_on_cuda(torch.zeros(2))
    assert not is_on_cuda(np.zeros(2))
    assert not is_on_cuda("picture.png")


def test_results_on_a_gpu_go_to_the_library_of_the_caller():
    """As a torch tensor to torch, and through DLPack to any other library."""
    result = torch.ones(2)
    assert to_library(result, torch.zeros(1)) is result
    foreign = to_library(result, _Foreign(np.zeros(1)))
    assert isinstance(foreign, _Foreign)
    assert np.array_equal(foreign.array, result.numpy())
