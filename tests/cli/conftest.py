"""Run commands in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from skimage import data

from pargo_export.cli.main import cli
from pargo_export.model.sample import write_sample
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.quantize import quantize


@pytest.fixture
def run(monkeypatch) -> Callable[..., Result]:
    """Return a function that runs a command on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def run_json(run):
    """Return a function that runs a command with --json, expects success and returns the result."""

    def run_and_parse(*arguments):
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return json.loads(result.stdout)

    return run_and_parse


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """Return a tiny checkpoint that holds a language model as well."""
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.safetensors", llm=True)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Return a folder with eight photographs, one of them twice, and one file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for name, picture in (("astronaut", data.astronaut()), ("chelsea", data.chelsea())):
        for index in range(4):
            crop = picture[30 * index :, 50 * index :][:110, :130]
            Image.fromarray(crop).save(folder / f"{name}-{index}.png")
    shutil.copy(folder / "chelsea-1.png", folder / "twice.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def calibrated(exported_bundle, photos, tmp_path_factory) -> Path:
    """Return a bundle with the calibrations `default` and `noise`; do not write to it."""
    path = Path(shutil.copytree(exported_bundle, tmp_path_factory.mktemp("calibrated") / "bundle"))
    calibrate(path, photos, CalibrateOptions(threads=1))
    noise = CalibrateOptions(name="noise", allow_random=True, num_images=4, num_evaluation=1, threads=1)
    calibrate(path, "random", noise)
    return path


@pytest.fixture
def bundle_to_quantize(calibrated, tmp_path) -> Path:
    """Return a copy of `calibrated`."""
    return Path(shutil.copytree(calibrated, tmp_path / "calibrated"))


@pytest.fixture(scope="session")
def quantized(calibrated, tmp_path_factory) -> Path:
    """Return a bundle with the variants int8-cpu, int8-cuda, int8-weight-only-cpu and int8-noise too.

    Do not write to it.
    """
    path = Path(shutil.copytree(calibrated, tmp_path_factory.mktemp("quantized") / "bundle"))
    quantize(path, precision="int8", threads=1)
    quantize(path, precision="int8", target="cuda", keep=("*.output",), threads=1)
    quantize(path, precision="int8-weight-only", threads=1)
    quantize(path, precision="int8", calibration="noise", name="int8-noise", allow_below=True, threads=1)
    return path
