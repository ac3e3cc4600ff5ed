"""The whole visual front-end: pixels to visual tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, overload

import torch
from torch import Tensor, nn

from pargo_export.checkpoint.report import CheckpointReport
from pargo_export.config import ModelConfig, TowerConfig, VitConfig
from pargo_export.errors import InputError
from pargo_export.model.projector import build_projector
from pargo_export.model.tower import VisionTower
from pargo_export.model.vit_tower import VitTower
from pargo_export.preprocessing import PictureDefaults

__all__ = ["Intermediates", "VisualFrontEnd", "split_tiles"]


@dataclass(frozen=True)
class Intermediates:
    """What the stages of the front-end compute; also readable as `intermediates["visual_tokens"]`.

    Attributes:
        image_features: `[B, N, C]`, after `ln_vision`, class tokens dropped, tiles concatenated.
        layers: Hidden states `[B, Q, C_q]` after each query layer (one entry, the groups, for linear and MLP).
        query_output: The last of `layers`: what the LLM projection takes.
        visual_tokens: `[B, Q, C_llm]`.
    """

    image_features: Tensor
    layers: tuple[Tensor, ...]
    query_output: Tensor
    visual_tokens: Tensor

    def __getitem__(self, name: str) -> Tensor:
        if name not in {field.name for field in fields(self)} - {"layers"}:
            raise KeyError(name)
        value: Tensor = getattr(self, name)
        return value


def split_tiles(pixel_values: Tensor, size: int) -> Tensor:
    """Cut images into square tiles, row by row: `[B, 3, R*S, C*S]` -> `[B*R*C, 3, S, S]`."""
    rows, columns = pixel_values.shape[-2] // size, pixel_values.shape[-1] // size
    if rows * columns == 1:
        return pixel_values
    tiles = pixel_values.unflatten(-1, (columns, size)).unflatten(-3, (rows, size))  # [B, 3, R, S, C, S]
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


class DropClassToken(nn.Module):
    """Leave out the first token."""

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, 1+N, C]` -> `[B, N, C]`."""
        return tokens[:, 1:]


def build_tower(config: TowerConfig) -> VisionTower | VitTower:
    """Build the tower that a configuration describes."""
    return VitTower(config) if isinstance(config, VitConfig) else VisionTower(config)


class VisualFrontEnd(nn.Module):
    """Tower, `ln_vision` and projector of a ParGo multimodal model, without the LLM.

    Attributes:
        config: What was built.
        pictures: How the published tower wants its pictures; `None`: as the official ParGo code does it.
        report: What `load_checkpoint` read and left out; `None` for a model that came from no checkpoint.
    """

    report: CheckpointReport | None = None
    pictures: PictureDefaults | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = build_tower(config.vision)
        self.output_norm: nn.LayerNorm = nn.LayerNorm(config.vision.width, eps=config.vision.output_norm_eps)
        self.select_patches: nn.Module = DropClassToken() if config.vision.has_class_token else nn.Identity()
        self.projector = build_projector(config.projector)

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Encode every tile and concatenate the tiles' tokens.

        Args:
            pixel_values: `[B, 3, R*S, C*S]`, normalised.

        Returns:
            `[B, N, C]`, N = tiles x patches, tiles in row-major order.

        Raises:
            InputError: The image is not a whole number of tiles.
        """
        size = self.config.vision.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[-1] % size or pixel_values.shape[-2] % size:
            raise InputError(
                f"pixel_values has shape {list(pixel_values.shape)}, expected [batch, "
                f"{self.config.vision.in_channels}, height, width] with both sides a multiple of {size}"
            )
        features: Tensor = self.select_patches(self.output_norm(self.tower(split_tiles(pixel_values, size))))
        num_tiles = (pixel_values.shape[-2] // size) * (pixel_values.shape[-1] // size)
        return features if num_tiles == 1 else features.unflatten(0, (-1, num_tiles)).flatten(1, 2)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """`[B, 3, R*S, C*S]`, normalised -> visual tokens `[B, Q, C_llm]`."""
        visual_tokens: Tensor = self.projector(self.image_features(pixel_values))[1]
        return visual_tokens

    @overload
    def encode_images(
        self, pixel_values: Tensor, *, return_intermediates: Literal[True]
    ) -> Intermediates: ...
    @overload
    def encode_images(
        self, pixel_values: Tensor, *, return_intermediates: Literal[False] = ...
    ) -> Tensor: ...
    @torch.no_grad()
    def encode_images(
        self, pixel_values: Tensor, *, return_intermediates: bool = False
    ) -> Tensor | Intermediates:
        """Run the reference without gradients.

        Args:
            pixel_values: `[B, 3, R*S, C*S]`, normalised float; any tile grid whose tokens divide evenly.
            return_intermediates: Return every stage instead of the visual tokens alone.

        Raises:
            InputError: The image is not a whole number of tiles.
            ConfigError: The tokens of this tile grid cannot be divided among the partial tokens.
        """
        image_features = self.image_features(pixel_values)
        layers, visual_tokens = self.projector(image_features)
        if not return_intermediates:
            return visual_tokens
        return Intermediates(image_features, tuple(layers), layers[-1], visual_tokens)
