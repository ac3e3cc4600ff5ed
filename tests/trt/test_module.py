"""Finding and loading TensorRT: there, absent, broken, too old."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from pargo_export.errors import MissingDependencyError
from pargo_export.trt import find_obstacle, load_tensorrt, module


@pytest.fixture
def load(monkeypatch):
    """Return the function without its cache: a second logger of a real module would replace one that is in use."""
    monkeypatch.setattr(module, "load_tensorrt", load_tensorrt.__wrapped__)
    return load_tensorrt.__wrapped__


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a module `tensorrt` with the given source."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    yield (tmp_path / "tensorrt.py").write_text
    sys.modules.pop("tensorrt", None)


def test_the_installed_rtx():
    """The real module is loaded once, with its version as the package has it."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    found = load_tensorrt("rtx")
    assert found is load_tensorrt("rtx")
    assert found.version == importlib.metadata.version("tensorrt-rtx-cu13")
    assert found.title == f"TensorRT for RTX {found.version}"
    assert found.logger is found.logger
    assert find_obstacle("rtx") is None


@pytest.mark.parametrize(
    ("flavor", "name", "mend"),
    [
        ("tensorrt", "tensorrt", "pip install 'pargo-export[tensorrt]'; on a Jetson it comes with JetPack"),
        ("rtx", "tensorrt_rtx", "pip install 'pargo-export[rtx]'"),
    ],
)
def test_not_installed(monkeypatch, load, flavor, name, mend):
    """What is missing comes with the command that installs it."""

    class Blocker:
        def find_spec(self, wanted, *_):
            if wanted == name:
                raise ModuleNotFoundError(wanted)

    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Blocker(), *sys.meta_path])
    assert mend in find_obstacle(flavor)
    with pytest.raises(MissingDependencyError, match="is not installed"):
        load(flavor)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise OSError('libnvdla_compiler.so: cannot open')", "OSError: libnvdla_compiler.so: cannot open"),
        ("raise RuntimeError('placeholder')", "does not load .RuntimeError: placeholder.*install it again"),
        ("", "the module tensorrt in .* holds no library, only stubs perhaps"),
        ("__version__ = '8.6.2.3'", "TensorRT 8.6.2.3 is too old, 10.3 is the first that serves"),
        ("__version__ = '10.2.0'", "10.2.0 is too old"),
    ],
)
def test_what_cannot_be_used(install, load, source, message):
    """A broken installation says which library is missing, an old one which version is needed."""
    install(source)
    with pytest.raises(MissingDependencyError, match=message):
        load("tensorrt")
    assert find_obstacle("tensorrt")


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9.post1", "11.4.1.5"])
def test_versions_that_serve(install, load, version):
    """From 10.3 on every version is taken, also one with a suffix."""
    install(f"__version__ = {version!r}")
    assert find_obstacle("tensorrt") is None
    assert load("tensorrt").version == version
