"""Where the Triton kernels run: the GPU of their tensors, or Triton's interpreter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
from torch import Tensor

__all__ = ["INTERPRETED", "device_guard"]

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether the kernels run in Triton's interpreter, on CPU tensors (TRITON_INTERPRET=1)."""


def device_guard(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's GPU the current one, which Triton launches on.

    Raises:
        ValueError: The tensor is not on a CUDA GPU and the kernels are not interpreted.
    """
    if tensor.is_cuda:
        return torch.cuda.device(tensor.device)
    if INTERPRETED:
        return nullcontext()
    raise ValueError(
        f"the tensors are on the device {tensor.device}, expected a CUDA GPU; move them there, use the reference, "
        "or set TRITON_INTERPRET=1 before the kernels are imported"
    )
