"""What a calibration leaves in the bundle: statistics, evaluation images, and a table for people."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save

from pargo_calibration import DataSource, dataset_sha256
from pargo_export.bundle import Bundle, BundleTransaction, Calibration, Variant
from pargo_export.errors import CalibrationError
from pargo_export.quantization.calibration_options import RANDOM, CalibrateOptions
from pargo_export.quantization.images import ImageStream, Picture
from pargo_export.quantization.statistics import Observation, pack

__all__ = ["commit_calibration"]

_STAGE = "quantize"
_SUFFIXES = {
    "table": ".json",
    "statistics": ".statistics.safetensors",
    "evaluation": ".evaluation.safetensors",
}


def commit_calibration(
    bundle: Bundle,
    variant: Variant,
    options: CalibrateOptions,
    source: DataSource,
    stream: ImageStream,
    used: list[tuple[str, str]],
    evaluation: list[Picture],
    observation: Observation,
) -> Calibration:
    """Write the files and the record of the manifest, in one step.

    Raises:
        CalibrationError: The variant was replaced meanwhile.
    """
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
