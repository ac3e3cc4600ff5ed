"""Which implementation takes an input, and why a Triton kernel does not."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pargo_kernels.fusion_arguments import Quantize

__all__ = [
    "OPERATIONS",
    "Implementation",
    "UnsupportedError",
    "choose",
    "explain_unsupported",
    "is_interpreted",
    "record_fallbacks",
]

Implementation = Literal["auto", "reference", "triton"]

# Operation -> (module of the reference, module of the Triton kernel). Modules are imported when first
# needed: importing this package does not import Triton.
_MODULES = {
    "bias_gelu": ("reference_fusions", "triton_elementwise"),
    "block_diagonal_attention": ("reference", "triton_block_diagonal"),
    "fused_linear": ("reference_linear", "triton_linear"),
    "partial_global_attention": ("reference", "triton_partial_global"),
    "patchify": ("reference_fusions", "triton_patches"),
    "residual_layer_norm": ("reference_fusions", "triton_layer_norm"),
    "rotate_heads": ("reference_fusions", "triton_rotate"),
    "scale_bias": ("reference_fusions", "triton_elementwise"),
    "swiglu_layer_norm": ("reference_fusions", "triton_swiglu"),
}
OPERATIONS = tuple(_MODULES)

_FALLBACKS: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("fallbacks", default=None)

_LOWEST_CAPABILITY = (8, 0)
_LOWEST_FLOAT8_CAPABILITY = (8, 9)


class UnsupportedError(ValueError):
    """`implementation="triton"` was asked for, and no Triton kernel takes this input; the text says why."""


def explain_unsupported(operation: str, *tensors: Tensor | None, **arguments: object) -> str | None:
    """Say why no Triton kernel takes this input, or return `None` if one does.

    CPU tensors count as supported while Triton's interpreter is on (`TRITON_INTERPRET=1`), which is how the
    kernels are tested without a GPU; `implementation="auto"` uses the reference for them all the same.

    Args:
        operation: One of `OPERATIONS`.
        *tensors: What the operation takes by position.
        **arguments: What the operation takes by keyword, without `implementation`.

    Raises:
        ValueError: The operation is not known.
    """
    reason = _reason(operation, tensors, arguments)
    return reason and f"{operation}: {reason}; the reference in plain PyTorch is used instead"


def _reason(operation: str, tensors: tuple[Any, ...], arguments: Mapping[str, Any]) -> str | None:
    if operation not in _MODULES:
        raise ValueError(f"unknown operation {operation!r}; known are {', '.join(OPERATIONS)}")
    quantize = arguments.get("quantize")
    reason = _device_reason(_tensors_in((*tensors, *arguments.values())), quantize)
    if reason:
        return reason
    explain, parameters = _explainer(operation)
    return explain(*tensors, **{name: value for name, value in arguments.items() if name in parameters})


@functools.cache
def _explainer(operation: str) -> tuple[Callable[..., str | None], frozenset[str]]:
    """The kernel's own `explain_...` and the arguments that it looks at."""
    module = _module(_MODULES[operation][1])
    explain = getattr(module, f"explain_{operation}")
    return explain, frozenset(inspect.signature(explain).parameters)


def _tensors_in(values: Iterable[object]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif dataclasses.is_dataclass(value):  # Quantize, FoldedLinear, ...
            found += _tensors_in(vars(value).values())
    return found


def _device_reason(tensors: list[Tensor], quantize: Quantize | None) -> str | None:
    """Why Triton cannot run on these tensors, whatever the operation."""
    devices = sorted({str(tensor.device) for tensor in tensors})
    if len(devices) > 1:
        return f"the tensors lie on different devices ({', '.join(devices)})"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "the kernels have no gradient and an input requires one (use torch.inference_mode())"
    if not _has_triton():
        return "Triton is not installed (pip install triton)"
    if tensors[0].is_cuda:
        return _gpu_reason(tensors[0].device, quantize)
    if is_interpreted():
        return None
    return f"the tensors are on the device {devices[0]}, not on a CUDA GPU"


def _gpu_reason(device: torch.device, quantize: Quantize | None) -> str | None:
    if torch.version.hip:
        return "the GPU is driven by ROCm, and the kernels are written and checked for CUDA"
    capability = _capability(device)
    if capability < _LOWEST_CAPABILITY:
        return f"{_name(capability)}, and the kernels need at least {_LOWEST_CAPABILITY[0]}.0"
    float8 = quantize is not None and quantize.dtype.is_floating_point
    if float8 and capability < _LOWEST_FLOAT8_CAPABILITY:
        return f"{_name(capability)}, and FP8 results need at least 8.9"
    return None


def _name(capability: tuple[int, int]) -> str:
    return f"the GPU has compute capability {capability[0]}.{capability[1]}"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def is_interpreted() -> bool:
    """Whether Triton is told to run kernels in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in {"1", "true", "yes", "on", "y"}


def _module(name: str) -> Any:
    return importlib.import_module(f"pargo_kernels.{name}")


def choose(
    operation: str, implementation: Implementation, tensors: tuple[Any, ...], arguments: Mapping[str, Any]
) -> Callable[..., Any]:
    """Choose the function that computes `operation` for this input.

    Args:
        operation: One of `OPERATIONS`.
        implementation: Which kind.
        tensors: What the operation takes by position.
        arguments: What it takes by keyword.

    Raises:
        ValueError: The operation or the implementation is not known.
        UnsupportedError: `implementation="triton"` and no kernel takes the input.
    """
    if implementation not in get_args(Implementation):
        choices = ", ".join(get_args(Implementation))
        raise ValueError(f"unknown implementation {implementation!r}; choose one of {choices}")
    plain, triton = _MODULES[operation]
    if implementation == "triton":
        if reason := _reason(operation, tensors, arguments):
            raise UnsupportedError(
                f"{operation}: {reason}; implementation='auto' falls back to the reference in plain PyTorch"
            )
        return getattr(_module(triton), operation)
    if implementation == "auto" and tensors[0].is_cuda:
        reason = explain_unsupported(operation, *tensors, **arguments)
        if reason is None:
            return getattr(_module(triton), operation)
        recorded = _FALLBACKS.get()
        if recorded is not None:
            recorded.add(reason)
    return getattr(_module(plain), operation)


@contextlib.contextmanager
def record_fallbacks() -> Iterator[set[str]]:
    """Collect why operations on CUDA tensors were computed in plain PyTorch: a benchmark must not fall back unseen."""
    reasons: set[str] = set()
    token = _FALLBACKS.set(reasons)
    try:
        yield reasons
    finally:
        _FALLBACKS.reset(token)
