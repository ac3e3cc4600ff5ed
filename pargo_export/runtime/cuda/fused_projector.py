"""The query projector for few rows: every kernel that is not a product or an attention is gone.

A projector of 304 tokens is some forty kernels of a few microseconds. Norms, GELU and residual sums move into the
products (`pargo_kernels.reference_linear`): a layer normalises after each sum, so the product that computes the sum
also writes the statistics of its rows, and what reads the sum, as an operand or as the next residual, normalises
it on the way. The hidden state is therefore never normalised in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pargo_export.config import ProjectorConfig
from pargo_export.runtime.cuda.linear import finish, load_linear
from pargo_export.runtime.cuda.options import ProgramSpec
from pargo_export.runtime.cuda.weights import Weights
from pargo_export.runtime.cuda.workspace import Workspaces
from pargo_kernels import block_diagonal_attention, fused_linear, partial_global_attention
from pargo_kernels.partial_global_plan import SplitWorkspace
from pargo_kernels.reference_linear import (
    Activation,
    FoldedLinear,
    NormalisedResidual,
    RowStatistics,
    at_least_float32,
    fold_norm,
)

__all__ = ["FusedProjector"]


@dataclass(frozen=True)
class _Norm:
    """A LayerNorm that nobody computes by itself."""

    gain: Tensor
    shift: Tensor
    eps: float


@dataclass(frozen=True)
class _Hidden:
    """The hidden state: rows, and the norm that they are to be read through."""

    rows: Tensor
    norm: NormalisedResidual | None = None

    @property
    def statistics(self) -> RowStatistics | None:
        return self.norm.statistics if self.norm else None


class _Read:
    """A linear that reads the hidden state."""

    def __init__(
        self, weights: Weights, path: str, norm: _Norm | None, activation: Activation = "none"
    ) -> None:
        affine = (norm.gain, norm.shift, norm.eps) if norm else ()
        self._linear: FoldedLinear = fold_norm(
            weights.require(f"{path}.weight"), weights.get(f"{path}.bias"), *affine
        )
        self._activation: Activation = activation

    def __call__(self, hidden: _Hidden) -> Tensor:
        """`[B or 1, Q, C]` -> `[B or 1, Q, N]`."""
        return fused_linear(
            hidden.rows, self._linear, statistics=hidden.statistics, activation=self._activation
        )[0]


class _Write:
    """A linear that adds to the hidden state, and the norm behind the sum."""

    def __init__(self, weights: Weights, path: str, norm: _Norm) -> None:
        self._linear = fold_norm(weights.require(f"{path}.weight"), weights.get(f"{path}.bias"))
        self._norm = norm

    def __call__(self, x: Tensor, hidden: _Hidden) -> _Hidden:
        """`[B, Q, K]` and the state `[B or 1, Q, C]` -> the new state."""
        rows, statistics = fused_linear(
            x, self._linear, residual=hidden.rows, residual_norm=hidden.norm, keep_statistics=True
        )
        assert statistics is not None  # noqa: S101 - asked for
        norm = self._norm
        return _Hidden(rows, NormalisedResidual(statistics, norm.gain, norm.shift, norm.eps))


class _Layer:
    """One query layer; a part that the model does not have, or that was computed away, is `None`."""

    def __init__(
        self, weights: Weights, config: ProjectorConfig, spec: ProgramSpec, index: int, norm: _Norm | None
    ) -> None:
        path = f"projector.layers.{index}"
        self._num_heads = config.num_heads
        self._num_partial, self._num_global = config.num_partial_tokens, config.num_global_tokens
        self._scale = spec.softmax_scale(config.head_dim)
        self._window = config.partial_attention_window(index) or 0
        self._qkv: _Read | None = None
        self._query: _Read | None = None
        self._constant_query: Tensor | None = None
        self.has_cross_attention = config.has_cross_attention(index)
        if index:
            self._qkv = _Read(weights, f"{path}.self_attention.qkv.merged", norm)
            norm = _load_norm(weights, f"{path}.self_attention.norm", config)
            self._write_self = _Write(weights, f"{path}.self_attention.output", norm)
        if self.has_cross_attention:
            self._constant_query = weights.get(f"{path}.cross_attention.query.value")
            if self._constant_query is None:
                self._query = _Read(weights, f"{path}.cross_attention.query", norm)
            norm = _load_norm(weights, f"{path}.cross_attention.norm", config)
            self._write_cross = _Write(weights, f"{path}.cross_attention.output", norm)
        self._up = _Read(weights, f"{path}.feed_forward.up", norm, "gelu")
        self.norm = _load_norm(weights, f"{path}.feed_forward.norm", config)
        self._down = _Write(weights, f"{path}.feed_forward.down", self.norm)

    def __call__(
        self, hidden: _Hidden, key: Tensor | None, value: Tensor | None, workspace: SplitWorkspace | None
    ) -> _Hidden:
        """Hidden state `[B or 1, Q, C]`; key and value `[B, N, C]` of layers with cross-attention."""
        if self._qkv is not None:
            query, own_key, own_value = self._qkv(hidden).chunk(3, dim=-1)
            context = block_diagonal_attention(
                query,
                own_key,
                own_value,
                num_heads=self._num_heads,
                num_partial=self._num_partial,
                num_global=self._num_global,
                scale=self._scale,
                partial_window=self._window,
            )
            hidden = self._write_self(context, hidden)
        if key is not None and value is not None:
            asked = self._constant_query if self._query is None else self._query(hidden)
            assert asked is not None  # noqa: S101 - one of the two is there
            context = partial_global_attention(
                asked,
                key,
                value,
                num_heads=self._num_heads,
                num_partial=self._num_partial,
                num_global=self._num_global,
                scale=self._scale,
                workspace=workspace,
            )
            hidden = self._write_cross(context, hidden)
        return self._down(self._up(hidden), hidden)


class FusedProjector:
    """ParGo, or with zero partial tokens a Q-Former, in the float precision of the variant.

    Args:
        weights: Of the variant; none of the projector's is quantized.
        config: The projector.
        spec: Of the variant.
    """

    def __init__(self, weights: Weights, config: ProjectorConfig, spec: ProgramSpec) -> None:
        self._dtype = spec.dtype
        self._context = load_linear(weights, "projector.context.merged", spec.dtype, bias_in_product=True)
        self._embedding = _Hidden(weights.require("projector.embedding.value"))
        self._layers: list[_Layer] = []
        norm: _Norm | None = None
        for index in range(config.num_layers):
            layer = _Layer(weights, config, spec, index, norm)
            self._layers.append(layer)
            norm = layer.norm
        self._workspaces = Workspaces(config)
        self._num_crosses = sum(layer.has_cross_attention for layer in self._layers)
        self._llm_projection = _Read(weights, "projector.llm_projection", norm)

    def __call__(self, features: Tensor) -> Tensor:
        """Image features `[B, N, encoder_width]` -> visual tokens `[B, Q, C_llm]`."""
        keys_values = finish(self._context(features), self._dtype).chunk(2 * self._num_crosses, dim=-1)
        workspace = self._workspaces.get(keys_values[0])
        parts = iter(keys_values)
        hidden = self._embedding
        for layer in self._layers:
            crosses = layer.has_cross_attention
            key, value = (next(parts), next(parts)) if crosses else (None, None)
            hidden = layer(hidden, key, value, workspace)
        return self._llm_projection(hidden)


def _load_norm(weights: Weights, path: str, config: ProjectorConfig) -> _Norm:
    return _Norm(
        at_least_float32(weights.require(f"{path}.weight")),
        at_least_float32(weights.require(f"{path}.bias")),
        config.layer_norm_eps,
    )
