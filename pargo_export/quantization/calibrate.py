"""The calibrate command's work: images through the float graph, statistics into the bundle."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from pargo_calibration import DataSource, open_source, random_source
from pargo_calibration import errors as calibration_errors
from pargo_export.bundle import Bundle, Calibration
from pargo_export.errors import CalibrationError
from pargo_export.preprocessing import PreprocessSpec
from pargo_export.quantization.base import find_calibration_base
from pargo_export.quantization.calibration_options import MIN_IMAGES, RANDOM, CalibrateOptions
from pargo_export.quantization.calibration_record import commit_calibration
from pargo_export.quantization.images import ImageStream, Picture
from pargo_export.quantization.observe import Observer
from pargo_export.quantization.resume import CalibrationState

__all__ = ["CalibrateOptions", "CalibrationResult", "calibrate"]

_SMOOTHING_IMAGES = 8  # magnitudes of channels settle after a handful of images
_SAVE_EVERY_S = 30.0


@dataclass(frozen=True)
class CalibrationResult:
    """What `calibrate` did.

    Attributes:
        bundle: The bundle, with the calibration in it.
        calibration: What the manifest says about it.
        skipped: Images left out, with the reason.
        resumed: Images that an interrupted run had already observed.
    """

    bundle: Bundle
    calibration: Calibration
    skipped: tuple[tuple[str, str], ...]
    resumed: int


def calibrate(
    bundle: Bundle | str | os.PathLike[str],
    data: str | os.PathLike[str],
    options: CalibrateOptions | None = None,
    *,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> CalibrationResult:
    """Observe the activations of a float32 variant on images, and keep the statistics in the bundle.

    An interrupted run continues where it was: its state lies beside the bundle until it is done.

    Args:
        bundle: A bundle with a float32 variant that takes normalised pixels.
        data: Folder of pictures, image-caption manifest (JSONL, JSON, Parquet, WebDataset tar), pixels in `.npz`
            or `.safetensors`, or `"random"` with `allow_random`.
        options: How many images, which ones.
        force: Replace a calibration of that name.
        progress: Called with a short text at the start of each step.
        advance: Called with the images done and in all.

    Raises:
        BundleError: There is no bundle or no such variant.
        CalibrationError: The data cannot be read, are too few or say nothing, or the name is taken.
    """
    options = options or CalibrateOptions()
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    if options.name in bundle.manifest.calibrations and not force:
        raise CalibrationError(
            f"the bundle already has a calibration {options.name!r}; choose another name (--name), or replace it "
            "(--force, force=True)"
        )
    variant = find_calibration_base(bundle, options.variant)
    for file in bundle.manifest.files_of(variant.graph):
        bundle.check(file)
    spec = bundle.manifest.preprocessing
    source = _open(data, options, spec)
    progress("choosing images")
    stream = ImageStream(source, spec, options.seed, options.shard)
    pictures = iter(stream)
    num_entries = -(-len(source.entries()) // options.shard[1])
    planned = min(options.num_evaluation, max(1, num_entries // 4))
    evaluation = list(islice(pictures, planned))
    progress("loading the graph")
    observer = Observer(bundle.file(variant.graph), threads=options.threads)
    state = CalibrationState(bundle, variant, source, options)
    used, resumed = _observe(
        observer, pictures, state, options, spec, num_entries - planned, progress, advance
    )
    _require_enough(len(used), len(evaluation), stream, source)
    progress("writing the bundle")
    calibration = commit_calibration(
        bundle, variant, options, source, stream, used, evaluation, observer.observation
    )
    state.forget()
    return CalibrationResult(Bundle.open(bundle.path), calibration, tuple(stream.skipped), resumed)


def _open(data: str | os.PathLike[str], options: CalibrateOptions, spec: PreprocessSpec) -> DataSource:
    if os.fspath(data) == RANDOM and not Path(RANDOM).exists():
        if not options.allow_random:
            raise CalibrationError(
                "random pixels are no calibration data: ranges of noise say nothing about photographs; give a folder of "
                "pictures, or insist (--allow-random, allow_random=True): the bundle will say so"
            )
        count = options.num_images + options.num_evaluation
        return random_source(count, options.seed, height=spec.height, width=spec.width)
    try:
        return open_source(data)
    except calibration_errors.CalibrationError as error:
        raise CalibrationError(str(error)) from error


def _observe(
    observer: Observer,
    pictures: Iterator[Picture],
    state: CalibrationState,
    options: CalibrateOptions,
    spec: PreprocessSpec,
    num_available: int,
    progress: Callable[[str], None],
    advance: Callable[[int, int], None],
) -> tuple[list[tuple[str, str]], int]:
    """Run the images; return (name, hash) of those observed and how many of them an earlier run had done."""
    first = list(islice(pictures, _SMOOTHING_IMAGES))
    used: list[tuple[str, str]] = []
    done = state.load()
    if done is not None:
        observer.observation, used = done
    elif options.smoothing:
        progress("looking at channel magnitudes")
        observer.prepare([picture.values(spec) for picture in first], options.smoothing)
    resumed = len(used)
    progress("observing activations")
    known = dict(used)
    total = max(len(used), min(options.num_images, num_available))
    saved = time.monotonic()
    for picture in chain(first, pictures):
        if len(used) >= options.num_images:
            break
        if picture.name in known:
            if known[picture.name] != picture.sha256:
                raise CalibrationError(
                    f"{picture.name} changed since the calibration was interrupted; remove {state.path} to begin again"
                )
            continue
        observer.update(picture.values(spec), picture.name)
        used.append((picture.name, picture.sha256))
        advance(len(used), total)
        if time.monotonic() - saved > _SAVE_EVERY_S:
            state.save(observer.observation, used)
            saved = time.monotonic()
    return used, resumed


def _require_enough(num_used: int, num_evaluation: int, stream: ImageStream, source: DataSource) -> None:
    found = num_used + num_evaluation
    if found >= MIN_IMAGES and num_used:
        return
    reasons = "; ".join(f"{name}: {reason}" for name, reason in stream.skipped[:3])
    skipped = f", {len(stream.skipped)} left out ({reasons})" if stream.skipped else ""
    raise CalibrationError(
        f"{source.location}: {found} usable images{skipped}; expected at least {MIN_IMAGES}, and some hundred for good "
        "ranges: give more pictures of what the model will see"
    )
