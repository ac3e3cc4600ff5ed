"""Small random front-ends of any shape, for what the golden cases do not have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pargo_export.config import ModelConfig
from pargo_export.model.frontend import VisualFrontEnd

__all__ = ["ODD_CONFIGS", "random_config", "random_images", "random_model"]

_VISION = {
    "image_size": 24,
    "patch_size": 4,
    "width": 24,
    "num_layers": 2,
    "head_width": 12,
    "hidden_width": 45,
    "head_features": 8,
}
_PROJECTOR = {
    "kind": "pargo",
    "encoder_width": 24,
    "llm_hidden_size": 20,
    "num_partial_tokens": 9,
    "num_global_tokens": 3,
    "hidden_size": 30,
    "num_layers": 3,
    "num_heads": 3,
    "intermediate_size": 44,
    "max_position_embeddings": 40,
}


def random_config(
    *, tiles: tuple[int, int] = (1, 1), vision: dict[str, Any] | None = None, **projector: Any
) -> ModelConfig:
    """Return a small configuration, 36 image tokens a tile, with the given fields changed."""
    rows, columns = tiles
    values = {
        "vision": _VISION | (vision or {}),
        "projector": _PROJECTOR | projector,
        "tile_rows": rows,
        "tile_columns": columns,
    }
    return ModelConfig.parse(values, source="test")


def random_model(config: ModelConfig, seed: int = 0) -> VisualFrontEnd:
    """Return a float32 reference in which every weight matters: no bias is 0, no gain is 1."""
    model = VisualFrontEnd(config).eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weight.copy_(1 + 0.3 * noise)
        elif name.endswith("weight"):
            weight.copy_(noise * 1.3 / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.4 * noise)
    return model


def random_images(config: ModelConfig, batch: int = 2, seed: int = 1) -> Tensor:
    """Return normalised images `[B, 3, H, W]`, float32."""
    shape = (batch, config.vision.in_channels, *config.input_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


ODD_CONFIGS: dict[str, ModelConfig] = {
    "cascaded": random_config(num_partial_tokens=18, partial_attention_windows=(3, None, 1)),
    "cascaded_beyond_the_ends": random_config(partial_attention_windows=(5, 17, 99)),
    "no_global": random_config(num_partial_tokens=12, num_global_tokens=0),
    "no_global_cascaded": random_config(num_global_tokens=0, partial_attention_windows=(3, 3, None)),
    "one_global": random_config(num_global_tokens=1),
    "one_partial": random_config(num_partial_tokens=1),
    "window_of_one": random_config(num_partial_tokens=36),
    "sparse_cross": random_config(cross_attention_freq=2),
    "cross_in_the_first_layer_only": random_config(cross_attention_freq=7),
    "qformer_one_query": random_config(kind="qformer", num_partial_tokens=0, num_global_tokens=1),
    "qformer_with_windows": random_config(
        kind="qformer", num_partial_tokens=0, partial_attention_windows=(1, 3, None)
    ),
    "tiles_1x2": random_config(tiles=(1, 2), num_partial_tokens=8),
    "tiles_2x2": random_config(tiles=(2, 2), num_partial_tokens=16, partial_attention_windows=(1, 3, None)),
    "linear_tiles_1x2": random_config(tiles=(1, 2), kind="linear", tokens_per_group=9),
    "mlp_tiles_2x1": random_config(tiles=(2, 1), kind="mlp", tokens_per_group=6),
    "one_block_one_layer": random_config(vision={"num_layers": 1}, num_layers=1),
    "other_epsilons": random_config(
        vision={"layer_norm_eps": 3e-2, "output_norm_eps": 2e-2}, layer_norm_eps=1e-2
    ),
    "aligned_hidden_width": random_config(vision={"hidden_width": 64}),
    "hidden_width_above_a_multiple": random_config(vision={"hidden_width": 65}),
}
