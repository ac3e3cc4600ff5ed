"""The bundle's evaluation images as a data loader script for Polygraphy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pargo_export.bundle import Bundle, Calibration, Variant, atomic_write
from pargo_export.engine.handover.directory import Handover, finish, output_directory
from pargo_export.engine.handover.source import Source, find_source
from pargo_export.errors import CalibrationError, EngineError
from pargo_export.preprocessing import normalize

__all__ = ["hand_over_polygraphy"]

_IMAGES = "images.npy"
_SCRIPT = '''"""Inputs for Polygraphy: polygraphy run MODEL ... --data-loader-script data_loader.py

{num_images} evaluation images of variant {variant}, prepared as the model takes them, one a batch.
"""

from pathlib import Path

import numpy as np


def load_data():
    """Yield one feed an image."""
    for image in np.load(Path(__file__).with_name("{images}"), mmap_mode="r"):
        yield {{"{name}": np.ascontiguousarray(image[None])}}
'''
_README = """# {variant}: for Polygraphy

    polygraphy inspect model BUNDLE/{graph} --show layers
    polygraphy surgeon sanitize BUNDLE/{graph} -o sanitized.onnx --fold-constants
    polygraphy run BUNDLE/{graph} --onnxrt --save-outputs onnxrt.json --data-loader-script data_loader.py
    polygraphy run BUNDLE/{graph} --trt --strongly-typed{shapes} --load-outputs onnxrt.json \\
      --data-loader-script data_loader.py --atol {atol}

`BUNDLE` is the bundle. The last command needs TensorRT and a GPU; `--atol` is what the bundle's evidence has
as the largest difference of the visual tokens, doubled.
"""


def hand_over_polygraphy(
    bundle: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    variant: str | None = None,
    calibration: str | None = None,
    force: bool = False,
) -> Handover:
    """Write `data_loader.py`, whose `load_data()` yields the bundle's evaluation images, and the images.

    Args:
        bundle: The bundle.
        directory: The directory to make.
        variant: Variant that the images are prepared for.
        calibration: The calibration whose evaluation images are taken; may be left out if there is one.
        force: Replace a directory that a hand-over wrote before.

    Raises:
        BundleError: There is no such variant, or a file is not what the manifest says.
        CalibrationError: There is no such calibration, or its images do not fit the variant.
        EngineError: The directory cannot be written.
    """
    source = find_source(bundle, variant=variant, engine=None)
    images = evaluation_inputs(source.bundle, source.variant, _find_calibration(source, calibration))
    spec = source.variant.signature.inputs[0]
    script = _SCRIPT.format(
        num_images=len(images), variant=source.variant.name, images=_IMAGES, name=spec.name
    )
    path = Path(directory)
    with output_directory(path, source, force=force) as temporary:
        atomic_write(temporary / "data_loader.py", script.encode())
        atomic_write(temporary / _IMAGES, lambda file: np.save(file, images))
        return finish(temporary, path, "polygraphy", source, readme=_readme(source))


def evaluation_inputs(
    bundle: Bundle, variant: Variant, calibration: Calibration
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the evaluation images as a variant takes them, `[num_images, 3, H, W]`.

    Raises:
        CalibrationError: They were kept as normalised pixels, and the variant takes uint8 ones.
        EngineError: The variant does not take pictures.
        IntegrityError: The file is not what the manifest says.
    """
    if variant.component == "projector":
        raise EngineError(
            f"variant {variant.name!r} takes image features, not pictures; choose a variant that does"
        )
    pixels = load_file(bundle.check(calibration.evaluation))["pixels"]
    if variant.input == "uint8":
        if pixels.dtype != np.uint8:
            raise CalibrationError(
                f"the images of calibration {calibration.name!r} are normalised pixels, but variant {variant.name!r} takes "
                "uint8 ones; calibrate on pictures"
            )
        return pixels
    return (
        normalize(pixels, calibration.preprocessing)
        if pixels.dtype == np.uint8
        else pixels.astype(np.float32)
    )


def _find_calibration(source: Source, name: str | None) -> Calibration:
    calibrations = source.bundle.manifest.calibrations
    made = source.variant.quantization
    wanted = name or (made.calibration if made else None)
    if wanted is None and len(calibrations) == 1:
        wanted = next(iter(calibrations))
    if wanted is None or wanted not in calibrations:
        problem = "names no calibration" if wanted is None else f"has no calibration {wanted!r}"
        known = ", ".join(sorted(calibrations))
        mend = (
            f"choose one of {known}"
            if known
            else f"run `pargo-export calibrate {source.bundle.path} --data FOLDER`"
        )
        raise CalibrationError(
            f"bundle {source.bundle.path} {problem}, and evaluation images come from one; {mend}"
        )
    return calibrations[wanted]


def _readme(source: Source) -> str:
    variant = source.variant
    evidence = variant.evidence
    found = [item.max_abs for item in evidence.stages if item.stage == "visual_tokens"] if evidence else []
    spec = variant.signature.inputs[0]
    shapes = ""
    if any(isinstance(size, str) for size in spec.shape):
        for kind, batch in (("min", 1), ("opt", 1), ("max", variant.max_batch)):
            sizes = ",".join(str(batch if isinstance(size, str) else size) for size in spec.shape)
            shapes += f" --trt-{kind}-shapes '{spec.name}:[{sizes}]'"
    return _README.format(
        variant=variant.name,
        graph=variant.graph,
        shapes=shapes,
        atol=f"{2 * max(found):.2g}" if found else "0.001",
    )
