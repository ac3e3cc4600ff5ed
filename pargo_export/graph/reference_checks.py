"""Hold a bundle against the checkpoint that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pargo_export.bundle import Bundle, Limits, Variant
from pargo_export.checkpoint.config_file import ConfigSource
from pargo_export.checkpoint.reader import VisionSource
from pargo_export.checkpoint.vision_model import is_vision_model, open_vision_model
from pargo_export.config import ModelConfig, VitConfig
from pargo_export.errors import ConfigError
from pargo_export.graph.check import Check, CheckFailure, perform, summarize_evidence
from pargo_export.graph.comparison import PARITY_LIMITS, require_parity
from pargo_export.graph.graph_checks import expendable_graph
from pargo_export.graph.options import ExportOptions
from pargo_export.graph.parity import measure_parity, reference_cases
from pargo_export.graph.provenance import weights_sha256
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.loading import load_checkpoint

__all__ = ["check_against_checkpoint"]


def check_against_checkpoint(
    bundle: Bundle,
    variants: Sequence[Variant],
    checkpoint: Path,
    *,
    config: ConfigSource | None,
    vision_checkpoint: Path | None,
    progress: Callable[[str], None],
) -> list[Check]:
    """Compare configuration and weights, and measure the parity of every variant again.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ConfigError: Its configuration is incomplete or contradicts it.
    """
    progress("loading the checkpoint")
    model = load_checkpoint(checkpoint, config, _as_exported(vision_checkpoint, bundle.manifest.model))
    checks = [perform("checkpoint: configuration", lambda: _adopt_tiles(model, bundle.manifest.model))]
    if not checks[0].ok:
        return checks  # graphs of another architecture cannot be compared
    progress("hashing the weights")
    checks.append(perform("checkpoint: weights", lambda: _check_weights(model, bundle)))
    for variant in variants:
        progress(f"comparing {variant.name} with the reference")
        checks.append(_check_parity(bundle, variant, model))
    return checks


def _as_exported(vision: Path | None, expected: ModelConfig) -> VisionSource | None:
    """Take the features of a CLIP or SigLIP vision model from the layer that the bundle takes them from."""
    if vision is None or not isinstance(expected.vision, VitConfig) or not is_vision_model(vision):
        return vision
    return open_vision_model(
        vision, "last" if expected.vision.has_final_norm else expected.vision.vision_layer
    )


def _adopt_tiles(model: VisualFrontEnd, expected: ModelConfig) -> str:
    """Give the model the tile grid of the bundle, which no checkpoint decides, and compare the rest."""
    try:
        config = model.config.with_tiles(expected.tile_rows, expected.tile_columns)
    except ConfigError as error:
        raise CheckFailure(f"it is another model: {error}") from error
    found, wanted = config.model_dump(), expected.model_dump()
    differing = [
        f"{part}.{name} {found[part].get(name)} (manifest: {value})"
        for part in ("vision", "projector")
        for name, value in wanted[part].items()
        if found[part].get(name) != value
    ]
    if differing:
        raise CheckFailure(f"it is another model: {', '.join(differing)}")
    model.config = config
    return f"{config.projector.kind}, the one of the manifest"


def _check_weights(model: VisualFrontEnd, bundle: Bundle) -> str:
    found, recorded = weights_sha256(model), bundle.manifest.source.sha256
    if found != recorded:
        raise CheckFailure(f"sha256 {found[:12]}, but the bundle was made from {recorded[:12]}; export again")
    return f"sha256 {found[:12]}"


def _check_parity(bundle: Bundle, variant: Variant, model: VisualFrontEnd) -> Check:
    """Compare the graph's own output; the boundaries inside it were compared at export."""

    def measure() -> str:
        limits = _limits(variant)
        options = ExportOptions(
            component=variant.component, input_kind=variant.input, max_batch=variant.max_batch
        )
        noise = () if variant.quantization is not None and variant.quantization.quantized else (2, 3)
        cases = reference_cases(model, options, bundle.manifest.preprocessing, noise_batches=noise)
        with expendable_graph(bundle, variant) as graph:
            evidence = measure_parity(graph, {}, cases, variant.float_precision, None, limits)
        require_parity(evidence)
        return summarize_evidence(evidence)

    return perform(f"{variant.name}: parity", measure)


def _limits(variant: Variant) -> Limits:
    """The limits of the precision; a quantized variant brings its own, which was measured on photographs.

    Photographs of the calibration are not at hand here, so only the bundled one is compared: noise has activations
    outside the calibrated ranges.
    """
    if variant.precision in PARITY_LIMITS:
        return PARITY_LIMITS[variant.precision]
    if variant.evidence is None:
        raise CheckFailure("the manifest has no accuracy evidence; quantize again")
    return variant.evidence.limits
