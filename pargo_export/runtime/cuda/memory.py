"""How much GPU memory a variant needs, and what to say when there is less.

The estimate, in bytes, with h = 2 for a half and r = 4 for the raw product of an INT8 GEMM, else 2:

    weights      the files of the variant
    one tile     (1 + n) (3 h C + max(r 3 C + h 2 C, r 2 F + h F))        stream, norms; attention or SwiGLU
    projector    N (h C + r 2 L c) + Q (6 h c + (r + h) f) + h Q C_llm     keys and values, a query layer, the tokens
    buffers      5 bytes a pixel value in, 4 a value out                   uint8 and float32 images, float32 tokens
    allowance    256 MiB                                                   CUDA, cuBLAS workspaces, graphs, copies

The copies are of weights in a form of their own: those of the query layers for few rows, which are there beside those
for many (about 30 MiB of the official model), and 8-bit ones of the query layers widened to halves (about 20 MiB more).

with n patches of a tile, F the padded hidden width, L cross-attentions, c and f the widths of a query layer. The
largest batch decides: the graphs of smaller ones reuse its memory. Every stream has activations and buffers of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pargo_export.bundle import Manifest, Variant
from pargo_export.config import ModelConfig, ProjectorConfig, VisionConfig

__all__ = ["ALLOWANCE_BYTES", "MemoryNeed", "estimate_need"]

ALLOWANCE_BYTES = 256 * 2**20
_HALF_BYTES = 2
_INT32_BYTES = 4
_HIDDEN_ALIGNMENT = 64  # of the rewrite pad-swiglu


@dataclass(frozen=True)
class MemoryNeed:
    """The estimate for one variant.

    Attributes:
        weights_bytes: Its weights.
        image_bytes: Activations and buffers of one image on one stream.
        streams: Batches in flight at once.
    """

    weights_bytes: int
    image_bytes: int
    streams: int = 1

    def total_bytes(self, batch: int) -> int:
        """Bytes for batches of up to `batch` images."""
        return self.weights_bytes + ALLOWANCE_BYTES + batch * self.streams * self.image_bytes

    def largest_batch(self, free_bytes: int) -> int:
        """Largest batch that fits into `free_bytes`; 0 if none does."""
        left = free_bytes - self.weights_bytes - ALLOWANCE_BYTES
        return max(0, left // (self.streams * self.image_bytes))

    def explain(self, variant: str, batch: int, free_bytes: int) -> str:
        """Return what was needed, what is free, and what to do."""
        fits = self.largest_batch(free_bytes)
        streams = f" on each of {self.streams} streams" if self.streams > 1 else ""
        advice = (
            f"the largest batch that fits is {fits}: make the variant again with --max-batch {fits}"
            if fits
            else "not even one image fits: free memory of other processes, or use a CPU backend"
        )
        return (
            f"GPU memory ran out: variant {variant!r} needs about {_mib(self.total_bytes(batch))} "
            f"({_mib(self.weights_bytes)} weights, {batch} images of {_mib(self.image_bytes)}{streams}, "
            f"{_mib(ALLOWANCE_BYTES)} allowance), {_mib(free_bytes)} are free; {advice}"
        )


def estimate_need(manifest: Manifest, variant: Variant, streams: int = 1) -> MemoryNeed:
    """Estimate what a variant needs, by the formula of this module."""
    config = manifest.model
    raw = _INT32_BYTES if variant.precision == "int8" else _HALF_BYTES
    image = _buffer_bytes(variant)
    if variant.component != "projector" and isinstance(
        config.vision, VisionConfig
    ):  # the program runs no other
        image += config.num_tiles * _tile_bytes(config.vision, raw)
    if variant.component != "encoder":
        image += _projector_bytes(config, raw)
    weights = sum(manifest.files[name].size_bytes for name in manifest.files_of(variant.graph))
    return MemoryNeed(weights, image, streams)


def _tile_bytes(vision: VisionConfig, raw: int) -> int:
    width, half = vision.width, _HALF_BYTES
    hidden = -(-vision.hidden_width // _HIDDEN_ALIGNMENT) * _HIDDEN_ALIGNMENT
    attention = raw * 3 * width + half * 2 * width
    swiglu = raw * 2 * hidden + half * hidden
    return (1 + vision.num_patches) * (half * 3 * width + max(attention, swiglu))


def _projector_bytes(config: ModelConfig, raw: int) -> int:
    projector, half = config.projector, _HALF_BYTES
    tokens = half * config.num_visual_tokens * projector.llm_hidden_size
    features = half * config.num_image_tokens * projector.encoder_width
    if not projector.has_queries:
        return features + 2 * tokens
    keys_values = raw * config.num_image_tokens * 2 * _num_crosses(projector) * projector.hidden_size
    layer = 6 * half * projector.hidden_size + (raw + half) * projector.intermediate_size
    return features + keys_values + projector.num_query_tokens * layer + tokens


def _num_crosses(projector: ProjectorConfig) -> int:
    return sum(projector.has_cross_attention(layer) for layer in range(projector.num_layers))


def _buffer_bytes(variant: Variant) -> int:
    inputs, outputs = (
        sum(math.prod(map(int, spec.shape[1:])) for spec in specs)
        for specs in (variant.signature.inputs, variant.signature.outputs)
    )
    return 5 * inputs + 4 * outputs


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
