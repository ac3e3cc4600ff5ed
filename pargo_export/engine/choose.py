"""Which variant is built, and by which TensorRT."""

from __future__ import annotations

from pargo_export.bundle import Bundle, Flavor, Variant
from pargo_export.device.cuda_driver import find_driver_obstacle
from pargo_export.engine.options import FlavorChoice
from pargo_export.errors import EngineError
from pargo_export.trt import TensorRT, find_obstacle, load_tensorrt

__all__ = ["choose_flavor", "choose_variant"]


def choose_variant(bundle: Bundle, name: str | None) -> Variant:
    """Return the variant `name`, or the only one that TensorRT can build.

    Raises:
        BundleError: There is no variant of that name.
        EngineError: TensorRT cannot build it, or none was named and there is not exactly one.
    """
    if name is not None:
        variant = bundle.variant(name)
        refusal = _find_refusal(variant)
        if refusal is not None:
            raise EngineError(refusal)
        return variant
    variants = bundle.manifest.variants.values()
    fitting = [variant for variant in variants if _find_refusal(variant) is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(sorted(variant.name for variant in fitting))
        raise EngineError(f"bundle {bundle.path}: a variant must be named; choose one of {names}")
    reasons = "; ".join(reason for variant in variants if (reason := _find_refusal(variant)) is not None)
    raise EngineError(
        f"bundle {bundle.path} has no variant that TensorRT can build: {reasons or 'it has no variants'}; export one: "
        "pargo-export onnx CHECKPOINT -o BUNDLE --precision fp16 --target cuda"
    )


def _find_refusal(variant: Variant) -> str | None:
    quantization = variant.quantization
    if quantization is None or not quantization.quantized or quantization.dialect == "tensorrt":
        return None
    if variant.precision == "int8_weight_only":
        return None  # no activation is quantized, and weights are symmetric in both dialects
    return (
        f"variant {variant.name!r} has unsigned activations, which TensorRT does not take; make one for it: "
        "pargo-export quantize BUNDLE --int8 --target cuda (or orin, thor, rtx)"
    )


def choose_flavor(choice: FlavorChoice, *, capabilities: tuple[str, ...] = ()) -> TensorRT:
    """Load the TensorRT that builds.

    Args:
        choice: `tensorrt` needs a GPU to build on. `auto` takes it where both are there and no other GPU is asked for,
            else TensorRT for RTX.
        capabilities: Compute capabilities that were asked for; only TensorRT for RTX can choose them.

    Raises:
        EngineError: TensorRT has no GPU here, or with `auto` neither can build.
        MissingDependencyError: The flavor that was named is not installed.
    """
    if choice == "rtx":
        return load_tensorrt("rtx")
    without_gpu = find_driver_obstacle()
    if choice == "tensorrt":
        tensorrt = load_tensorrt("tensorrt")
        if without_gpu is not None:
            raise EngineError(
                f"{tensorrt.title} measures kernels on the GPU that it builds for, and {without_gpu}; run this on the "
                "device, or choose --flavor rtx, which builds without a GPU for RTX cards"
            )
        return tensorrt
    flavor, reasons = _first_usable(without_gpu, capabilities)
    if flavor is None:
        raise EngineError(f"no TensorRT can build here: {'; '.join(reasons)}")
    return load_tensorrt(flavor)


def _first_usable(
    without_gpu: str | None, capabilities: tuple[str, ...]
) -> tuple[Flavor | None, tuple[str, ...]]:
    """Return the flavor that `auto` means, and why those before it do not serve."""
    reasons = []
    if not capabilities:
        obstacle = find_obstacle("tensorrt") or without_gpu
        if obstacle is None:
            return "tensorrt", ()
        reasons.append(f"tensorrt: {obstacle}")
    obstacle = find_obstacle("rtx")
    if obstacle is None:
        return "rtx", tuple(reasons)
    reasons.append(f"rtx: {obstacle}")
    return None, tuple(reasons)
