"""Typed, immutable descriptions of a ParGo visual front-end.

The letters used for shapes everywhere in this package:

    B batch    T tiles    N image tokens    C channels
    Q query tokens = P partial + G global
    H heads    D head dim    W partial window = N / P
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from pargo_export.errors import ConfigError

__all__ = ["ModelConfig", "ProjectorConfig", "ProjectorKind", "Record", "VisionConfig"]

ProjectorKind = Literal["pargo", "qformer", "linear", "mlp"]
Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]


class Record(BaseModel):
    """A frozen record; fields that this version does not know are kept, not dropped."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    @classmethod
    def parse(cls, values: Any, *, source: str) -> Self:
        """Validate `values`; a failure becomes one `ConfigError` that names `source` and every field.

        Raises:
            ConfigError: A field is missing, of the wrong type or contradicts another.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or cls.__name__}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False)
            )
            raise ConfigError(f"{source}: {problems}") from error


class VisionConfig(Record):
    """An EVA-02 CLIP vision tower (arXiv 2303.11331): pre-norm, sub-LN, SwiGLU, 2-D rotary positions.

    Attributes:
        image_size: Side of the square input of the tower, in pixels; one tile.
        patch_size: Side of a patch, in pixels.
        width: Channels C of the residual stream.
        num_layers: Transformer blocks.
        head_width: Channels D of one attention head; must be a multiple of 4 (rows and columns, in pairs).
        hidden_width: Hidden channels of the SwiGLU (2730 in EVA02-L: not a multiple of 8).
        layer_norm_eps: Epsilon of every LayerNorm inside the tower.
        output_norm_eps: Epsilon of `ln_vision`, the LayerNorm after the tower.
        rope_theta: Base of the rotary frequencies.
        rope_grid: Grid side that the rotary frequencies were trained for (`pt_hw_seq_len`).
        rope_interpolate: Rescale positions from the actual grid to `rope_grid` (`intp_freq`).
        in_channels: Colour channels of the input.
        head_features: Output features of the CLIP head, which the projector path does not use.
    """

    image_size: Positive
    patch_size: Positive = 14
    width: Positive
    num_layers: Positive
    head_width: Positive
    hidden_width: Positive
    layer_norm_eps: Epsilon = 1e-6
    output_norm_eps: Epsilon = 1e-5
    rope_theta: float = 10000.0
    rope_grid: Positive = 16
    rope_interpolate: bool = True
    in_channels: Positive = 3
    head_features: Positive = 768

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.width % self.head_width:
            raise ValueError(f"width {self.width} is not a multiple of head_width {self.head_width}")
        if self.head_width % 4:
            raise ValueError(
                f"head_width {self.head_width} is not a multiple of 4, which 2-D rotary positions need"
            )
        return self

    @property
    def num_heads(self) -> int:
        """Attention heads H."""
        return self.width // self.head_width

    @property
    def grid_size(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Image tokens of one tile."""
        return self.grid_size**2


class ProjectorConfig(Record):
    """The projector between image features `[B, N, encoder_width]` and the LLM.

    `pargo` and `qformer` use the query fields, `linear` and `mlp` use `tokens_per_group`.

    Attributes:
        kind: `pargo` (partial and global tokens), `qformer` (global tokens only), `linear`, `mlp`.
        encoder_width: Channels of the image features.
        llm_hidden_size: Channels of the visual tokens.
        num_partial_tokens: P, queries that each see one window of N / P image tokens.
        num_global_tokens: G, queries that see all image tokens.
        hidden_size: Channels of the query tokens.
        num_layers: Query layers.
        num_heads: Attention heads H of a query layer.
        intermediate_size: Hidden channels of the feed-forward.
        cross_attention_freq: Layers 0, f, 2f, ... have cross-attention.
        layer_norm_eps: Epsilon of the query layers' LayerNorms.
        max_position_embeddings: Rows of the position table; the first Q are used.
        partial_attention_windows: Per layer, the odd number of neighbouring partial tokens (centred on
            itself) that a partial token sees in self-attention: the cascaded partial perception of the
            paper. `None` (as in the released code), or `None` for a layer: all partial tokens.
        tokens_per_group: Adjacent image tokens concatenated into one visual token (`linear`, `mlp`).
    """

    kind: ProjectorKind
    encoder_width: Positive
    llm_hidden_size: Positive
    num_partial_tokens: NotNegative = 0
    num_global_tokens: NotNegative = 0
    hidden_size: NotNegative = 0
    num_layers: NotNegative = 0
    num_heads: NotNegative = 0
    intermediate_size: NotNegative = 0
    cross_attention_freq: Positive = 1
    layer_norm_eps: Epsilon = 1e-12
    max_position_embeddings: NotNegative = 0
    partial_attention_windows: tuple[Positive | None, ...] | None = None
    tokens_per_group: Positive = 4

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.has_queries:
            return self
        for name in ("hidden_size", "num_layers", "num_heads", "intermediate_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive for a {self.kind} projector")
        if self.num_query_tokens == 0:
            raise ValueError("a query projector needs at least one query token")
        if self.kind == "qformer" and self.num_partial_tokens:
            raise ValueError(
                f"a qformer has no partial tokens, but num_partial_tokens is {self.num_partial_tokens}"
            )
        if self.kind == "pargo" and not self.num_partial_tokens:
            raise ValueError("num_partial_tokens is 0: that is kind 'qformer', not 'pargo'")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}"
            )
        if self.max_position_embeddings < self.num_query_tokens:
            raise ValueError(
                f"max_position_embeddings {self.max_position_embeddings} is less than the "
                f"{self.num_query_tokens} query tokens"
            )
        return self

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        windows = self.partial_attention_windows
        if self.has_queries and windows is not None:
            if len(windows) != self.num_layers:
                raise ValueError(
                    f"partial_attention_windows has {len(windows)} entries for {self.num_layers} layers"
                )
            even = [window for window in windows if window is not None and window % 2 == 0]
            if even:
                raise ValueError(
                    f"partial_attention_windows must be odd (centred on the token), found {even}"
                )
        return self

    @property
    def has_queries(self) -> bool:
        """Whether the projector is made of query layers (`pargo`, `qformer`)."""
        return self.kind in ("pargo", "qformer")

    @property
    def num_query_tokens(self) -> int:
        """Q = P + G."""
        return self.num_partial_tokens + self.num_global_tokens

    @property
    def head_dim(self) -> int:
        """Channels D of one attention head of a query layer."""
        return self.hidden_size // self.num_heads

    def has_cross_attention(self, layer: int) -> bool:
        """Whether query layer `layer` reads the image features."""
        return layer % self.cross_attention_freq == 0

    def partial_attention_window(self, layer: int) -> int | None:
        """Self-attention window of the partial tokens in `layer`; `None` means all of them."""
        return None if self.partial_attention_windows is None else self.partial_attention_windows[layer]


class ModelConfig(Record):
    """The whole visual front-end: tower, `ln_vision`, projector, and how an image is cut into tiles.

    Attributes:
        vision: The tower.
        projector: The projector.
        tile_rows: Tiles from top to bottom; 1 = the image is one tile.
        tile_columns: Tiles from left to right.
    """

    vision: VisionConfig
    projector: ProjectorConfig
    tile_rows: Positive = 1
    tile_columns: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.projector.encoder_width != self.vision.width:
            raise ValueError(
                f"projector.encoder_width {self.projector.encoder_width} differs from vision.width {self.vision.width}"
            )
        tokens, partial = self.num_image_tokens, self.projector.num_partial_tokens
        if partial and tokens % partial:
            raise ValueError(
                f"{tokens} image tokens ({self.num_tiles} tile(s) of {self.vision.num_patches}) cannot be divided "
                f"evenly among {partial} partial tokens"
            )
        group = self.projector.tokens_per_group
        if not self.projector.has_queries and tokens % group:
            raise ValueError(f"{tokens} image tokens cannot be grouped by tokens_per_group {group}")
        return self

    @property
    def num_tiles(self) -> int:
        """T, tiles of one image."""
        return self.tile_rows * self.tile_columns

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of one input image, in pixels."""
        return self.tile_rows * self.vision.image_size, self.tile_columns * self.vision.image_size

    @property
    def num_image_tokens(self) -> int:
        """N, image tokens of all tiles together."""
        return self.num_tiles * self.vision.num_patches

    @property
    def window_size(self) -> int:
        """W, image tokens that one partial token sees; 0 without partial tokens."""
        partial = self.projector.num_partial_tokens
        return self.num_image_tokens // partial if partial else 0

    @property
    def num_visual_tokens(self) -> int:
        """Tokens handed to the LLM per image."""
        if self.projector.has_queries:
            return self.projector.num_query_tokens
        return self.num_image_tokens // self.projector.tokens_per_group

    def with_tiles(self, rows: int, columns: int) -> ModelConfig:
        """Return the same model on another tile grid (weights do not depend on it).

        Raises:
            ConfigError: The tokens of that grid cannot be divided among the partial tokens.
        """
        values = self.model_dump() | {"tile_rows": rows, "tile_columns": columns}
        return ModelConfig.parse(values, source=f"tiles {rows}x{columns}")
