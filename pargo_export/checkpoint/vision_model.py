"""A CLIP or SigLIP vision model in a directory of `transformers`, read without `transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pargo_export.checkpoint.files import open_source
from pargo_export.checkpoint.official_config import read_json
from pargo_export.checkpoint.preprocessor_file import read_picture_defaults
from pargo_export.checkpoint.source import TensorSource
from pargo_export.checkpoint.vit_keys import full_vit_names
from pargo_export.config import VitActivation, VitConfig, VitKind
from pargo_export.errors import CheckpointError, ConfigError
from pargo_export.preprocessing import PictureDefaults

__all__ = ["VisionLayer", "VisionModel", "is_vision_model", "open_vision_model"]

VisionLayer: TypeAlias = int | Literal["last"]

# What the configuration classes of transformers fill in; published files leave much of it out.
_DEFAULTS: dict[VitKind, dict[str, Any]] = {
    "clip": {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "siglip": {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
}
_SHARED_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
}
_KINDS: dict[str, VitKind] = {
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
}
_ACTIVATIONS: dict[str, VitActivation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
# LLaVA and BLIP-2 take CLIP's features before the last block, which was trained for the class token alone; SigLIP's are
# taken as its class hands them out, behind post_layernorm (PaliGemma, Idefics).
_USUAL_LAYER: dict[VitKind, VisionLayer] = {"clip": -2, "siglip": "last"}


@dataclass(frozen=True)
class VisionModel:
    """What the directory holds.

    Attributes:
        config: The tower, up to the layer that was asked for.
        pictures: How it wants its pictures.
        source: Its tensors, under the names of a whole multimodal model.
    """

    config: VitConfig
    pictures: PictureDefaults
    source: TensorSource


def is_vision_model(path: str | Path) -> bool:
    """Whether a path is a directory of `transformers` with a model type of its own, not one of EVA-CLIP."""
    config = Path(path) / "config.json"
    if not config.is_file():
        return False
    content = read_json(config)
    names = content.get("architectures") or ()
    return "model_type" in content and not any(str(name).startswith("Eva") for name in names)


def open_vision_model(directory: str | Path, layer: VisionLayer | None = None) -> VisionModel:
    """Open a directory with `config.json`, `preprocessor_config.json` and weights; no weight is read yet.

    Args:
        directory: Of a `CLIPModel`, `CLIPVisionModel`, `SiglipModel` or `SiglipVisionModel`.
        layer: Where the features are taken: -1 is what leaves the last block, -2 what leaves the one before it;
            `"last"` is the model's `last_hidden_state`, for SigLIP behind `post_layernorm`. `None`: -2 for CLIP,
            `"last"` for SigLIP.

    Raises:
        ConfigError: A file is missing or describes another architecture, or there is no such layer.
        UnsafeCheckpointError: Reading the weights would execute code.
        CheckpointError: The weights are missing, ambiguous or broken.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"{directory}: found no config.json, expected a directory of transformers with a CLIP or SigLIP vision "
            "model: config.json, preprocessor_config.json, model.safetensors"
        )
    config = _read_config(directory / "config.json", layer)
    pictures = read_picture_defaults(directory, config.image_size)
    source = _open_weights(directory)
    names = full_vit_names(source.tensors)
    tensors = {names[key]: tensor for key, tensor in source.tensors.items()}
    note = f"image features: {_describe_layer(config)} of {config.kind} with {config.num_published_layers} blocks"
    if layer is None:
        note += "; the usual place, give --vision-layer if the projector was trained on another one"
    return VisionModel(config, pictures, source.renamed(tensors, note))


def _describe_layer(config: VitConfig) -> str:
    if config.has_final_norm:
        return "last_hidden_state, behind post_layernorm,"
    return f"hidden_states[{config.vision_layer}]"


def _open_weights(directory: Path) -> TensorSource:
    """Published directories often hold the same weights in both formats: the safe one is taken."""
    for name in (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ):
        if (directory / name).is_file():
            return open_source(directory / name)
    try:
        return open_source(directory)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; expected model.safetensors or pytorch_model.bin") from error


def _read_config(path: Path, layer: VisionLayer | None) -> VitConfig:
    content = read_json(path)
    kind = _KINDS.get(str(content.get("model_type")))
    if kind is None:
        raise ConfigError(
            f"{path}: found model_type {content.get('model_type')!r}, expected one of {', '.join(_KINDS)}"
            + ("; NaFlex inputs have no fixed patch grid" if content.get("model_type") == "siglip2" else "")
        )
    section = content.get("vision_config", content)
    if not isinstance(section, Mapping):
        raise ConfigError(f"{path}: vision_config is a {type(section).__name__}, expected an object")
    values = _SHARED_DEFAULTS | _DEFAULTS[kind] | dict(section)
    for name in ("image_size", "patch_size"):
        values[name] = _square(values[name], name, path)
    activation = _ACTIVATIONS.get(str(values["hidden_act"]))
    if activation is None:
        raise ConfigError(
            f"{path}: found hidden_act {values['hidden_act']!r}, expected one of {', '.join(_ACTIVATIONS)}"
        )
    layer = _USUAL_LAYER[kind] if layer is None else layer
    number = -1 if layer == "last" else layer
    num_blocks = _positive(values["num_hidden_layers"], "num_hidden_layers", path)
    if not -num_blocks <= number <= -1:
        raise ConfigError(
            f"vision layer {number}: {path} has {num_blocks} blocks; expected 'last', or a number from {-num_blocks} "
            "to -1 (the output of the last block)"
        )
    heads, width = (_positive(values[name], name, path) for name in ("num_attention_heads", "hidden_size"))
    if width % heads:
        raise ConfigError(f"{path}: hidden_size {width} is not a multiple of num_attention_heads {heads}")
    found = {
        "kind": kind,
        "image_size": values["image_size"],
        "patch_size": values["patch_size"],
        "width": width,
        "num_layers": num_blocks + 1 + number,
        "head_width": width // heads,
        "hidden_width": values["intermediate_size"],
        "layer_norm_eps": values["layer_norm_eps"],
        "activation": activation,
        "vision_layer": number,
        "has_final_norm": kind == "siglip" and layer == "last",
        "in_channels": values["num_channels"],
    }
    return VitConfig.parse(found, source=str(path))


def _positive(value: Any, name: str, path: Path) -> int:
    if type(value) is not int or value < 1:
        raise ConfigError(f"{path}: found {name} {value!r}, expected a positive integer")
    return value


def _square(value: Any, name: str, path: Path) -> Any:
    """Return the side where both are given."""
    if isinstance(value, (list, tuple)):
        if len(set(value)) != 1:
            raise ConfigError(f"{path}: found {name} {value}, expected a square")
        return value[0]
    return value
