"""What is estimated: a configuration and the form in which its graph is written, from a bundle, a preset or a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pargo_calibration.recipe_files import load_recipe
from pargo_export.bundle import Bundle, Variant
from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.config import ModelConfig, VisionConfig
from pargo_export.errors import ConfigError
from pargo_export.estimation.precisions import Precision
from pargo_export.inspect.walk import Form

__all__ = ["GPU_REWRITES", "Source", "Subject", "linear_paths", "read_subject"]

Source = Bundle | ModelConfig | str | os.PathLike[str]
# What an export for a GPU applies, of the rewrites that change what is counted.
GPU_REWRITES = frozenset(
    {
        "drop-class-token",
        "drop-unused-weights",
        "fold-class-token",
        "fold-output-norm",
        "merge-cross-kv",
        "merge-qkv",
        "merge-swiglu",
        "pad-swiglu",
        "precompute-first-layer",
    }
)
_RECIPES: dict[Precision, str] = {"int8": "int8", "fp8": "fp8", "int8-weight-only": "int8-weight-only"}
_VARIANT_PRECISIONS: dict[Precision, str] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "fp8",
    "int8": "int8",
    "int8-weight-only": "int8_weight_only",
}


@dataclass(frozen=True)
class Subject:
    """What is estimated.

    Attributes:
        config: The model.
        form: How its graph is written.
        component: Which part of it the graph computes.
        variant: The variant of a bundle that this is; `None`: what an export for a GPU would write.
    """

    config: ModelConfig
    form: Form
    component: Literal["all", "encoder", "projector"] = "all"
    variant: str | None = None


def read_subject(source: Source, precision: Precision) -> Subject:
    """Find out what to estimate.

    A bundle contributes its variant of that precision, preferably one that was made for a GPU; without one, and for
    presets and configurations, the form is that of an export for a GPU.

    Args:
        source: A bundle or its directory, a preset, a JSON file with a complete configuration, or a configuration.
        precision: What the products are in.

    Raises:
        ConfigError: It is none of these, or the configuration is incomplete.
        BundleError: The directory holds no valid bundle.
    """
    if isinstance(source, ModelConfig):
        return _as_exported(source, precision)
    if isinstance(source, str) and source in PRESETS:
        return _as_exported(preset(source), precision)
    if not isinstance(source, Bundle):
        path = Path(source)
        if not path.is_dir():
            return _as_exported(_read_config(path), precision)
        source = Bundle.open(path)
    manifest = source.manifest
    found = [
        variant
        for variant in manifest.variants.values()
        if variant.precision == _VARIANT_PRECISIONS[precision]
    ]
    if not found:
        return _as_exported(manifest.model, precision)
    variant = min(found, key=_preference)
    return Subject(manifest.model, _form(variant), variant.component, variant.name)


def _preference(variant: Variant) -> tuple[bool, bool, str]:
    return variant.component != "all", variant.target == "cpu", variant.name


def _form(variant: Variant) -> Form:
    quantized = variant.quantization.quantized if variant.quantization else ()
    return Form(
        attention=variant.attention,
        rewrites=frozenset(variant.rewrites),
        quantized=frozenset(quantized),
        quantizes_activations=variant.precision != "int8_weight_only",
    )


def _as_exported(config: ModelConfig, precision: Precision) -> Subject:
    quantized: frozenset[str] = frozenset()
    if precision in _RECIPES:
        recipe = load_recipe(_RECIPES[precision])
        quantized = frozenset(path for path in linear_paths(config) if recipe.kept_by(path) is None)
    return Subject(config, Form("fused", GPU_REWRITES, quantized, precision != "int8-weight-only"))


def _read_config(path: Path) -> ModelConfig:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such bundle or file, and no preset; the presets are {', '.join(PRESETS)}"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a JSON file ({error}); pass a configuration as JSON") from error
    if not isinstance(content, dict) or not {"vision", "projector"} <= set(content):
        raise ConfigError(
            f"{path.name}: expected an object with vision and projector, the model of a bundle's manifest; an official "
            "configuration does not describe the tower: pass a bundle or a preset"
        )
    return ModelConfig.parse(content, source=path.name)


def linear_paths(config: ModelConfig) -> Iterator[str]:
    """Yield the module paths of all linears."""
    yield "tower.patch_embedding"
    is_eva = isinstance(config.vision, VisionConfig)
    for layer in range(config.vision.num_layers):
        block = f"tower.blocks.{layer}"
        yield from (f"{block}.attention.qkv.{part}" for part in ("query", "key", "value"))
        yield f"{block}.attention.output"
        names = ("gate_up.gate", "gate_up.up", "down") if is_eva else ("up", "down")
        yield from (f"{block}.mlp.{part}" for part in names)
    projector = config.projector
    if not projector.has_queries:
        if projector.kind == "linear":
            yield "projector.llm_projection"
        else:
            yield from (f"projector.llm_projection.{index}" for index in (0, 2))
        return
    for layer in range(projector.num_layers):
        path = f"projector.layers.{layer}"
        yield from (f"{path}.self_attention.qkv.{part}" for part in ("query", "key", "value"))
        yield f"{path}.self_attention.output"
        if projector.has_cross_attention(layer):
            yield f"{path}.cross_attention.query"
            yield from (f"{path}.cross_attention.key_value.{part}" for part in ("key", "value"))
            yield f"{path}.cross_attention.output"
        yield from (f"{path}.feed_forward.{part}" for part in ("up", "down"))
    yield "projector.llm_projection"
