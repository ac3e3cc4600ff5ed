"""A bundle of a small random model with an input of any size: for what does not depend on the weights."""

from __future__ import annotations

from pathlib import Path

from pargo_export import export_onnx, load_checkpoint, write_sample
from pargo_export.checkpoint.presets import preset
from pargo_export.config import ModelConfig

__all__ = ["small_bundle"]


def small_bundle(folder: Path, image_size: int, *, num_layers: int) -> Path:
    """Return a bundle with the variant fp32; made if it is not there.

    Args:
        folder: Where bundles are kept.
        image_size: Side of the input, in pixels; a multiple of 42.
        num_layers: Of the tower, and of the projector.
    """
    path = folder / f"bundle-{image_size}-{num_layers}"
    if not path.exists():
        tiny = preset("tiny")
        vision = tiny.vision.model_copy(update={"image_size": image_size, "num_layers": num_layers})
        projector = tiny.projector.model_copy(update={"num_layers": num_layers})
        checkpoint = folder / f"{path.name}.safetensors"
        write_sample(checkpoint, ModelConfig(vision=vision, projector=projector), overwrite=True)
        export_onnx(load_checkpoint(checkpoint), path)
    return path
