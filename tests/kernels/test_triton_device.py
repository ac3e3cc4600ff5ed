"""Every wrapper launches on the GPU of its tensors, not on the one that happens to be current."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
import torch

from pargo_kernels import (
    triton_block_diagonal,
    triton_device,
    triton_elementwise,
    triton_layer_norm,
    triton_linear,
    triton_partial_global,
    triton_patches,
    triton_rotate,
    triton_swiglu,
)
from pargo_kernels.reference_linear import fold_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def zeros(*shape):
    """Return a half-precision tensor that a kernel takes."""
    return torch.zeros(shape, device=DEVICE, dtype=torch.float16)


ATTENTION = {"num_heads": 1, "num_partial": 2, "num_global": 2, "scale": 1.0}
PATCHES = {"image_size": 2, "patch_size": 1, "padded_width": 4, "dtype": torch.float16}
CALLS = {
    "layer-norm": (
        triton_layer_norm,
        "residual_layer_norm_kernel",
        lambda x: triton_layer_norm.residual_layer_norm(x, None, None, None, eps=1e-6),
    ),
    "swiglu": (
        triton_swiglu,
        "swiglu_layer_norm_kernel",
        lambda x: triton_swiglu.swiglu_layer_norm(x, zeros(8), zeros(8), width=8, eps=1e-6),
    ),
    "rotate": (
        triton_rotate,
        "rotate_heads_kernel",
        lambda x: triton_rotate.rotate_heads(x[..., :12], zeros(4, 4), zeros(4, 4), num_heads=1),
    ),
    "gelu": (triton_elementwise, "elementwise_kernel", triton_elementwise.bias_gelu),
    "scale": (triton_elementwise, "elementwise_kernel", triton_elementwise.scale_bias),
    "patches": (
        triton_patches,
        "patchify_kernel",
        lambda x: triton_patches.patchify(x.view(1, 4, 4, 4)[:, :3], **PATCHES),
    ),
    "linear": (
        triton_linear,
        "linear_kernel",
        lambda x: triton_linear.fused_linear(x, fold_norm(zeros(8, 16), None)),
    ),
    "partial-global": (
        triton_partial_global,
        "partial_global_kernel",
        lambda x: triton_partial_global.partial_global_attention(x, x, x, **ATTENTION),
    ),
    "block-diagonal": (
        triton_block_diagonal,
        "block_diagonal_kernel",
        lambda x: triton_block_diagonal.block_diagonal_attention(x, x, x, **ATTENTION),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_kernels_are_launched_under_the_guard(name, monkeypatch):
    """The kernel runs once, while the device of the tensor that the operation reads is the current one."""
    module, kernel, call = CALLS[name]
    events = []

    @contextmanager
    def guard(tensor):
        events.append(("enter", tensor.device.type))
        yield
        events.append("exit")

    class Kernel:
        def __getitem__(self, grid):
            return lambda *_, **__: events.append("launch")

    monkeypatch.setattr(module, "device_guard", guard)
    monkeypatch.setattr(module, kernel, Kernel())
    call(zeros(1, 4, 16))
    assert events == [("enter", DEVICE), "launch", "exit"]


def test_cpu_tensors_need_the_interpreter(monkeypatch):
    """Compiled kernels have no CPU to run on; the refusal names three ways out."""
    tensor = torch.zeros(1)
    monkeypatch.setattr(triton_device, "INTERPRETED", True)
    assert isinstance(triton_device.device_guard(tensor), nullcontext)
    monkeypatch.setattr(triton_device, "INTERPRETED", False)
    with pytest.raises(ValueError, match=r"on the device cpu, expected a CUDA GPU; .*TRITON_INTERPRET=1"):
        triton_device.device_guard(tensor)
