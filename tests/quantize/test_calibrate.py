"""Images through the float graph, statistics into the bundle."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile

import numpy as np
import onnx_ir as ir
import pytest
from bundle.samples import files_below
from PIL import Image
from quantize.samples import run_model

from pargo_export.bundle import Bundle
from pargo_export.errors import BundleError, CalibrationError, ConfigError, IntegrityError
from pargo_export.preprocessing import normalize, preprocess, preprocess_uint8
from pargo_export.quantize import calibrate as calibrate_module
from pargo_export.quantize.calibrate import CalibrateOptions, calibrate
from pargo_export.quantize.linears import find_linears
from pargo_export.quantize.measure import load_evaluation
from pargo_export.quantize.observe import attention_inputs, group_by_activation
from pargo_export.quantize.statistics import unpack

OPTIONS = CalibrateOptions(threads=1)


def table_of(bundle, name="default"):
    """Return the table for people."""
    return json.loads(bundle.check(f"calibration/{name}.json").read_bytes())


def statistics_of(bundle, name="default"):
    """Return the bytes of the statistics."""
    return bundle.check(f"calibration/{name}.statistics.safetensors").read_bytes()


def flat_folder(folder, count):
    """Fill a folder with black pictures that are no copies of each other."""
    for index in range(count):
        Image.new("RGB", (30 + index, 20)).save(folder / f"{index}.png")
    return folder


def make_data(form, photographs, folder, spec):
    """Write the photographs in some form and return the path to calibrate on."""
    files = sorted(photographs.iterdir())
    if form == "npz":
        np.savez(folder / "pixels.npz", pixel_values=preprocess_uint8(files, spec))
        return folder / "pixels.npz"
    if form == "floats":
        np.savez(folder / "pixels.npz", pixel_values=preprocess(files, spec))
        return folder / "pixels.npz"
    if form == "jsonl":
        lines = [json.dumps({"image": str(path), "caption": path.stem}) for path in files]
        (folder / "captions.jsonl").write_text("\n".join(lines))
        return folder / "captions.jsonl"
    with tarfile.open(folder / "shard-0.tar", "w") as archive:
        for path in files:
            archive.add(path, path.name)
    return folder / "shard-0.tar"


def test_everything_that_linears_read_is_observed(calibrated_bundle):
    """Every activation of the graph, and the inputs of the self-attention, with exact extremes."""
    bundle = Bundle.open(calibrated_bundle)
    calibration = bundle.manifest.calibrations["default"]
    model = ir.load(bundle.file("onnx/fp32.onnx"))
    observation = unpack(bundle.check(calibration.statistics))
    groups = group_by_activation(find_linears(model))
    assert set(observation.activations) == set(groups) | set(attention_inputs(model))
    assert len(attention_inputs(model)) == 9  # three layers whose queries meet each other

    name = "tower.blocks.1.mlp.down"
    values = groups[name][0].activation
    values.type, values.shape = ir.TensorType(ir.DataType.FLOAT), None
    model.graph.outputs.append(values)
    used = [entry["name"] for entry in table_of(bundle)["images"]]
    images = preprocess([calibrated_bundle.parent / "x" / name for name in ()] or [], calibration.preprocessing) if not used else None
    assert images is None
