"""The module that is traced: one component of the deploy model with its inputs, outputs and stage boundaries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pargo_export.config import ModelConfig, VisionConfig
from pargo_export.graph.options import ExportOptions
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.signature import Signature, TensorSpec

__all__ = ["BATCH_AXIS", "ComponentModule", "boundary_names", "component_signature", "example_input"]

BATCH_AXIS = "batch"
IMAGE_FEATURES = "image_features"
NORMALIZED_FEATURES = (
    "normalized_features"  # ln_vision without its affine part: see rewrite/fold_output_norm.py
)


def boundary_names(config: ModelConfig, options: ExportOptions, *, folded: bool) -> list[str]:
    """Return the stage boundaries inside the graph, in order, beside the graph's own output."""
    names = []
    if options.component == "all":
        names.append(NORMALIZED_FEATURES if folded else IMAGE_FEATURES)
    if options.component != "encoder" and config.projector.has_queries:
        names += [f"query_layer_{layer}" for layer in range(config.projector.num_layers)]
    return names


def component_signature(config: ModelConfig, options: ExportOptions) -> Signature:
    """Return names, dtypes and axes of the component's input and output; both ends are float32 or uint8."""
    batch: int | str = BATCH_AXIS if options.max_batch > 1 else 1
    height, width = config.input_size
    features = TensorSpec(
        name=IMAGE_FEATURES,
        dtype="float32",
        shape=(batch, config.num_image_tokens, config.vision.width),
        description="Output of ln_vision without class tokens, tiles concatenated in row-major order.",
    )
    is_eva = isinstance(config.vision, VisionConfig)
    statistics = "CLIP mean and std" if is_eva else "mean and std of the preprocessing"
    uint8 = options.input_kind == "uint8"
    pixels = TensorSpec(
        name="pixel_values",
        dtype="uint8" if uint8 else "float32",
        shape=(batch, config.vision.in_channels, height, width),
        description="RGB pixels, 0..255." if uint8 else f"RGB pixels, normalised with the {statistics}.",
    )
    tokens = TensorSpec(
        name="visual_tokens",
        dtype="float32",
        shape=(batch, config.num_visual_tokens, config.projector.llm_hidden_size),
        description="Visual tokens in the embedding space of the LLM; partial tokens first, then global ones."
        if config.projector.kind == "pargo"
        else "Visual tokens in the embedding space of the LLM.",
    )
    return Signature(
        inputs=(features if options.component == "projector" else pixels,),
        outputs=(features if options.component == "encoder" else tokens,),
    )


class ComponentModule(nn.Module):
    """Returns the output first and the stage boundaries after it, all float32."""

    def __init__(self, front_end: VisualFrontEnd, options: ExportOptions) -> None:
        super().__init__()
        self.front_end = front_end
        self.component = options.component
        self.takes_pixels = options.input_kind == "uint8"
        self.dtype = getattr(torch, options.precision)

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        """Run the component on `pixel_values` or `image_features`."""
        if not self.takes_pixels:  # the pixel patch embedding casts by itself
            values = values.to(self.dtype)
        if self.component == "encoder":
            return (self.front_end.image_features(values).float(),)
        features = values if self.component == "projector" else self.front_end.image_features(values)
        layers, tokens = self.front_end.projector(features)
        if not self.front_end.config.projector.has_queries:
            layers = []  # the groups are the image features, reshaped
        boundaries = layers if self.component == "projector" else [features, *layers]
        return tokens.float(), *(boundary.float() for boundary in boundaries)


def example_input(signature: Signature) -> Tensor:
    """A traced example: batch 2 where the batch is dynamic, because tracers take 1 for a constant."""
    spec = signature.inputs[0]
    shape = [2 if isinstance(size, str) else size for size in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))
