"""Make the golden towers: tiny random models of `transformers` with what they compute.

    python tests/golden/towers/make.py

Each folder is a directory as `save_pretrained` writes it; `golden.safetensors` beside it holds the normalised input
`pixel_values [B, 3, S, S]`, every entry of `hidden_states` and `last_hidden_state`; and pictures `[H, W, 3]` with what the
image processors make of them (those that use Pillow). Made with transformers 5.23.0 and Pillow 13.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

HERE = Path(__file__).parent
SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
# SigLIP's 26 pixels hold 6 whole patches and 2 pixels that no patch sees, as 384 pixels of the published one do.
CLIP = {"image_size": 24, "patch_size": 4}
PICTURES = ((40, 31), (17, 53), (24, 24), (9, 8))
SIGLIP = {"image_size": 26, "patch_size": 4}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Let every weight matter: no bias is 0, no gain is 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weight.copy_(1 + 0.3 * noise)
        elif name.endswith("weight") and weight.ndim > 1:
            weight.copy_(noise * 1.3 / weight[0].numel() ** 0.5)
        else:
            weight.copy_(0.4 * noise)


@torch.no_grad()
def make(name: str, model: Any, processor: Any) -> None:
    """Write one folder."""
    folder = HERE / name
    model.eval()
    randomise(model, 0)
    side = model.config.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    found = model(pixel_values=pixels, output_hidden_states=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tensors = {f"hidden_states.{index}": state for index, state in enumerate(found.hidden_states)}
    tensors |= {"pixel_values": pixels, "last_hidden_state": found.last_hidden_state}
    draw = np.random.default_rng(2)
    for index, size in enumerate(PICTURES):
        picture = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
        tensors[f"pictures.{index}"] = torch.from_numpy(picture)
        tensors[f"prepared.{index}"] = processor(Image.fromarray(picture), return_tensors="pt")[
            "pixel_values"
        ]
    # Not inside the folder: a model's directory holds one checkpoint.
    save_file(
        {key: value.contiguous().clone() for key, value in tensors.items()}, HERE / f"{name}.io.safetensors"
    )


def main() -> None:
    """Make both."""
    clip_pictures = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    make("clip", CLIPVisionModel(CLIPVisionConfig(**SIZES, **CLIP)), CLIPImageProcessorPil(**clip_pictures))
    siglip_pictures = {"size": {"height": 26, "width": 26}}
    make(
        "siglip",
        SiglipVisionModel(SiglipVisionConfig(**SIZES, **SIGLIP)),
        SiglipImageProcessorPil(**siglip_pictures),
    )


if __name__ == "__main__":
    main()
