"""The same build in the words of `trtexec` and `tensorrt_rtx`."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from bundle.samples import SHA256, make_engine, make_variant

from pargo_export.bundle import BatchProfile, PluginRequirement
from pargo_export.engine.options import EngineOptions
from pargo_export.engine.trtexec import trtexec_command
from pargo_export.errors import ConfigError
from pargo_export.signature import Signature, TensorSpec

BUNDLE = Path("my bundle")
SETTINGS = {"workspace_bytes": 3 << 30, "optimization_level": 4, "timing_cache": True, "profiling": True}


def words(text: str) -> list[str]:
    """Return the words of the command, behind its comments, as a shell splits them."""
    *comments, command = text.splitlines()
    assert all(comment.startswith("# ") for comment in comments)
    return shlex.split(command)


def test_engine():
    """Everything that decided an engine, in the options of trtexec; the bundle's own files are not written to."""
    found = words(trtexec_command(make_engine(settings=SETTINGS), make_variant(), BUNDLE))
    assert found == [
        "trtexec",
        "--onnx=my bundle/onnx/fp32.onnx",
        "--saveEngine=fp32-sm87.engine",
        "--minShapes=pixels:1x3x28x28",
        "--optShapes=pixels:1x3x28x28",
        "--maxShapes=pixels:4x3x28x28",
        "--stronglyTyped",
        "--memPoolSize=workspace:3072",
        "--builderOptimizationLevel=4",
        "--timingCacheFile=fp32-sm87.timing.cache",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]


def test_engine_of_rtx():
    """RTX has another program and compute capabilities; what it has no word for is left out."""
    engine = make_engine(
        "fp32-rtx",
        flavor="rtx",
        tensorrt_version="1.7.1.116",
        compute_capabilities=("8.6", "12.0"),
        settings=SETTINGS,
    )
    found = words(trtexec_command(engine, make_variant(), BUNDLE))
    assert found[0] == "tensorrt_rtx"
    assert found[-3:] == ["--computeCapabilities=86,120", "--profilingVerbosity=detailed", "--skipInference"]
    assert not [word for word in found if word.startswith(("--strongly", "--mem", "--builder", "--timing"))]


def test_several_profiles():
    """Each profile is announced by its index, in front of its shapes."""
    profiles = (
        BatchProfile(min_batch=1, opt_batch=1, max_batch=1),
        BatchProfile(min_batch=2, opt_batch=4, max_batch=4),
    )
    found = words(trtexec_command(make_engine(profiles=profiles), make_variant(), BUNDLE))
    assert found[3:11] == [
        "--profile=0",
        "--minShapes=pixels:1x3x28x28",
        "--optShapes=pixels:1x3x28x28",
        "--maxShapes=pixels:1x3x28x28",
        "--profile=1",
        "--minShapes=pixels:2x3x28x28",
        "--optShapes=pixels:4x3x28x28",
        "--maxShapes=pixels:4x3x28x28",
    ]


def test_fixed_shapes():
    """A graph without a dynamic axis has no shapes to choose."""
    signature = Signature(
        inputs=(TensorSpec(name="pixels", dtype="float32", shape=(1, 3, 28, 28)),), outputs=()
    )
    found = words(trtexec_command(make_engine(), make_variant(signature=signature), BUNDLE))
    assert not [word for word in found if "Shapes" in word or "--profile=" in word]


@pytest.mark.parametrize(
    ("version", "is_told"), [("10.3.0", False), ("10.15.1", True), ("11.4.1", True), ("", False)]
)
def test_plugin_libraries(version, is_told):
    """Libraries are loaded, and from 10.15 on the parser is told to prefer them to functions."""
    options = EngineOptions(plugins="require", plugin_libraries=(Path("libpargo.so"),))
    found = words(trtexec_command(options, make_variant(), BUNDLE, version=version))
    assert "--staticPlugins=libpargo.so" in found
    assert ("--enablePluginOverride" in found) is is_told


def test_what_trtexec_cannot_say():
    """Plugins in Python, and functions that the parser refused, are comments."""
    plugin = PluginRequirement(
        operators=("pargo::A",), kind="python", sha256=SHA256, package="pargo_kernels 0.4.0"
    )
    engine = make_engine(plugins=(plugin,), attention="structured")
    text = trtexec_command(engine, make_variant(), BUNDLE)
    assert "# trtexec cannot load the plugins of pargo_kernels 0.4.0: they are Python\n" in text
    assert "# the parser refused the graph's functions" in text
    assert words(text)[0] == "trtexec"


@pytest.mark.parametrize(
    ("options", "flavor", "program", "engine"),
    [
        (EngineOptions(), "tensorrt", "trtexec", "fp32.engine"),
        (EngineOptions(), "rtx", "tensorrt_rtx", "fp32-rtx.engine"),
        (
            EngineOptions(flavor="rtx", capabilities=("8.9",)),
            "tensorrt",
            "tensorrt_rtx",
            "fp32-rtx-sm89.engine",
        ),
        (EngineOptions(name="mine"), "tensorrt", "trtexec", "mine.engine"),
    ],
)
def test_options(options, flavor, program, engine):
    """Before there is an engine, the options of a build say the same; the flavor is theirs if they name one."""
    found = words(trtexec_command(options, make_variant(), BUNDLE, flavor=flavor))
    assert (found[0], found[2]) == (program, f"--saveEngine={engine}")


def test_batches_that_the_variant_does_not_take():
    """Options are checked as a build checks them."""
    options = EngineOptions(profiles=(BatchProfile(min_batch=1, opt_batch=8, max_batch=8),))
    with pytest.raises(ConfigError, match="batches up to 4"):
        trtexec_command(options, make_variant(), BUNDLE)
