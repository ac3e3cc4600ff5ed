"""Walk through the model in the order in which it runs, in the form in which it was exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pargo_export.config import ModelConfig, VisionConfig
from pargo_export.inspect.tally import Narrow, Tally

__all__ = ["SWIGLU_ALIGNMENT", "Form", "walk_encoder", "walk_projector"]

SWIGLU_ALIGNMENT = 64  # what the rewrite pad-swiglu pads the hidden width to


@dataclass(frozen=True)
class Form:
    """How the model is written.

    Attributes:
        attention: Attention form of the projector; only `"dense"` computes the scores that its mask hides.
        rewrites: Rewrites that were applied; those that change no count are ignored.
        quantized: Linears whose weights have 8 bits, by module path; a merged one stands for its parts.
        quantizes_activations: Whether their inputs have 8 bits too.
    """

    attention: str = "dense"
    rewrites: frozenset[str] = frozenset()
    quantized: frozenset[str] = frozenset()
    quantizes_activations: bool = True

    def has(self, rewrite: str) -> bool:
        """Whether a rewrite was applied."""
        return rewrite in self.rewrites

    def narrow(self, path: str, merged: str | None = None) -> Narrow:
        """Say what has 8 bits in a linear; `merged` is what it became part of, by default its parent's."""
        found = bool(self.quantized & {path, merged or f"{path.rpartition('.')[0]}.merged"})
        return Narrow(weight=found, activation=found and self.quantizes_activations)


def walk_encoder(config: ModelConfig, form: Form, batch: int) -> Iterator[tuple[str, Tally]]:
    """Yield every block of the tower and `ln_vision`, for a batch of images."""
    vision, tiles = config.vision, batch * config.num_tiles
    width, patches = vision.width, vision.num_patches
    tally = Tally()
    narrow = form.narrow("tower.patch_embedding")
    is_eva, classes = isinstance(vision, VisionConfig), int(vision.has_class_token)
    has_bias = is_eva or not classes  # CLIP has none, and normalises in front of the blocks
    inputs = vision.in_channels * vision.patch_size**2
    tally.product(tiles * patches, inputs, width, bias=has_bias, narrow=narrow)
    tally.constant(width * (classes + patches + classes * (not form.has("fold-class-token"))))
    if not has_bias:
        tally.norm(width)
    yield "patch_embedding", tally
    for layer in range(vision.num_layers):
        drops_class_token = form.has("drop-class-token") and layer == vision.num_layers - 1
        num_kept = patches + classes * (not drops_class_token)
        yield f"tower_block_{layer}", _tower_block(config, form, tiles, num_kept, f"tower.blocks.{layer}")
    num_kept = patches + classes * (not form.has("drop-class-token"))
    tally = Tally(activations=2 * tiles * num_kept * width)
    if not isinstance(vision, VisionConfig) and vision.has_final_norm:
        tally.norm(width)
    if not form.has("fold-output-norm"):
        tally.norm(width)
    yield "output_norm", tally


def _tower_block(config: ModelConfig, form: Form, tiles: int, num_kept: int, path: str) -> Tally:
    """One block, the module at `path`, that computes `num_kept` tokens of a tile from all of them."""
    vision = config.vision
    width, hidden, tokens = vision.width, vision.hidden_width, vision.has_class_token + vision.num_patches
    is_eva = isinstance(vision, VisionConfig)
    if is_eva and form.has("pad-swiglu"):
        hidden += -hidden % SWIGLU_ALIGNMENT
    rows, kept_rows = tiles * tokens, tiles * num_kept
    is_merged = form.has("merge-qkv")
    tally = Tally()
    query, key, value = (form.narrow(f"{path}.attention.qkv.{part}") for part in ("query", "key", "value"))
    tally.product(rows, width, width, narrow=query)
    tally.product(rows, width, width, bias=is_merged or not is_eva, is_input_read=not is_merged, narrow=key)
    tally.product(rows, width, width, is_input_read=not is_merged, narrow=value)
    tally.attention(tiles, num_kept, tokens, width, num_scores=num_kept * tokens)
    tally.product(kept_rows, width, width, narrow=form.narrow(f"{path}.attention.output"))
    if is_eva:
        gate, up = (form.narrow(f"{path}.mlp.gate_up.{part}") for part in ("gate", "up"))
        tally.product(kept_rows, width, hidden, narrow=gate)
        tally.product(kept_rows, width, hidden, is_input_read=not form.has("merge-swiglu"), narrow=up)
    else:
        tally.product(kept_rows, width, hidden, narrow=form.narrow(f"{path}.mlp.up"))
    tally.product(kept_rows, hidden, width, narrow=form.narrow(f"{path}.mlp.down"))
    for norm_width in (width, width, width, hidden) if is_eva else (width, width):
        tally.norm(norm_width)
    return tally


def walk_projector(config: ModelConfig, form: Form, batch: int) -> Iterator[tuple[str, Tally]]:
    """Yield every block of the projector, for a batch of images."""
    projector = config.projector
    if not projector.has_queries:
        tally = Tally()
        rows, outputs = batch * config.num_visual_tokens, projector.llm_hidden_size
        first = "projector.llm_projection" + (".0" if projector.kind == "mlp" else "")
        inputs = projector.encoder_width * projector.tokens_per_group
        tally.product(rows, inputs, outputs, narrow=form.narrow(first))
        if projector.kind == "mlp":
            tally.product(rows, outputs, outputs, narrow=form.narrow("projector.llm_projection.2"))
        yield "llm_projection", tally
        return
    width, queries = projector.hidden_size, projector.num_query_tokens
    tally = Tally()
    # Query tokens and positions; precomputed: the first layer's hidden state and cross-attention queries.
    tally.constant(2 * queries * width)
    if not form.has("precompute-first-layer"):
        tally.norm(width)
    yield "query_embedding", tally
    for layer in range(projector.num_layers):
        yield f"query_layer_{layer}", _query_layer(config, form, batch, layer)
    tally = Tally()
    narrow = form.narrow("projector.llm_projection")
    tally.product(batch * queries, width, projector.llm_hidden_size, narrow=narrow)
    yield "llm_projection", tally


def _query_layer(config: ModelConfig, form: Form, batch: int, layer: int) -> Tally:
    projector = config.projector
    width, inner = projector.hidden_size, projector.intermediate_size
    queries, partial = projector.num_query_tokens, projector.num_partial_tokens
    path, tally = f"projector.layers.{layer}", Tally()
    # The batch axis comes in with the image features: before them there is one sequence, or a constant.
    sequences = batch if layer else int(not form.has("precompute-first-layer"))
    if sequences:
        is_merged = form.has("merge-qkv")
        for index, part in enumerate(("query", "key", "value")):
            narrow = form.narrow(f"{path}.self_attention.qkv.{part}")
            is_read = not (is_merged and index)
            tally.product(sequences * queries, width, width, is_input_read=is_read, narrow=narrow)
        pairs = queries**2 if form.attention == "dense" else partial**2 + projector.num_global_tokens**2
        tally.attention(sequences, queries, queries, width, num_scores=pairs)
        tally.product(sequences * queries, width, width, narrow=form.narrow(f"{path}.self_attention.output"))
        tally.norm(width)
    if projector.has_cross_attention(layer):
        _add_cross_attention(tally, config, form, batch, layer, sequences)
    tally.product(batch * queries, width, inner, narrow=form.narrow(f"{path}.feed_forward.up"))
    tally.product(batch * queries, inner, width, narrow=form.narrow(f"{path}.feed_forward.down"))
    tally.norm(width)
    return tally


def _add_cross_attention(
    tally: Tally, config: ModelConfig, form: Form, batch: int, layer: int, sequences: int
) -> None:
    projector, tokens = config.projector, config.num_image_tokens
    width, queries = projector.hidden_size, projector.num_query_tokens
    path, is_merged = f"projector.layers.{layer}.cross_attention", form.has("merge-cross-kv")
    tally.product(sequences * queries, width, width, narrow=form.narrow(f"{path}.query"))
    key, value = (
        form.narrow(f"{path}.key_value.{part}", "projector.context.merged") for part in ("key", "value")
    )
    rows, inputs = batch * tokens, projector.encoder_width
    tally.product(rows, inputs, width, is_input_read=layer == 0 or not is_merged, narrow=key)
    tally.product(rows, inputs, width, is_input_read=not is_merged, narrow=value)
    if form.attention == "dense":
        pairs = queries * tokens
    else:  # a partial token sees its window, all windows together are the image once
        pairs = tokens * (bool(projector.num_partial_tokens) + projector.num_global_tokens)
    tally.attention(batch, queries, tokens, width, num_scores=pairs)
    tally.product(batch * queries, width, width, narrow=form.narrow(f"{path}.output"))
    tally.norm(width)
