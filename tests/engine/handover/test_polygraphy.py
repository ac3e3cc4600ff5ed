"""The bundle's graph and images in Polygraphy's hands."""

from __future__ import annotations

import importlib
import runpy
import sys
import warnings

import numpy as np
import onnxruntime
import pytest
from bundle.samples import make_calibration, make_variant
from engine.handover.conftest import PIXELS

from pargo_export.bundle import Bundle
from pargo_export.engine.handover import hand_over_polygraphy
from pargo_export.errors import CalibrationError, EngineError
from pargo_export.preprocessing import PreprocessSpec, normalize


def load_data(path):
    """Run the script as Polygraphy does, and return the feeds."""
    return list(runpy.run_path(str(path / "data_loader.py"))["load_data"]())


@pytest.fixture
def polygraphy(tmp_path, monkeypatch, capsys):
    """Return a function that runs Polygraphy's command line, which must succeed, and returns what it printed."""
    tools = pytest.importorskip("polygraphy.tools", reason="polygraphy is not installed")
    pytest.importorskip(
        "onnx_graphsurgeon", reason="onnx-graphsurgeon, which `surgeon` needs, is not installed"
    )
    monkeypatch.chdir(tmp_path)

    def polygraphy(*arguments):
        monkeypatch.setattr(sys, "argv", ["polygraphy", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own
            try:
                status = tools.main()
            except SystemExit as ended:
                status = ended.code
        printed = capsys.readouterr().out
        assert not status, printed
        return printed

    return polygraphy


def test_images(bundle, tmp_path):
    """The script yields each evaluation image by itself, prepared as the graph takes it, in NumPy alone."""
    result = hand_over_polygraphy(bundle, tmp_path / "out")
    assert result.files == ("README.md", "data_loader.py", "handover.json", "images.npy")
    feeds = load_data(result.path)
    expected = normalize(PIXELS, PreprocessSpec(height=28, width=28))
    assert [list(feed) for feed in feeds] == [["pixels"]] * len(PIXELS)
    assert all(feed["pixels"].dtype == np.float32 for feed in feeds)
    np.testing.assert_array_equal(np.concatenate([feed["pixels"] for feed in feeds]), expected)
    Bundle.open(bundle).variant("fp32").signature.check_feed(feeds[0])


def test_uint8_graph(tmp_path, write):
    """A graph that takes pixels gets them as they were kept."""
    write(tmp_path / "bundle", variants={"fp32": make_variant(input="uint8")})
    feeds = load_data(hand_over_polygraphy(tmp_path / "bundle", tmp_path / "out").path)
    np.testing.assert_array_equal(np.concatenate([feed["pixels"] for feed in feeds]), PIXELS)
    assert feeds[0]["pixels"].dtype == np.uint8


def test_graph_is_read_and_folded(polygraphy, bundle, tmp_path):
    """`inspect model` lists the graph, and what `surgeon sanitize` writes computes the same."""
    graph = bundle / "onnx/fp32.onnx"
    listed = polygraphy("inspect", "model", graph, "--show", "layers")
    assert "{pixels [dtype=float32, shape=('batch', 3, 28, 28)]}" in listed
    assert "projector.llm_projection/MatMul" in listed
    polygraphy("surgeon", "sanitize", graph, "-o", "sanitized.onnx", "--fold-constants")
    feed = {"pixels": normalize(PIXELS, PreprocessSpec(height=28, width=28))}
    outputs = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for path in (graph, tmp_path / "sanitized.onnx")
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)


def test_polygraphy_runs_the_script(polygraphy, bundle, tmp_path):
    """`polygraphy run` takes the images from the script and runs every one of them."""
    script = hand_over_polygraphy(bundle, tmp_path / "out").path / "data_loader.py"
    graph = bundle / "onnx/fp32.onnx"
    polygraphy("run", graph, "--onnxrt", "--data-loader-script", script, "--save-inputs", "inputs.json")
    saved = importlib.import_module("polygraphy.json").load_json(str(tmp_path / "inputs.json"))
    taken = [np.asarray(feed["pixels"]) for feed in saved]
    np.testing.assert_array_equal(
        np.concatenate(taken), normalize(PIXELS, PreprocessSpec(height=28, width=28))
    )


@pytest.mark.parametrize(
    ("changes", "choice", "error", "found"),
    [
        ({"calibrations": {}}, {}, CalibrationError, r"names no calibration.*pargo-export calibrate"),
        ({}, {"calibration": "other"}, CalibrationError, "no calibration 'other'.*choose one of default"),
        (
            {"variants": {"fp32": make_variant(component="projector")}},
            {},
            EngineError,
            "takes image features, not pictures",
        ),
    ],
)
def test_what_has_no_images(tmp_path, write, changes, choice, error, found):
    """Without evaluation images, or for a graph that takes none, it says what to do."""
    write(tmp_path / "bundle", **changes)
    with pytest.raises(error, match=found):
        hand_over_polygraphy(tmp_path / "bundle", tmp_path / "out", **choice)
    assert not (tmp_path / "out").exists()


def test_several_calibrations(tmp_path, write):
    """With several, a float variant does not say which one is meant."""
    both = {name: make_calibration(name, **_files()) for name in ("default", "other")}
    write(tmp_path / "bundle", calibrations=both)
    with pytest.raises(CalibrationError, match="choose one of default, other"):
        hand_over_polygraphy(tmp_path / "bundle", tmp_path / "out")
    assert hand_over_polygraphy(tmp_path / "bundle", tmp_path / "out", calibration="other").variant == "fp32"


def _files() -> dict[str, str]:
    default = make_calibration()
    return {"table": default.table, "statistics": default.statistics, "evaluation": default.evaluation}
