"""The calibrate command's work: images through the float graph, statistics into the bundle."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from pargo_calibration import DataSource, dataset_sha256, open_source, random_source
from pargo_calibration import errors as calibration_errors
from pargo_export.bundle import (
    VARIANT_NAME,
    Bundle,
    BundleTransaction,
    Calibration,
    Variant,
    atomic_write,
    recipe_sha256,
)
from pargo_export.errors import CalibrationError, ConfigError
from pargo_export.preprocessing import PreprocessSpec
from pargo_export.quantize.base import find_calibration_base
from pargo_export.quantize.images import ImageStream, Picture
from pargo_export.quantize.observe import Observer
from pargo_export.quantize.statistics import Observation, pack, unpack

__all__ = ["MIN_IMAGES", "CalibrateOptions", "CalibrationResult", "calibrate"]

_STAGE = "quantize"
MIN_IMAGES = 4  # fewer say nothing about a range, and one of them is held out
_SMOOTHING_IMAGES = 8  # magnitudes of channels settle after a handful of images
_SAVE_EVERY_S = 30.0
RANDOM = "random"


@dataclass(frozen=True)
class CalibrateOptions:
    """Choices of one calibration.

    Attributes:
        num_images: Images to observe, at most.
        num_evaluation: Further images to keep for measuring accuracy, at most; a quarter of a small data set.
        seed: Decides which images are used.
        shard: Part of the data, (index, number of parts).
        smoothing: Exponent of the smoothing whose ranges are observed too; 0 for none.
        name: Name of the calibration in the bundle.
        variant: Float32 variant to observe; by default the one that fits.
        allow_random: Accept `random` as data.
        threads: CPU threads; by default those that ONNX Runtime takes.

    Raises:
        ConfigError: A number is out of range, or the name cannot be one.
    """

    num_images: int = 128
    num_evaluation: int = 8
    seed: int = 0
    shard: tuple[int, int] = (0, 1)
    smoothing: float = 0.5
    name: str = "default"
    variant: str | None = None
    allow_random: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        for field, low in (("num_images", MIN_IMAGES - 1), ("num_evaluation", 1)):
            if getattr(self, field) < low:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least {low}")
        if not re.fullmatch(VARIANT_NAME, self.name):
            raise ConfigError(
                f"name is {self.name!r}; expected a letter or digit, then letters, digits, '.', '_' or '-'"
            )
        if not 0 <= self.smoothing <= 1:
            raise ConfigError(f"smoothing is {self.smoothing}; expected 0 (none) to 1")
        if not 0 <= self.shard[0] < self.shard[1]:
            raise ConfigError(f"shard is {self.shard}; expected (index, number) with 0 <= index < number")


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
    planned = min(options.num_evaluation, max(1, len(source.entries()) // options.shard[1] // 4))
    evaluation = list(islice(pictures, planned))
    progress("loading the graph")
    observer = Observer(bundle.file(variant.graph), threads=options.threads)
    state = _State(bundle, variant, source, options)
    used, resumed = _observe(observer, pictures, state, options, spec, progress, advance)
    _require_enough(len(used), len(evaluation), stream, source)
    progress("writing the bundle")
    calibration = _commit(bundle, variant, options, source, stream, used, evaluation, observer.observation)
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
    state: _State,
    options: CalibrateOptions,
    spec: PreprocessSpec,
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
    known = {digest for _, digest in used}
    saved = time.monotonic()
    for picture in chain(first, pictures):
        if len(used) >= options.num_images:
            break
        if picture.sha256 in known:
            continue
        observer.update(picture.values(spec), picture.name)
        used.append((picture.name, picture.sha256))
        advance(len(used), options.num_images)
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


def _commit(
    bundle: Bundle,
    variant: Variant,
    options: CalibrateOptions,
    source: DataSource,
    stream: ImageStream,
    used: list[tuple[str, str]],
    evaluation: list[Picture],
    observation: Observation,
) -> Calibration:
    manifest = bundle.manifest
    paths = {kind: f"calibration/{options.name}{suffix}" for kind, suffix in _SUFFIXES.items()}
    calibration = Calibration(
        name=options.name,
        variant=variant.name,
        graph_sha256=manifest.files[variant.graph].sha256,
        weights_sha256=manifest.source.sha256,
        component=variant.component,
        input=variant.input,
        rewrites=variant.rewrites,
        preprocessing=manifest.preprocessing,
        source=source.kind,
        dataset_sha256=dataset_sha256(digest for _, digest in used),
        seed=options.seed,
        shard=options.shard,
        num_images=len(used),
        num_evaluation=len(evaluation),
        num_skipped=len(stream.skipped),
        smoothing=options.smoothing,
        **paths,
    )
    with BundleTransaction(bundle.path) as transaction:
        previous = transaction.previous
        observed = manifest.files_of(variant.graph)
        if previous is None or any(previous.files.get(file) != manifest.files[file] for file in observed):
            raise CalibrationError(
                f"variant {variant.name!r} was replaced while its activations were observed; calibrate again"
            )
        contents = {
            calibration.table: _table(calibration, source, stream, used, evaluation, observation),
            calibration.statistics: pack(observation),
            calibration.evaluation: _pack_evaluation(evaluation),
        }
        records = {}
        for relative, content in contents.items():
            transaction.stage(relative).write_bytes(content)
            records[relative] = transaction.record(relative, stage=_STAGE, parents=[variant.graph])
        transaction.commit(previous.merged(calibrations=[calibration], files=records))
    return calibration


_SUFFIXES = {
    "table": ".json",
    "statistics": ".statistics.safetensors",
    "evaluation": ".evaluation.safetensors",
}


def _pack_evaluation(evaluation: list[Picture]) -> bytes:
    # One entry only: safetensors writes several in any order, and the bytes are to be the same every time.
    names = {"names": json.dumps([picture.name for picture in evaluation], ensure_ascii=False)}
    return save({"pixels": np.stack([picture.pixels for picture in evaluation])}, metadata=names)


def _table(
    calibration: Calibration,
    source: DataSource,
    stream: ImageStream,
    used: list[tuple[str, str]],
    evaluation: list[Picture],
    observation: Observation,
) -> bytes:
    """What was seen, for people."""
    activations = {}
    for path, item in observation.activations.items():
        activations[path] = {
            "minimum": item.plain.minimum,
            "maximum": item.plain.maximum,
            "values": item.plain.count,
        }
        if item.smoothed is not None:
            activations[path]["smoothed"] = [item.smoothed.minimum, item.smoothed.maximum]  # type: ignore[assignment]
    values = {
        "calibration": calibration.model_dump(mode="json"),
        "note": "random pixels: no evidence of accuracy" if source.kind == RANDOM else "",
        "images": [{"name": name, "sha256": digest} for name, digest in used],
        "evaluation": [{"name": picture.name, "sha256": picture.sha256} for picture in evaluation],
        "skipped": [{"name": name, "reason": reason} for name, reason in stream.skipped],
        "activations": activations,
    }
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


class _State:
    """Progress of a pass, kept beside the bundle so that an interrupted one can continue."""

    def __init__(
        self, bundle: Bundle, variant: Variant, source: DataSource, options: CalibrateOptions
    ) -> None:
        self._path = bundle.path.with_name(f".{bundle.path.name}.calibration-{options.name}.partial")
        self._num_images = options.num_images
        self._identity = recipe_sha256(
            {
                "graph": bundle.manifest.files[variant.graph].sha256,
                "entries": [entry.name for entry in source.entries()],
                "kind": source.kind,
                "seed": options.seed,
                "shard": list(options.shard),
                "num_evaluation": options.num_evaluation,
                "smoothing": options.smoothing,
                "preprocessing": bundle.manifest.preprocessing.model_dump(mode="json"),
            }
        )

    def load(self) -> tuple[Observation, list[tuple[str, str]]] | None:
        """Return what an interrupted run of the same calibration saw; `None` if there is nothing to use."""
        if not self._path.is_file():
            return None
        try:
            observation = unpack(self._path)
        except CalibrationError:  # a damaged state is only lost time
            return None
        if observation.metadata.pop("identity", None) != self._identity:
            return None
        used = [(str(name), str(digest)) for name, digest in json.loads(observation.metadata.pop("used"))]
        return (observation, used) if len(used) <= self._num_images else None

    def save(self, observation: Observation, used: list[tuple[str, str]]) -> None:
        """Write the state; a crash leaves the old one."""
        marked = Observation(observation.activations, {"identity": self._identity, "used": json.dumps(used)})
        atomic_write(self._path, pack(marked))

    def forget(self) -> None:
        """Remove the state."""
        self._path.unlink(missing_ok=True)
