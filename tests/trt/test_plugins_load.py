"""Plugins that a finished engine needs: refused when they are others, registered when they are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundle.samples import write_bundle

from pargo_export.bundle import Bundle, PluginRequirement, sha256_bytes
from pargo_export.errors import BackendError
from pargo_export.trt import load_tensorrt
from pargo_export.trt.plugins import find_plugin_refusal, load_requirements
from pargo_export.trt.plugins_package import PACKAGE, package_sha256

pytest.importorskip("tensorrt_rtx")

FILE = "engines/plugins/0123-libattention.so"
OPERATORS = ("pargo::PartialGlobalAttention",)


def python_requirement(**changes) -> PluginRequirement:
    """Return the requirement of the package as it is here, but for the changes."""
    values = {"kind": "python", "sha256": package_sha256(), "package": PACKAGE}
    return PluginRequirement(operators=OPERATORS, **(values | changes))


def library_requirement(content: bytes, **changes) -> PluginRequirement:
    """Return the requirement of a library in the bundle, but for the changes."""
    values = {"kind": "library", "file": FILE, "sha256": sha256_bytes(content)}
    return PluginRequirement(operators=OPERATORS, **(values | changes))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle that carries something under the name of a library; it would not load."""
    write_bundle(tmp_path / "bundle", {FILE: b"a library"})
    return Bundle.open(tmp_path / "bundle")


def test_what_is_here_is_not_refused(bundle: Bundle):
    """The package as it is, and the library that the manifest lists."""
    needed = [python_requirement(), library_requirement(b"a library")]
    assert find_plugin_refusal(needed, bundle.manifest) is None
    assert find_plugin_refusal([], bundle.manifest) is None


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        (
            python_requirement(sha256="0" * 64),
            r"sources installed under that version are others \(sha256 \w{64}, ",
        ),
        (
            python_requirement(sha256="0" * 64, package="pargo_kernels 9.9"),
            f"pargo::PartialGlobalAttention of pargo_kernels 9.9, but {PACKAGE} is installed",
        ),
        (
            library_requirement(b"another"),
            rf"{FILE} for .* has sha256 {sha256_bytes(b'a library')} in the bundle",
        ),
        (library_requirement(b"", file="engines/plugins/gone.so"), r"gone\.so for .* is not in the bundle"),
    ],
)
def test_what_is_not_the_same_is_refused(bundle: Bundle, requirement: PluginRequirement, reason: str):
    """Each mismatch has its reason, and loading says how to mend it."""
    refusal = find_plugin_refusal([python_requirement(), requirement], bundle.manifest)
    assert refusal is not None
    with pytest.raises(BackendError, match=reason) as caught:
        load_requirements(load_tensorrt("rtx"), [python_requirement(), requirement], bundle)
    assert f"pargo-export trt {bundle.path} --force" in str(caught.value)


def test_another_version_with_the_same_sources_is_taken():
    """What counts is what runs, not what it is called."""
    assert find_plugin_refusal([python_requirement(package="pargo_kernels 0.0.1")], None) is None


def test_library_that_was_changed_in_the_bundle_is_not_loaded(bundle: Bundle):
    """The file is hashed: of the same size and name, but with other content, it is refused."""
    bundle.file(FILE).write_bytes(b"another:)")
    with pytest.raises(
        BackendError, match=rf"cannot be loaded: .*{FILE}.* has sha256 \w+, expected"
    ) as caught:
        load_requirements(load_tensorrt("rtx"), [library_requirement(b"a library")], bundle)
    assert "build it again" in str(caught.value)


def test_everything_is_checked_before_anything_is_loaded(compile_library, tmp_path: Path):
    """A library in order is not loaded, and leaves no trace, if the next one was changed or the package differs."""
    trace = tmp_path / "trace"
    text = f"""#include <cstdio>
static struct Trace {{ Trace() {{ std::fclose(std::fopen("{trace}", "w")); }} }} leave;
"""
    first, second = compile_library("libfirst.so", text).read_bytes(), b"a library"
    write_bundle(tmp_path / "bundle", {"engines/plugins/first.so": first, FILE: second})
    bundle = Bundle.open(tmp_path / "bundle")
    needed = [library_requirement(first, file="engines/plugins/first.so"), library_requirement(second)]
    tensorrt = load_tensorrt("rtx")
    with pytest.raises(BackendError, match="sources installed under that version are others"):
        load_requirements(tensorrt, [*needed, python_requirement(sha256="0" * 64)], bundle)
    bundle.file(FILE).write_bytes(b"another:)")
    with pytest.raises(BackendError, match="has sha256"):
        load_requirements(tensorrt, needed, bundle)
    assert not trace.exists()
    with pytest.raises(BackendError, match="contains no plugin creator"):
        load_requirements(tensorrt, needed[:1], bundle)
    assert trace.exists()


def test_missing_package_is_refused(run_plugins, bundle: Bundle):
    """Without the package the engine is not loaded, and the message says what to install."""
    block = "import sys; sys.modules['pargo_kernels'] = None"
    catch = """
import pargo_export.trt.plugins as plugins
load = plugins.load_requirements
def explain(*arguments):
    try:
        load(*arguments)
    except Exception as error:
        raise SystemExit(print(__import__("json").dumps({"refused": f"{type(error).__name__}: {error}"})))
plugins.load_requirements = explain
"""
    needed = json.dumps([python_requirement().model_dump(mode="json")])
    result = run_plugins("load", bundle.path, needed, prelude=block + catch)
    assert result["refused"].startswith("BackendError: ")
    assert "the package pargo_kernels with the TensorRT plugins is not here" in result["refused"]


def test_package_is_registered(run_plugins, bundle: Bundle):
    """Neither PyTorch nor Triton is needed to load; a second engine shares the creators."""
    block = "import sys; sys.modules['torch'] = sys.modules['triton'] = None"
    stub = "import sys, types; sys.modules['two_attentions'] = types.SimpleNamespace(two_attentions=None)"
    needed = json.dumps([python_requirement().model_dump(mode="json")])
    result = run_plugins("load", bundle.path, needed, prelude=f"{block}\n{stub}")
    assert result["creators"] == ["BlockDiagonalAttention", "PartialGlobalAttention"]
    assert result["num_python"] == 2
    assert result["again"]


def test_library_of_the_bundle_is_registered(run_plugins, compile_library, tmp_path: Path):
    """The file in the bundle is loaded, not the one that it was copied from."""
    content = compile_library("libattention.so").read_bytes()
    write_bundle(tmp_path / "bundle", {FILE: content})
    needed = json.dumps([library_requirement(content).model_dump(mode="json")])
    result = run_plugins("load", tmp_path / "bundle", needed)
    assert result["creators"] == ["BlockDiagonalAttention", "PartialGlobalAttention"]
    assert result["libraries"] == [str(tmp_path / "bundle" / FILE)]
    assert result["again"]
