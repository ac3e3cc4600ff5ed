"""Check on a device that a backend computes what the bundle was accepted for.

The evidence of a variant is about its graph, run by ONNX Runtime. Another backend may compute it in another way: with
kernels of its own, or, as `cuda`, from the weights alone. So it is held against the float32 variant of the bundle, or
where there is none against its own graph in ONNX Runtime, with the limits of the variant's own evidence.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pargo_export.assets import PHOTOGRAPH
from pargo_export.bundle import Bundle, Evidence, Variant
from pargo_export.errors import BackendError
from pargo_export.graph.check import Check, CheckFailure, perform
from pargo_export.graph.comparison import PARITY_LIMITS, compare, find_failures
from pargo_export.preprocessing import preprocess_uint8
from pargo_export.runtime import Runtime
from pargo_export.runtime.selection import select

__all__ = [
    "REFERENCE_BACKEND",
    "References",
    "check_backend",
    "describe_agreement",
    "find_reference",
    "measure_agreement",
]

REFERENCE_BACKEND = "onnxruntime"
_SEED = 20240823  # the day the paper appeared

# What a reference computed, by its name and the largest batch: several variants are held against the same one.
References: TypeAlias = dict[tuple[str, int], list[NDArray[np.float32]]]


def check_backend(
    bundle: Bundle | str | os.PathLike[str],
    backend: str,
    *,
    variant: str | None = None,
    engine: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Check, ...]:
    """Run variants on a backend of this machine and compare their output with that of the float32 variant.

    A photograph alone, and the largest batch that the variant was made for.

    Args:
        bundle: The bundle, or its directory.
        backend: Name of the backend.
        variant: Check this one only; by default every one that the backend can run.
        engine: Run this engine, on a backend that runs engines; by default the best one of each variant.
        progress: Called with a short text at the start of each variant.

    Returns:
        A check for each variant; one that fails if the backend can run none.

    Raises:
        BackendError: There is no such backend.
        BundleError: There is no bundle, or it has no such variant or engine.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    if engine is not None and engine in bundle.manifest.engines:
        variant = variant or bundle.manifest.engines[engine].variant
    names = sorted(bundle.manifest.variants) if variant is None else [bundle.variant(variant).name]
    checks, refusals = [], []
    references: References = {}
    for name in names:
        choice = select(bundle, backend=backend, variant=name, engine=engine)
        if not choice.candidates:
            refusals += [reason for reason in choice.refusals if reason not in refusals]
            continue
        progress(f"running {name} on {backend}")
        checks.append(
            perform(
                f"{name}: {backend}", functools.partial(_compare, bundle, backend, name, engine, references)
            )
        )
    if not checks:
        checks.append(Check(backend, ok=False, detail="it can run nothing here: " + "; ".join(refusals)))
    return tuple(checks)


def measure_agreement(
    bundle: Bundle,
    backend: str,
    name: str,
    *,
    engine: str | None = None,
    references: References | None = None,
) -> Evidence:
    """Run one variant on a backend of this machine and measure how far it is from the float32 variant.

    A photograph alone, and the largest batch that the variant was made for.

    Args:
        bundle: The bundle.
        backend: Name of the backend.
        name: Name of the variant.
        engine: Name of its engine, on a backend that runs engines; `None` takes the best one.
        references: Outputs of reference variants that were run before; what is run here is added.

    Returns:
        The measurements of the output, held against the limits of the variant's own evidence.

    Raises:
        BackendError: The backend cannot run it.
        BundleError: There is no such variant or engine.
        ParityError: A value is not finite, or the output has another shape.
    """
    references = {} if references is None else references
    variant = bundle.variant(name)
    reference = find_reference(bundle, variant)
    inputs = _inputs(bundle, variant)
    with Runtime.open(bundle, backend=backend, variant=name, engine=engine) as runtime:
        if runtime.backend != backend:
            raise BackendError(f"it ran on {runtime.backend}")
        computed = [runtime.encode(images) for images in inputs.values()]
    key = (reference.name, variant.max_batch)
    if key not in references:
        with Runtime.open(bundle, backend=REFERENCE_BACKEND, variant=reference.name) as runtime:
            references[key] = [runtime.encode(images) for images in inputs.values()]
    output = variant.signature.outputs[0].name
    measured = tuple(
        compare(output, source, expected, found)
        for source, expected, found in zip(inputs, references[key], computed, strict=True)
    )
    limits = variant.evidence.limits if variant.evidence else PARITY_LIMITS[variant.float_precision]
    return Evidence(
        stages=measured,
        limits=limits,
        passed=not find_failures(measured, limits),
        reference=f"{reference.name} in {REFERENCE_BACKEND}",
    )


def describe_agreement(evidence: Evidence) -> str:
    """Say how far the worst measurement is, and from what."""
    worst = max(item.max_abs for item in evidence.stages)
    cosine = min(item.cosine for item in evidence.stages)
    ratio = min(item.sqnr_db or 0.0 for item in evidence.stages)
    return f"max abs {worst:.2g}, worst token {cosine:.6f}, SQNR {ratio:.1f} dB against {evidence.reference}"


def _compare(bundle: Bundle, backend: str, name: str, engine: str | None, references: References) -> str:
    """Run one variant and say how far it is from the reference, whose output is added to `references`.

    Raises:
        CheckFailure: Further than the limits.
    """
    evidence = measure_agreement(bundle, backend, name, engine=engine, references=references)
    found = describe_agreement(evidence)
    if not evidence.passed:
        raise CheckFailure(f"{found}; allowed are {evidence.limits.model_dump(exclude_none=True)}")
    return found


def find_reference(bundle: Bundle, variant: Variant) -> Variant:
    """Return the float32 variant that computes the same, or the variant itself."""
    return next(
        (
            other
            for other in bundle.manifest.variants.values()
            if other.precision == "float32" and other.component == variant.component
        ),
        variant,
    )


def _inputs(bundle: Bundle, variant: Variant) -> dict[str, NDArray[Any]]:
    """Return batches of pictures that need no resizing; for a projector, features."""
    size = variant.max_batch
    if variant.component == "projector":
        shape = tuple(map(int, variant.signature.inputs[0].shape[1:]))
        noise = np.random.default_rng(_SEED).standard_normal((size, *shape), np.float32)
        return {"normal noise": noise[:1], f"normal noise, batch {size}": noise}
    picture = preprocess_uint8([PHOTOGRAPH], bundle.manifest.preprocessing)[0].transpose(1, 2, 0)
    shifted = np.stack([np.roll(picture, 17 * index, axis=(0, 1)) for index in range(size)])
    return {"photograph": picture, f"shifted photographs, batch {size}": shifted}
