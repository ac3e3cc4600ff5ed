"""The wheel holds what it should, and its metadata names the extras."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source tree without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_all_packages_and_their_data(wheel):
    """Every module, type marker and asset is in the wheel, and nothing else is."""
    expected = {
        path.relative_to(base).as_posix()
        for base, package in (
            (ROOT, "pargo_export"),
            (ROOT / "kernels", "pargo_kernels"),
            (ROOT / "calibration", "pargo_calibration"),
        )
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert found >= {
        "pargo_calibration/py.typed",
        "pargo_calibration/recipes/int8.toml",
        "pargo_export/assets/coffee.jpg",
        "pargo_export/assets/trained/model.safetensors",
        "pargo_export/py.typed",
        "pargo_kernels/py.typed",
    }


def test_the_wheel_names_its_extras_and_script(wheel):
    """Extras and the console script are in the metadata."""
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = wheel.read(name).decode()
    for extra in (
        "export",
        "quantize",
        "calibration",
        "ort",
        "ort-gpu",
        "openvino",
        "cuda",
        "tensorrt",
        "rtx",
        "report",
        "dev",
    ):
        assert f"Provides-Extra: {extra}\n" in metadata
    assert not re.search(r"^Requires-Dist: (torch|onnxscript).*extra == 'quantize'", metadata, re.MULTILINE)
    script = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "pargo-export = pargo_export.cli.main:main" in wheel.read(script).decode()


def test_every_documented_link_exists():
    """Relative links in README and docs point to files that are there."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
