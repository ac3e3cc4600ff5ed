"""The floor by library calls: the best GEMM and the best attention for each shape of the model, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from gpu_timing import capture, time_interleaved
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pargo_export.config import ModelConfig

__all__ = ["measure_floor"]

_REPEATS = 12  # products in one graph, each with weights of its own: a layer finds its weights in memory, not in cache
_LIBRARIES = ("cublas", "cublaslt")
_ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION)


def measure_floor(config: ModelConfig, batch: int, iterations: int) -> dict[str, Any]:
    """Time every product of the model alone and add them up, milliseconds.

    The class token's row in the last block, the projector's attention and everything elementwise cost nothing here.

    Returns:
        `tower_ms`, `projector_ms`, and `parts`: name, calls and microseconds a call.
    """
    parts: list[dict[str, Any]] = []
    for stage, name, calls, rows, columns, depth in _products(config, batch):
        best = min(_time_products(rows, columns, depth, iterations))
        parts.append(
            {
                "stage": stage,
                "name": name,
                "calls": calls,
                "shape": [rows, columns, depth],
                "us": round(best * 1000, 3),
            }
        )
    vision = config.vision
    tokens = (batch, vision.num_heads, 1 + vision.num_patches, vision.head_width)
    best = min(_time_attention(tokens, iterations))
    parts.append(
        {
            "stage": "tower",
            "name": "attention",
            "calls": vision.num_layers,
            "shape": list(tokens),
            "us": round(best * 1000, 3),
        }
    )
    sums = {
        f"{stage}_ms": round(
            sum(part["us"] * part["calls"] for part in parts if part["stage"] == stage) / 1000, 4
        )
        for stage in ("tower", "projector")
    }
    return {**sums, "parts": parts}


def _products(config: ModelConfig, batch: int) -> Iterator[tuple[str, str, int, int, int, int]]:
    """Stage, name, calls, rows, columns, depth."""
    vision, projector = config.vision, config.projector
    patches = batch * config.num_tiles * vision.num_patches
    tokens = batch * config.num_tiles * (1 + vision.num_patches)
    width, hidden = vision.width, -(-vision.hidden_width // 64) * 64
    patch = -(-vision.in_channels * vision.patch_size**2 // 16) * 16
    yield "tower", "patches", 1, patches, width, patch
    yield "tower", "qkv", vision.num_layers, tokens, 3 * width, width
    yield "tower", "output", vision.num_layers, tokens, width, width
    yield "tower", "gate_up", vision.num_layers, tokens, 2 * hidden, width
    yield "tower", "down", vision.num_layers, tokens, width, hidden
    queries, inner, layers = (
        batch * projector.num_query_tokens,
        projector.hidden_size,
        projector.num_layers,
    )
    crosses = sum(projector.has_cross_attention(layer) for layer in range(layers))
    yield "projector", "context", 1, patches, 2 * crosses * inner, projector.encoder_width
    yield "projector", "qkv", layers - 1, queries, 3 * inner, inner
    yield "projector", "outputs and queries", layers - 1 + 2 * crosses - 1, queries, inner, inner
    yield "projector", "up", layers, queries, projector.intermediate_size, inner
    yield "projector", "down", layers, queries, inner, projector.intermediate_size
    yield "projector", "llm", 1, queries, projector.llm_hidden_size, inner


def _time_products(rows: int, columns: int, depth: int, iterations: int) -> list[float]:
    """Milliseconds of one product, by library and by layout of the weight."""
    x = torch.randn(rows, depth, device="cuda", dtype=torch.float16)
    bias = torch.randn(columns, device="cuda", dtype=torch.float16)
    weights = [
        torch.randn(columns, depth, device="cuda", dtype=torch.float16) * 0.02 for _ in range(_REPEATS)
    ]
    turned = [weight.t().contiguous() for weight in weights]
    out = torch.empty(rows, columns, device="cuda", dtype=torch.float16)

    def plain(x: Tensor) -> Tensor:
        for weight in weights:
            torch.mm(x, weight.t(), out=out)
        return out

    def other_layout(x: Tensor) -> Tensor:
        for weight in turned:
            torch.mm(x, weight, out=out)
        return out

    def with_bias(x: Tensor) -> Tensor:
        for weight in weights:
            torch.addmm(bias, x, weight.t(), out=out)
        return out

    times = []
    before = torch.backends.cuda.preferred_blas_library()
    for library in _LIBRARIES:
        torch.backends.cuda.preferred_blas_library(library)
        times += _time_all((plain, other_layout, with_bias), x, iterations)
    torch.backends.cuda.preferred_blas_library(before)
    return times


def _time_attention(shape: tuple[int, ...], iterations: int) -> list[float]:
    batch, heads, tokens, width = shape
    qkv = torch.randn(batch, tokens, 3 * heads * width, device="cuda", dtype=torch.float16)

    def attend(qkv: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in qkv.chunk(3, -1))
        for _ in range(_REPEATS):
            result = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return result

    times = []
    for backend in _ATTENTION:
        with sdpa_kernel(backend):
            times += _time_all((attend,), qkv, iterations)
    return times


def _time_all(
    functions: tuple[Callable[[Tensor], Tensor], ...], x: Tensor, iterations: int
) -> Iterator[float]:
    for function in functions:
        times = time_interleaved({"it": capture(function, x)}, iterations)
        yield times["it"]["median_ms"] / _REPEATS
