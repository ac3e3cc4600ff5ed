"""The baselines and our programs of one checkpoint, on the GPU: functions from a batch to its result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.tower import TowerCore
from pargo_export.preprocessing import PreprocessSpec, preprocess
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.attention_forms import AttentionForm
from pargo_export.rewrite.registry import REWRITES, select_rewrites
from pargo_export.rewrite.rewrite import tower_blocks
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.program import Program
from pargo_export.runtime.cuda.weights import QuantizedWeight, Weights

__all__ = ["Component", "build_module", "component_of", "load_photographs", "observe", "program"]

Component = Literal["all", "encoder", "projector"]
Precision = Literal["float16", "bfloat16", "fp8", "int8"]


class FlashCore(nn.Module):
    """PyTorch's fused attention in place of the written-out one."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, H, N, D]` each -> `[B, H, N, D]`."""
        return functional.scaled_dot_product_attention(query, key, value, scale=self.scale)


def build_module(
    model: VisualFrontEnd, names: tuple[str, ...], form: AttentionForm, dtype: torch.dtype = torch.float16
) -> VisualFrontEnd:
    """Return the module after the named rewrites, with PyTorch's fused attention in the tower."""
    rewrites = [rewrite for name, rewrite in REWRITES.items() if name in names]
    deploy, _ = deploy_module(model, rewrites, form, dtype)
    for block in tower_blocks(deploy):
        if isinstance(block.attention.core, TowerCore):
            block.attention.core = FlashCore(block.attention.core.scale)
    return deploy


def component_of(module: VisualFrontEnd, component: Component) -> Callable[[Tensor], Tensor]:
    """Return the part of a module that is to be run."""
    if component == "encoder":
        return module.image_features
    if component == "projector":
        return lambda features: module.projector(features)[1]
    return module


def load_photographs(folder: Path, count: int, spec: PreprocessSpec) -> Tensor:
    """Return photographs, normalised, float32 `[count, 3, H, W]` on the GPU; fewer files are repeated."""
    files = sorted(folder.iterdir())
    step = max(len(files) // count, 1)
    names = [files[(index * step) % len(files)] for index in range(count)]
    return torch.from_numpy(preprocess(names, spec)).cuda()


@torch.no_grad()
def observe(model: VisualFrontEnd, images: Tensor) -> dict[str, float]:
    """Return the largest absolute input of every linear of the deploy module, over `images` one by one."""
    deploy, _ = deploy_module(model, select_rewrites("cuda"), "structured")
    largest: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for path, module in deploy.named_modules():
            if isinstance(module, nn.Linear):
                stack.callback(module.register_forward_pre_hook(_observer(largest, path)).remove)
        for image in images:
            deploy(image[None])
    return largest


def _observer(largest: dict[str, float], path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        largest[path] = max(largest.get(path, 0.0), float(inputs[0].abs().max()))

    return hook


@torch.no_grad()
def program(
    model: VisualFrontEnd,
    preprocessing: PreprocessSpec,
    precision: Precision,
    *,
    component: Component = "all",
    ranges: Mapping[str, float] | None = None,
    options: ProgramOptions | None = None,
) -> Program:
    """Return our program of a checkpoint, as the backend builds it from a bundle.

    Args:
        model: The reference, float32, on the GPU.
        preprocessing: How pixels are normalised.
        precision: Of the products; `fp8` and `int8` keep float16 around them.
        component: What to compute.
        ranges: Largest absolute activations, from `observe`; for 8-bit products.
        options: Ways to compute.
    """
    rewrites = select_rewrites("cuda", component=component)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16
    deploy, _ = deploy_module(model, rewrites, "fused", dtype)
    tensors = dict(_named_tensors(deploy))
    quantized: dict[str, QuantizedWeight] = {}
    if precision in ("fp8", "int8"):
        assert ranges is not None  # noqa: S101 - of this script's own making
        for path, module in deploy.named_modules():
            if isinstance(module, nn.Linear) and path in ranges:
                quantized[path] = _quantize(tensors.pop(f"{path}.weight"), ranges[path], precision)
    spec = ProgramSpec(component, "float", dtype, [rewrite.name for rewrite in rewrites], preprocessing)
    return Program(Weights(tensors, quantized, device="cuda"), model.config, spec, options)


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _quantize(weight: Tensor, largest: float, precision: Any) -> QuantizedWeight:
    limit, dtype = (448.0, torch.float8_e4m3fn) if precision == "fp8" else (127.0, torch.int8)
    scales = (weight.float().abs().amax(dim=1) / limit).clamp_min(1e-12)
    values = weight.float() / scales[:, None]
    values = values if dtype == torch.float8_e4m3fn else values.round()
    return QuantizedWeight(values.to(dtype), scales, torch.tensor(largest / limit))
