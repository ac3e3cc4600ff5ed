"""Plugins in engines that TensorRT for RTX builds: from libraries and from the Python package."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import types
from pathlib import Path

import pytest
from two_attentions import two_attentions

from pargo_export._version import __version__
from pargo_export.trt import TensorRT, load_tensorrt
from pargo_export.trt.log import Log
from pargo_export.trt.plugins import PluginSet, carried_path
from pargo_export.trt.plugins_library import CreatorName, PluginLibrary
from pargo_export.trt.plugins_package import OPERATIONS, PACKAGE, find_compile_obstacle, package_sha256

pytest.importorskip("tensorrt_rtx")

BOTH = ["pargo::BlockDiagonalAttention", "pargo::PartialGlobalAttention"]
USED = [["cross", "pargo::PartialGlobalAttention"], ["self", "pargo::BlockDiagonalAttention"]]


@pytest.fixture(scope="module")
def from_library(compile_library, run_plugins, tmp_path_factory):
    """What a process says that builds with a library, and the hash that the library had."""
    folder = tmp_path_factory.mktemp("bundle")
    path = compile_library("libattention.so")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    other = compile_library("libother.so", own="SomethingElse")
    return run_plugins("library", path, other, folder), sha256, folder


@pytest.fixture(scope="module")
def from_package(run_plugins, tmp_path_factory):
    """What a process says that builds with the plugins of pargo_kernels."""
    return run_plugins("package", tmp_path_factory.mktemp("bundle"))


def test_library_is_in_the_engine_and_in_the_bundle(from_library):
    """Both nodes become its plugins, the engine is built, and the bundle carries the file under its hash."""
    result, sha256, folder = from_library
    assert result["used"] == USED
    assert result["layers"] == 2
    assert result["engine_bytes"] > 1000
    file = f"engines/plugins/{sha256[:16]}-libattention.so"
    assert result["requirements"] == [
        {"operators": BOTH, "kind": "library", "file": file, "sha256": sha256, "package": ""}
    ]
    assert result["hashes"] == [sha256]
    assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == sha256


def test_library_is_loaded_once_a_process(from_library):
    """The registry takes a name once, so the second build finds what the first one loaded."""
    assert from_library[0]["again"]


def test_library_that_makes_no_layer_is_an_error(from_library):
    """Whoever names a library wants its plugins in the engine."""
    assert "no layer is made by" in from_library[0]["unused"]
    assert "PartialGlobalAttention or BlockDiagonalAttention" in from_library[0]["unused"]


def test_library_that_changes_during_the_build_is_an_error(from_library):
    """The bundle must not carry another file than the one that was loaded."""
    assert "changed while the engine was built" in from_library[0]["changed"]


def test_names_that_are_taken_are_refused(from_library):
    """A second library, or the package, cannot have the same names in one process."""
    result, _, _ = from_library
    assert "start a new process" in result["name_taken"]
    assert "exists already" in result["name_taken"]
    assert "registered in this process by other code" in result["package"]


def test_without_plugins_the_body_is_taken(from_library):
    """Registered plugins do not get into a network that did not ask; if they do, that is an error."""
    result, _, _ = from_library
    assert result["off_layers"] == 0
    assert "plugins of other code" in result["foreign"]
    assert "BlockDiagonalAttention, PartialGlobalAttention" in result["foreign"]


def test_package_is_in_the_engine_and_required(from_package):
    """Both nodes become its plugins; the engine says which package it needs, and a hash of its launcher."""
    assert from_package["used"] == USED
    assert from_package["engine_bytes"] > 1000
    assert from_package["requirements"] == [
        {
            "operators": BOTH,
            "kind": "python",
            "file": None,
            "sha256": package_sha256(),
            "package": f"pargo_kernels {__version__}",
        }
    ]
    assert from_package["hashes"] == [package_sha256()]


def test_package_is_registered_as_long_as_it_is_needed(from_package):
    """Builds share the creators for one GPU, the last one takes them out, and a loaded engine keeps them in."""
    both = sorted(OPERATIONS)
    assert from_package["before"] == []
    assert from_package["open"] == from_package["open_still"] == both
    assert from_package["closed"] == []
    assert from_package["kept"] == [2, both]


def test_builds_for_two_gpus_at_once_are_refused(from_package):
    """The kernels of the plugins are compiled for one GPU; the other build has to wait."""
    assert "compiles the plugins for compute capability 8.9" in from_package["meanwhile"]
    assert "wants compute capability 8.6" in from_package["meanwhile"]


def test_required_plugins_have_to_be_there(from_package):
    """A graph without the nodes cannot have plugins."""
    assert "plugins are required, but no layer" in from_package["required"]


def test_several_gpus_leave_the_functions(from_package):
    """Asked to, where it can: for two GPUs it cannot, and says so."""
    creators, notes, registered = from_package["several"]
    assert creators == registered == []
    assert "build an engine for each" in notes[0]


def test_missing_name_is_found_before_the_parser_dies(run_plugins, compile_library):
    """Without the name that the parser opens, plugins are an error or a note, and the process lives."""
    required = run_plugins("discover", "require", library_path=None)
    assert required["refused"].startswith("EngineError: the plugins of pargo_kernels cannot be used: ")
    assert "ln -s libtensorrt_rtx.so.1 " in required["refused"]
    automatic = run_plugins("discover", "auto", library_path=None)
    assert automatic["layers"] == 0
    assert "ln -s" in automatic["notes"][0]
    named = run_plugins("discover", "auto", compile_library("libattention.so"), library_path=None)
    assert named["refused"].startswith("EngineError: no plugin can be used: the parser")


def test_link_beside_the_library_is_enough(run_plugins, compile_library, tmp_path: Path):
    """The link that the message asks for mends it, without a library path."""
    libraries = Path(pytest.importorskip("tensorrt_rtx_libs").__file__).parent
    package = tmp_path / "tensorrt_rtx_libs"
    package.mkdir()
    for path in [libraries / "__init__.py", *libraries.glob("*.so.*")]:
        (package / path.name).symlink_to(path)
    (package / "libtensorrt_rtx.so").symlink_to("libtensorrt_rtx.so.1")
    # Libraries loaded through links are listed by the files behind them: look where the links are.
    prelude = f"""
import pathlib
import pargo_export.trt.plugins_link as link
found = link._loaded_files
link._loaded_files = lambda prefix: [pathlib.Path({str(package)!r}) / path.name for path in found(prefix)]
"""
    library = compile_library("libattention.so")
    result = run_plugins(
        "discover", "auto", library, library_path=None, python_path=tmp_path, prelude=prelude
    )
    assert result == {"refused": "nothing was refused", "notes": [], "layers": 2}


def test_another_library_of_that_name_is_refused(run_plugins, compile_library):
    """Two TensorRTs in a process do not go well."""
    other = compile_library("libtensorrt_rtx.so", 'extern "C" int answer() { return 42; }')
    result = run_plugins("discover", "require", library_path=other.parent)
    assert "is another library than the one in use" in result["refused"]


def test_missing_package_is_explained(run_plugins):
    """Without the package, required plugins are refused."""
    result = run_plugins("discover", "require", prelude="import sys; sys.modules['pargo_kernels'] = None")
    assert result["refused"].startswith("EngineError: the plugins of pargo_kernels cannot be used: ")
    assert "install pargo-export again" in result["refused"]


def test_kernels_that_cannot_be_compiled_are_explained(monkeypatch: pytest.MonkeyPatch):
    """A Triton that interprets compiles nothing; without Triton it says what to install."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        assert re.match("TRITON_INTERPRET is set", find_compile_obstacle(86))
    monkeypatch.setitem(sys.modules, "pargo_kernels.triton_plugin", None)
    assert re.search(r"compiling .* takes pip install 'pargo-export\[cuda\]'", find_compile_obstacle(86))


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU to compile for")
def test_without_a_gpu_one_has_to_be_named():
    """The kernels are machine code for one GPU, so there must be one, or its name."""
    assert re.search(
        "no CUDA driver .*; name the GPU to build for, .* --target rtx:sm86", find_compile_obstacle(None)
    )


def test_off_registers_nothing():
    """Without plugins there are no creators, no hashes, no requirements, and nothing to close."""
    with PluginSet.discover(load_tensorrt("rtx"), "off") as plugins:
        assert plugins.creators == plugins.hashes == plugins.notes == ()
        assert plugins.requirements(str) == ()
        assert not plugins.needs_functions_removed


def test_package_names_agree_with_the_kernels():
    """The names that are looked for are those that are registered, and the version is that of the distribution."""
    from pargo_kernels import trt_launch

    assert trt_launch.OPERATIONS == OPERATIONS
    assert f"pargo_kernels {__version__}" == PACKAGE


def test_a_carried_library_keeps_its_path(tmp_path: Path):
    """To build again from the library in a bundle does not lengthen its name."""
    path = tmp_path / "libattention.so"
    path.write_bytes(b"library")
    carried = tmp_path / Path(carried_path(path)).name
    carried.write_bytes(b"library")
    assert carried_path(carried) == carried_path(path)


class TestVersions:
    """How a parser is brought to take a plugin, by what its module says."""

    LIBRARY = PluginLibrary(Path("lib.so"), "0" * 64, (CreatorName("PartialGlobalAttention", "", "1"),))

    @staticmethod
    def tensorrt(flavor: str, version: str, *, has_flag: bool) -> TensorRT:
        """Return a module that has nothing but its version and its parser flags."""
        flags = types.SimpleNamespace(**({"ENABLE_PLUGIN_OVERRIDE": "flag"} if has_flag else {}))
        module = types.ModuleType("tensorrt")
        module.__version__, module.OnnxParserFlag = version, flags
        return TensorRT(flavor, module, Log("tensorrt"))

    @pytest.mark.parametrize(
        ("flavor", "version", "has_flag", "removed"),
        [
            ("tensorrt", "10.3.0", False, True),
            ("tensorrt", "10.6.0", False, True),
            ("tensorrt", "10.7.0", False, False),
            ("tensorrt", "10.13.3.9", False, False),
            ("tensorrt", "10.15.1", True, False),
            ("tensorrt", "11.4.0.106", True, False),
            ("rtx", "1.4.0", False, False),
        ],
    )
    def test_functions_are_removed_for_old_parsers_alone(
        self, flavor: str, version: str, has_flag: bool, removed: bool
    ):
        """Before 10.7 the body wins, later the plugin, and where there is a flag it decides."""
        tensorrt = self.tensorrt(flavor, version, has_flag=has_flag)
        assert PluginSet(tensorrt, "auto", (self.LIBRARY,)).needs_functions_removed is removed
        assert not PluginSet(tensorrt, "auto").needs_functions_removed

    @pytest.mark.parametrize("has_flag", [True, False])
    def test_flag_is_set_where_there_is_one(self, has_flag: bool):
        """A parser without the flag is left alone, and so is one without plugins."""
        tensorrt, flags = self.tensorrt("tensorrt", "10.15.1", has_flag=has_flag), []
        parser = types.SimpleNamespace(set_flag=flags.append)
        PluginSet(tensorrt, "auto").apply(parser)
        assert flags == []
        PluginSet(tensorrt, "auto", (self.LIBRARY,)).apply(parser)
        assert flags == (["flag"] if has_flag else [])

    def test_bodies_of_the_plugins_alone_are_removed(self):
        """A function without a plugin keeps its body."""
        model = two_attentions()
        tensorrt = self.tensorrt("tensorrt", "10.3.0", has_flag=False)
        assert PluginSet(tensorrt, "auto", (self.LIBRARY,)).remove_functions(model) == 1
        assert [function.name for function in model.functions] == ["BlockDiagonalAttention"]
