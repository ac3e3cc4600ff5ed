"""The vision towers: EVA-02, and the plain vision transformers of CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import model_validator
from typing_extensions import Self

from pargo_export.config.record import Epsilon, Positive, Record

__all__ = ["TowerConfig", "VisionConfig", "VitActivation", "VitConfig", "VitKind", "parse_tower"]

VitKind = Literal["clip", "siglip"]
VitActivation = Literal["quick_gelu", "gelu", "gelu_tanh"]


class _Tower(Record):
    """What every tower has; one size of square input, square patches, equal heads."""

    image_size: Positive
    patch_size: Positive = 14
    width: Positive
    num_layers: Positive
    head_width: Positive
    hidden_width: Positive
    layer_norm_eps: Epsilon = 1e-6
    output_norm_eps: Epsilon = 1e-5

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.head_width:
            raise ValueError(f"width {self.width} is not a multiple of head_width {self.head_width}")
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


class VisionConfig(_Tower):
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
        if self.head_width % 4:
            raise ValueError(
                f"head_width {self.head_width} is not a multiple of 4, which 2-D rotary positions need"
            )
        return self

    @property
    def has_class_token(self) -> bool:
        """Whether a token stands in front of the patches."""
        return True


class VitConfig(_Tower):
    """A plain pre-norm vision transformer with learned positions: CLIP (arXiv 2103.00020) or SigLIP (2303.15343).

    As `CLIPVisionModel` and `SiglipVisionModel` of `transformers` compute it. `num_layers` blocks run; what the
    published tower has beyond the layer that the features are taken from is neither loaded nor exported.

    Attributes:
        kind: `clip` has a class token, a norm before the blocks and no patch bias; `siglip` the opposite of each.
        image_size: Side of the square input of the tower, in pixels; one tile. What is left beyond a whole
            number of patches is not seen (6 of 384 pixels in `siglip-so400m-patch14-384`).
        patch_size: Side of a patch, in pixels.
        width: Channels C of the residual stream.
        num_layers: Blocks that run.
        head_width: Channels D of one attention head.
        hidden_width: Hidden channels of the feed-forward.
        layer_norm_eps: Epsilon of every LayerNorm inside the tower.
        output_norm_eps: Epsilon of `ln_vision`, the LayerNorm after the tower.
        activation: Of the feed-forward: `x sigmoid(1.702 x)`, GELU, or its approximation by a tanh.
        vision_layer: Where the features are taken: -1 is what leaves the last block of the published tower, -2 what
            leaves the one before it, and so on (`hidden_states[vision_layer]` in `transformers`).
        has_final_norm: Whether `post_layernorm` is applied to them, as to SigLIP's `last_hidden_state`.
        in_channels: Colour channels of the input.
    """

    kind: VitKind
    activation: VitActivation
    vision_layer: int = -1
    has_final_norm: bool = False
    in_channels: Positive = 3

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than a patch of {self.patch_size}")
        if self.vision_layer >= 0:
            raise ValueError(f"vision_layer {self.vision_layer}: expected -1 (the last block), -2, ...")
        return self

    @property
    def has_class_token(self) -> bool:
        """Whether a token stands in front of the patches."""
        return self.kind == "clip"

    @property
    def num_published_layers(self) -> int:
        """Blocks of the published tower, with those that are left out."""
        return self.num_layers - 1 - self.vision_layer


TowerConfig: TypeAlias = VisionConfig | VitConfig


def parse_tower(values: Any) -> Any:
    """Turn a mapping into the record of its `kind`; without one it is an EVA-02, as in bundles of all versions."""
    if not isinstance(values, Mapping):
        return values
    record: type[VisionConfig | VitConfig] = VitConfig if "kind" in values else VisionConfig
    return record.model_validate(values)
