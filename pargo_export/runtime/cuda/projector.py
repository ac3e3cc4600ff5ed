"""The projectors on fused kernels: image features in, visual tokens out.

What they compute is `pargo_export/model/projector.py` after the exact rewrites. A query layer normalises after each
residual sum, so that its hidden state, float, is both the residual and what the next linear reads:

    context   one product: keys and values of all layers
    layer     qkv -> block-diagonal attention -> output -> [+ hidden, norm]       (none in layer 0: precomputed)
              query -> partial-global attention -> output -> [+ hidden, norm]     (in layers with cross-attention)
              up -> GELU -> down -> [+ hidden, norm]
"""

from __future__ import annotations

from torch import Tensor

from pargo_export.config import ModelConfig, ProjectorConfig
from pargo_export.runtime.cuda.fused_projector import FusedProjector
from pargo_export.runtime.cuda.linear import finish, load_linear, quantized_for
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.residual import ResidualWrite, load_norm
from pargo_export.runtime.cuda.weights import Weights
from pargo_export.runtime.cuda.workspace import Workspaces
from pargo_kernels import Quantize, bias_gelu, block_diagonal_attention, partial_global_attention
from pargo_kernels.partial_global_plan import SplitWorkspace

__all__ = ["GroupProjector", "QueryProjector", "SizedProjector", "load_projector"]

_PATH = "projector."


class _Part:
    """What the parts of a query layer share.

    Args:
        weights: Of the variant.
        path: `projector.layers.2.self_attention`, for example.
        config: The projector.
        spec: Of the variant.
        output: Name of the linear that writes to the hidden state.
        accumulate: Let it add in the GEMM.
    """

    def __init__(
        self,
        weights: Weights,
        path: str,
        config: ProjectorConfig,
        spec: ProgramSpec,
        *,
        output: str,
        accumulate: bool,
    ) -> None:
        self.dtype, self.num_heads = spec.dtype, config.num_heads
        self.num_partial, self.num_global = config.num_partial_tokens, config.num_global_tokens
        self.scale = spec.softmax_scale(config.head_dim)
        self.output = load_linear(weights, f"{path}.{output}", spec.dtype)
        norm = load_norm(weights, f"{path}.norm", config.layer_norm_eps)
        self.write = ResidualWrite(self.output, norm, spec.dtype, accumulate=accumulate)


class SelfAttention(_Part):
    """Self-attention among the queries; arguments as for every part, and the cascaded window (0: none)."""

    def __init__(
        self,
        weights: Weights,
        path: str,
        config: ProjectorConfig,
        spec: ProgramSpec,
        *,
        accumulate: bool,
        window: int,
    ) -> None:
        super().__init__(weights, path, config, spec, output="output", accumulate=accumulate)
        self._qkv = load_linear(weights, f"{path}.qkv.merged", spec.dtype, bias_in_product=True)
        self._window = window

    def __call__(self, hidden: Tensor) -> Tensor:
        """`[B, Q, C]` -> `[B, Q, C]`."""
        qkv = finish(self._qkv(quantized_for(self._qkv, hidden)), self.dtype)
        query, key, value = qkv.chunk(3, dim=-1)
        context = block_diagonal_attention(
            query,
            key,
            value,
            num_heads=self.num_heads,
            num_partial=self.num_partial,
            num_global=self.num_global,
            scale=self.scale,
            partial_window=self._window,
        )
        return self.write.close(quantized_for(self.output, context), hidden)


class CrossAttention(_Part):
    """Cross-attention to the image features; in the first layer its queries are a constant."""

    def __init__(
        self, weights: Weights, path: str, config: ProjectorConfig, spec: ProgramSpec, *, accumulate: bool
    ) -> None:
        super().__init__(weights, path, config, spec, output="output", accumulate=accumulate)
        self._constant_query = weights.get(f"{path}.query.value")
        self._query = (
            load_linear(weights, f"{path}.query", spec.dtype, bias_in_product=True)
            if self._constant_query is None
            else None
        )

    def __call__(
        self, hidden: Tensor, key: Tensor, value: Tensor, workspace: SplitWorkspace | None
    ) -> Tensor:
        """Hidden state `[B or 1, Q, C]`, key and value `[B, N, C]` -> `[B, Q, C]`."""
        query = self._constant_query
        if query is None:
            assert self._query is not None  # noqa: S101 - one of the two is there
            query = finish(self._query(quantized_for(self._query, hidden)), self.dtype)
        context = partial_global_attention(
            query,
            key,
            value,
            num_heads=self.num_heads,
            num_partial=self.num_partial,
            num_global=self.num_global,
            scale=self.scale,
            workspace=workspace,
        )
        return self.write.close(quantized_for(self.output, context), hidden)


class FeedForward(_Part):
    """Two products with the erf GELU between."""

    def __init__(
        self, weights: Weights, path: str, config: ProjectorConfig, spec: ProgramSpec, *, accumulate: bool
    ) -> None:
        super().__init__(weights, path, config, spec, output="down", accumulate=accumulate)
        self._up = load_linear(weights, f"{path}.up", spec.dtype)

    def __call__(self, hidden: Tensor) -> Tensor:
        """`[B, Q, C]` -> `[B, Q, C]`."""
        product = self._up(quantized_for(self._up, hidden))
        x = bias_gelu(
            product.value,
            x_scale=product.x_scale,
            x_bias=product.x_bias,
            quantize=self.output.quantize,
            dtype=self.dtype,
        )
        return self.write.close(x, hidden)


class QueryProjector:
    """ParGo, or with zero partial tokens a Q-Former; arguments as for `load_projector`."""

    def __init__(
        self, weights: Weights, config: ProjectorConfig, spec: ProgramSpec, options: ProgramOptions
    ) -> None:
        self._dtype = spec.dtype
        self._context = load_linear(weights, "projector.context.merged", spec.dtype, bias_in_product=True)
        self.quantize: Quantize | None = self._context.quantize
        self._hidden = weights.require("projector.embedding.value")
        self._layers: list[tuple[SelfAttention | None, CrossAttention | None, FeedForward]] = []
        accumulate = options.accumulate_in_product
        for index in range(config.num_layers):
            path = f"projector.layers.{index}"
            self_attention = cross_attention = None
            if index:
                window = config.partial_attention_window(index) or 0
                self_attention = SelfAttention(
                    weights,
                    f"{path}.self_attention",
                    config,
                    spec,
                    accumulate=accumulate,
                    window=window,
                )
            if config.has_cross_attention(index):
                # The hidden state in front of the first one is a constant: nothing may add to it.
                cross_attention = CrossAttention(
                    weights, f"{path}.cross_attention", config, spec, accumulate=accumulate and index > 0
                )
            feed_forward = FeedForward(weights, f"{path}.feed_forward", config, spec, accumulate=accumulate)
            self._layers.append((self_attention, cross_attention, feed_forward))
        self._workspaces = Workspaces(config)
        self._num_crosses = sum(cross is not None for _, cross, _ in self._layers)
        self._llm_projection = load_linear(
            weights, "projector.llm_projection", spec.dtype, bias_in_product=True
        )

    def __call__(self, features: Tensor) -> Tensor:
        """Image features `[B, N, encoder_width]`, as `quantize` says -> visual tokens `[B, Q, C_llm]`."""
        keys_values = finish(self._context(features), self._dtype).chunk(2 * self._num_crosses, dim=-1)
        workspace = self._workspaces.get(keys_values[0])
        parts = iter(keys_values)
        hidden = self._hidden
        for self_attention, cross_attention, feed_forward in self._layers:
            if self_attention is not None:
                hidden = self_attention(hidden)
            if cross_attention is not None:
                hidden = cross_attention(hidden, next(parts), next(parts), workspace)
            hidden = feed_forward(hidden)
        return finish(self._llm_projection(quantized_for(self._llm_projection, hidden)), self._dtype)


class GroupProjector:
    """Adjacent image tokens concatenated and projected (`linear`: once, `mlp`: twice)."""

    def __init__(self, weights: Weights, config: ProjectorConfig, spec: ProgramSpec) -> None:
        self._dtype, self._tokens_per_group = spec.dtype, config.tokens_per_group
        path = "projector.llm_projection"
        is_linear = config.kind == "linear"
        self._first = load_linear(
            weights, path if is_linear else f"{path}.0", spec.dtype, bias_in_product=is_linear
        )
        self._second = (
            None if is_linear else load_linear(weights, f"{path}.2", spec.dtype, bias_in_product=True)
        )
        self.quantize: Quantize | None = self._first.quantize

    def __call__(self, features: Tensor) -> Tensor:
        """Image features `[B, N, C]`, as `quantize` says -> visual tokens `[B, N/g, C_llm]`."""
        product = self._first(features.unflatten(1, (-1, self._tokens_per_group)).flatten(2))
        if self._second is None:
            return finish(product, self._dtype)
        x = bias_gelu(
            product.value,
            x_scale=product.x_scale,
            x_bias=product.x_bias,
            quantize=self._second.quantize,
            dtype=self._dtype,
        )
        return finish(self._second(x), self._dtype)


class SizedProjector:
    """A query projector in two forms: with everything fused for few rows, with the library's products for many.

    Args:
        few: For few rows.
        many: For many.
        num_queries: Rows of an image.
        limit: The most rows that are few.
    """

    quantize: Quantize | None = None

    def __init__(self, few: FusedProjector, many: QueryProjector, num_queries: int, limit: int) -> None:
        self._few, self._many, self._num_queries, self._limit = few, many, num_queries, limit

    def __call__(self, features: Tensor) -> Tensor:
        """Image features `[B, N, encoder_width]` -> visual tokens `[B, Q, C_llm]`."""
        few = len(features) * self._num_queries <= self._limit
        return self._few(features) if few else self._many(features)


def load_projector(
    weights: Weights, config: ModelConfig, spec: ProgramSpec, options: ProgramOptions
) -> QueryProjector | SizedProjector | GroupProjector:
    """Return the projector that `config` names.

    Args:
        weights: Of the variant.
        config: The model.
        spec: Of the variant.
        options: How to compute it.

    Raises:
        BackendError: A weight is missing or does not fit.
    """
    if not config.projector.has_queries:
        return GroupProjector(weights, config.projector, spec)
    if options.widen_projector:
        weights = weights.widened(_PATH, spec.dtype)
    many = QueryProjector(weights, config.projector, spec, options)
    if not options.fused_projector_rows or weights.has_quantized(_PATH):
        return many
    few = FusedProjector(weights, config.projector, spec)
    return SizedProjector(few, many, config.projector.num_query_tokens, options.fused_projector_rows)
