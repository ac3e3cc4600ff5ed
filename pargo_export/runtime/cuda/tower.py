"""The vision tower on fused kernels: pixels in, image features out.

What it computes is `pargo_export/model/tower.py` after the exact rewrites. Each norm belongs to the write in front of
it, so that sum and norm are one kernel:

    patches -> product -> [+ position, norm1]
    block:     qkv -> rotate -> attention -> inner norm -> output -> [+ residual, norm2]
               gate_up -> SwiGLU with its norm -> down -> [+ residual, norm1 of the next block, or ln_vision]
"""

from __future__ import annotations

import torch
from torch import Tensor

from pargo_export.config import VisionConfig
from pargo_export.runtime.cuda.attention import dense_attention
from pargo_export.runtime.cuda.linear import Linear, load_linear
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.patches import Patches, load_patch_linear
from pargo_export.runtime.cuda.residual import ResidualWrite, load_norm
from pargo_export.runtime.cuda.weights import Weights
from pargo_kernels import Quantize, rotate_heads, swiglu_layer_norm

__all__ = ["Tower"]


class Attention:
    """Self-attention up to the output projection, which writes to the residual stream.

    Args:
        weights: Of the variant.
        path: `tower.blocks.3.attention`.
        config: The tower.
        spec: Of the variant.
        qkv: The merged projection.
        output_quantize: How the output projection wants its activation.
        drops_class_token: Ask only about the patches.
        in_place: Turn query and key in the product. Factor and bias of the value are then left for the inner norm:
            the weights of the attention sum to one.
    """

    def __init__(
        self,
        weights: Weights,
        path: str,
        config: VisionConfig,
        spec: ProgramSpec,
        *,
        qkv: Linear,
        output_quantize: Quantize | None,
        drops_class_token: bool,
        in_place: bool,
    ) -> None:
        self._qkv, self._dtype, self._num_heads = qkv, spec.dtype, config.num_heads
        self._width, self._in_place = config.width, in_place
        self._cos, self._signed_sin = weights.find(".rope.cos"), weights.find(".rope.signed_sin")
        self._scale = spec.softmax_scale(config.head_width)
        self._first_query = 1 if drops_class_token else 0
        self._inner_norm = load_norm(weights, f"{path}.inner_norm", config.layer_norm_eps, output_quantize)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Normalised tokens `[B, 1+N, C]` -> what the output projection reads, `[B, 1+N or N, C]`."""
        product = self._qkv(tokens)
        in_place = self._in_place and product.value.dtype == self._dtype
        qkv = rotate_heads(
            product.value,
            self._cos,
            self._signed_sin,
            num_heads=self._num_heads,
            x_scale=product.x_scale,
            x_bias=product.x_bias,
            in_place=in_place,
            dtype=self._dtype,
        )
        context = dense_attention(qkv, self._num_heads, self._scale, first_query=self._first_query)
        if not in_place:
            return self._inner_norm(context)
        pending = (product.x_scale, product.x_bias)
        x_scale, x_bias = (None if part is None else part[2 * self._width :] for part in pending)
        return self._inner_norm(context, x_scale=x_scale, x_bias=x_bias)


class SwiGLU:
    """The gated feed-forward up to the down projection, which writes to the residual stream.

    Args:
        weights: Of the variant.
        path: `tower.blocks.3.mlp`.
        config: The tower.
        dtype: Float type of the variant.
        down_quantize: How the down projection wants its activation.
        gate_up: The merged projection.
    """

    def __init__(
        self,
        weights: Weights,
        path: str,
        config: VisionConfig,
        dtype: torch.dtype,
        *,
        gate_up: Linear,
        down_quantize: Quantize | None,
    ) -> None:
        self._gate_up, self._down_quantize, self._dtype = gate_up, down_quantize, dtype
        self._weight, self._bias = (
            weights.require(f"{path}.norm.weight"),
            weights.require(f"{path}.norm.bias"),
        )
        self._width, self._eps = config.hidden_width, config.layer_norm_eps

    def __call__(self, tokens: Tensor) -> Tensor:
        """Normalised tokens `[B, N, C]` -> what the down projection reads, `[B, N, hidden]`."""
        product = self._gate_up(tokens)
        return swiglu_layer_norm(
            product.value,
            self._weight,
            self._bias,
            width=self._width,
            eps=self._eps,
            x_scale=product.x_scale,
            x_bias=product.x_bias,
            quantize=self._down_quantize,
            dtype=self._dtype,
        )


class Block:
    """One transformer block, from its first norm to the next block's.

    Args:
        attention: Reads the first norm.
        write_attention: Output projection, and the block's second norm.
        mlp: Reads it.
        write_mlp: Down projection, and the norm behind the block.
        drops_class_token: The stream goes on with the patches alone.
    """

    def __init__(
        self,
        attention: Attention,
        write_attention: ResidualWrite,
        mlp: SwiGLU,
        write_mlp: ResidualWrite,
        *,
        drops_class_token: bool,
    ) -> None:
        self._attention, self._write_attention = attention, write_attention
        self._mlp, self._write_mlp = mlp, write_mlp
        self._first_token = 1 if drops_class_token else 0

    def _attend(self, stream: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self._write_attention(self._attention(tokens), stream[:, self._first_token :])

    def __call__(self, stream: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Residual stream and its first norm, `[B, 1+N, C]` -> the stream, and the norm behind the block."""
        stream, tokens = self._attend(stream, tokens)
        return self._write_mlp(self._mlp(tokens), stream)

    def close(self, stream: Tensor, tokens: Tensor) -> Tensor:
        """As a call, for the last block: nothing reads the stream behind it."""
        stream, tokens = self._attend(stream, tokens)
        return self._write_mlp.close(self._mlp(tokens), stream)


class Tower:
    """The tower and `ln_vision`.

    Args:
        weights: Of the variant.
        config: The tower.
        spec: Of the variant.
        options: How to compute it.
        num_tiles: T, tiles of one image.
        quantize: How the reader of the image features wants them.

    Raises:
        BackendError: A weight is missing or does not fit.
    """

    def __init__(
        self,
        weights: Weights,
        config: VisionConfig,
        spec: ProgramSpec,
        options: ProgramOptions,
        *,
        num_tiles: int,
        quantize: Quantize | None = None,
    ) -> None:
        self._num_tiles = num_tiles
        drops = "drop-class-token" in spec.rewrites
        self._first_patch = 0 if drops else 1
        dtype, last = spec.dtype, config.num_layers - 1

        def linear(path: str) -> Linear:
            return load_linear(weights, f"tower.blocks.{path}", dtype)

        qkvs = [linear(f"{index}.attention.qkv.merged") for index in range(config.num_layers)]
        # What stands behind each write of a feed-forward, and in front of each block.
        norms = [
            load_norm(weights, f"tower.blocks.{index}.norm1", config.layer_norm_eps, qkv.quantize)
            for index, qkv in enumerate(qkvs)
        ]
        norms.append(load_norm(weights, "output_norm", config.output_norm_eps, quantize))

        patch_linear = load_patch_linear(weights, config, dtype)
        self._patches = Patches(config, spec, patch_linear, weights.device)
        self._embed = ResidualWrite(patch_linear, norms[0], dtype, accumulate=False, lead=1)
        self._position = weights.require("tower.embedding.table")
        self._blocks: list[Block] = []
        left_out: Tensor | None = None
        for index, qkv in enumerate(qkvs):
            path, is_last = f"tower.blocks.{index}", drops and index == last
            output, gate_up = linear(f"{index}.attention.output"), linear(f"{index}.mlp.gate_up.merged")
            down = linear(f"{index}.mlp.down")
            norm2 = load_norm(weights, f"{path}.norm2", config.layer_norm_eps, gate_up.quantize)
            write_attention = ResidualWrite(
                output,
                norm2,
                dtype,
                accumulate=options.accumulate_in_product and not is_last,  # the stream loses a row there
                left_out=left_out,
            )
            write_mlp = ResidualWrite(
                down,
                norms[index + 1],
                dtype,
                accumulate=options.accumulate_in_product,
                left_out=write_attention.left_out,
            )
            left_out = write_mlp.left_out
            self._blocks.append(
                Block(
                    Attention(
                        weights,
                        f"{path}.attention",
                        config,
                        spec,
                        qkv=qkv,
                        output_quantize=output.quantize,
                        drops_class_token=is_last,
                        in_place=options.rotate_in_place,
                    ),
                    write_attention,
                    SwiGLU(
                        weights, f"{path}.mlp", config, dtype, gate_up=gate_up, down_quantize=down.quantize
                    ),
                    write_mlp,
                    drops_class_token=is_last,
                )
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels `[B, 3, R*S, C*S]` -> image features `[B, N, C]`, the tiles' tokens one after the other."""
        stream, tokens = self._embed(self._patches(pixels), self._position)
        for block in self._blocks[:-1]:
            stream, tokens = block(stream, tokens)
        features = self._blocks[-1].close(stream, tokens)[:, self._first_patch :]
        if self._num_tiles == 1:
            return features
        return features.unflatten(0, (-1, self._num_tiles)).flatten(1, 2)
