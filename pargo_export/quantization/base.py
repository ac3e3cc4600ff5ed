"""Which variant a calibration observes, and which one is quantized."""

from __future__ import annotations

from collections.abc import Iterable

from pargo_export.bundle import Bundle, Calibration, Variant
from pargo_export.errors import CalibrationError, QuantizationError

__all__ = ["find_base", "find_calibration_base", "find_reference", "require_match"]

# Rewrites that leave the values of every activation as they are: padded channels are zero, and normalisation that
# is folded into the patch embedding changes the input of that one only (`Workbench.keep`).
_VALUE_PRESERVING = frozenset({"pad-swiglu", "fold-normalization"})


def find_calibration_base(bundle: Bundle, name: str | None) -> Variant:
    """Return the float32 variant whose activations are to be observed.

    Raises:
        BundleError: There is no variant of that name.
        CalibrationError: It, or every variant, cannot be observed.
    """
    named = [bundle.variant(name)] if name is not None else list(bundle.manifest.variants.values())
    fitting = [item for item in named if _takes_pixels(item) and item.precision == "float32"]
    if not fitting:
        found = _describe(named)
        raise CalibrationError(
            f"found {found}; expected a float32 variant that takes normalised pixels: export one into the bundle "
            "(pargo-export onnx CHECKPOINT -o BUNDLE)"
        )
    return min(fitting, key=lambda item: (item.component != "all", item.target != "cpu", item.name))


def find_reference(bundle: Bundle, base: Variant) -> Variant:
    """Return the float32 variant that a variant made from `base` is held against.

    Raises:
        QuantizationError: The bundle has none of the same component.
    """
    fitting = [
        item
        for item in bundle.manifest.variants.values()
        if item.precision == "float32" and item.component == base.component and item.input == base.input
    ]
    if not fitting:
        raise QuantizationError(
            f"the bundle has {_describe(bundle.manifest.variants.values())}; expected a float32 variant of component "
            f"{base.component!r} and input {base.input!r} to measure accuracy against: export one into the bundle"
        )
    return min(fitting, key=lambda item: (item.name != base.name, item.target != base.target, item.name))


def find_base(
    bundle: Bundle, name: str | None, *, target: str, float_precision: str, convert: bool = False
) -> Variant:
    """Return the float variant to quantize for a target.

    The best one was exported for that target in the wanted float precision; else a float32 one is converted.

    Args:
        bundle: The bundle.
        name: Name of the variant; `None` for the best one.
        target: Device family.
        float_precision: What the float part is to have.
        convert: Changing the float precision is all that is wanted, so only float32 will do.

    Raises:
        BundleError: There is no variant of that name.
        QuantizationError: It, or every variant, does not fit.
    """
    named = [bundle.variant(name)] if name is not None else list(bundle.manifest.variants.values())
    precisions = {"float32"} if convert else {"float32", float_precision}
    quantized = [item for item in named if item.quantization is not None and item.quantization.quantized]
    if name is not None and quantized:
        raise QuantizationError(
            f"variant {name!r} is quantized already ({named[0].precision}); expected a float variant: quantize "
            f"{quantized[0].quantization.base!r}, which it was made from"  # type: ignore[union-attr]
        )
    fitting = [item for item in named if item not in quantized and item.precision in precisions]
    if not fitting:
        raise QuantizationError(
            f"found {_describe(named)}; expected a variant in {' or '.join(sorted(precisions))}: export one into the bundle "
            "(pargo-export onnx CHECKPOINT -o BUNDLE)"
        )

    def rank(item: Variant) -> tuple[object, ...]:
        return (
            item.component != "all",
            item.input != "float",
            item.target != target,
            (item.target == "cpu") != (target == "cpu"),
            item.precision != float_precision,
            item.name,
        )

    return min(fitting, key=rank)


def require_match(calibration: Calibration, base: Variant, bundle: Bundle) -> None:
    """See that a calibration observed the activations that `base` has.

    Raises:
        CalibrationError: It did not; the message says what differs.
    """
    manifest = bundle.manifest
    observed = set(calibration.rewrites) - _VALUE_PRESERVING
    own = set(base.rewrites) - _VALUE_PRESERVING
    differing = [
        text
        for same, text in (
            (
                calibration.weights_sha256 == manifest.source.sha256,
                f"weights (sha256 {calibration.weights_sha256[:12]}, the bundle has {manifest.source.sha256[:12]})",
            ),
            (
                calibration.component == base.component,
                f"component {calibration.component} (the variant: {base.component})",
            ),
            (
                calibration.preprocessing == manifest.preprocessing,
                f"preprocessing {calibration.preprocessing.mode} (the bundle: {manifest.preprocessing.mode})",
            ),
            (observed == own, f"rewrites (only one of the two has {', '.join(sorted(observed ^ own))})"),
        )
        if not same
    ]
    if differing:
        raise CalibrationError(
            f"calibration {calibration.name!r} observed another graph than variant {base.name!r}: {'; '.join(differing)}; "
            "calibrate again (pargo-export calibrate BUNDLE --data ... --force)"
        )


def _takes_pixels(variant: Variant) -> bool:
    return variant.component != "projector" and variant.input == "float"


def _describe(variants: Iterable[Variant]) -> str:
    texts = [f"{item.name} ({item.precision}, {item.component}, input {item.input})" for item in variants]
    return ", ".join(texts) or "no variants"
