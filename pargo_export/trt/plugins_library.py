"""Shared libraries with TensorRT plugins: load one, and see which plugin creators it brings.

Loading a library runs its code. It is therefore hashed first, and what was loaded under a hash is remembered: the
plugin registry belongs to the process, takes each name once, and a library is never taken out of it again, since
objects of it may still live.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pargo_export.bundle import sha256_file
from pargo_export.errors import EngineError
from pargo_export.trt.module import TensorRT

if TYPE_CHECKING:
    from tensorrt import Runtime

__all__ = ["CreatorName", "PluginLibrary", "load_library", "registered_creators"]

_ENTRY_POINTS = ("getCreators", "getPluginCreators")  # by which TensorRT asks a library for its creators
_lock = threading.Lock()
_loaded: dict[tuple[str, str], PluginLibrary] = {}  # by flavor and hash


@dataclass(frozen=True, order=True)
class CreatorName:
    """What the plugin registry knows a creator by.

    Attributes:
        name: The plugin's name; the ONNX parser looks for a node's operator.
        namespace: Usually empty.
        version: Usually `"1"`.
    """

    name: str
    namespace: str
    version: str

    def __str__(self) -> str:
        return f"{self.namespace}::{self.name}" if self.namespace else self.name


@dataclass(frozen=True)
class PluginLibrary:
    """A library whose creators are registered.

    Attributes:
        path: The file, by the path that was given last.
        sha256: Hash of the file before it was loaded.
        creators: What it registered.
    """

    path: Path
    sha256: str
    creators: tuple[CreatorName, ...]


def registered_creators(tensorrt: TensorRT) -> frozenset[CreatorName]:
    """Return the creators in TensorRT's plugin registry, those that it brings along included."""
    found = (
        tensorrt.module.get_plugin_registry().all_creators or ()
    )  # None: one is of a kind without bindings
    return frozenset(
        CreatorName(creator.name, creator.plugin_namespace, creator.plugin_version) for creator in found
    )


def load_library(tensorrt: TensorRT, path: Path, *, expected_sha256: str | None = None) -> PluginLibrary:
    """Load a library and register its plugin creators, once a process.

    Args:
        tensorrt: Whose registry.
        path: The shared library. It has to stand alone: libraries beside it are not carried into a bundle.
        expected_sha256: Refuse any other file, before it is loaded.

    Raises:
        EngineError: The file is missing, has another hash, does not load, contains no plugin creator, or the name of
            one is taken.
    """
    path = path.expanduser().absolute()
    try:
        sha256 = sha256_file(path)
    except OSError as error:
        raise EngineError(
            f"the plugin library {path} cannot be read ({error.strerror}); name a shared library"
        ) from error
    if expected_sha256 not in {None, sha256}:
        raise EngineError(f"the plugin library {path} has sha256 {sha256}, expected {expected_sha256}")
    with _lock:
        key = (tensorrt.flavor, sha256)
        if key not in _loaded:
            _loaded[key] = PluginLibrary(path, sha256, _register(tensorrt, path))
        return replace(_loaded[key], path=path)


def _register(tensorrt: TensorRT, path: Path) -> tuple[CreatorName, ...]:
    before = registered_creators(tensorrt)
    try:
        # ctypes never unloads: TensorRT unloads a library that it refuses, and whatever such a library registered
        # while it was loaded would then point nowhere.
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(
            f"the plugin library {path} does not load ({error}); it must be built for this machine and for "
            f"{tensorrt.title}"
        ) from error
    found = registered_creators(tensorrt) - before  # a library may register while it is loaded
    if not found and any(hasattr(library, name) for name in _ENTRY_POINTS):
        with tensorrt.log.watch() as log:
            # TensorRT speaks through the logger of a builder or runtime; the first one of a process decides.
            builder = _with_logger(tensorrt)
            handle = tensorrt.module.get_plugin_registry().load_library(str(path))
            reason = log.reason("TensorRT gives no reason")
        del builder
        if handle is None:
            raise EngineError(
                f"{tensorrt.title} refuses the plugin library {path} ({reason}); if a plugin of that name is "
                "registered already, start a new process"
            )
        found = registered_creators(tensorrt) - before
    if not found:
        raise EngineError(
            f"the library {path} contains no plugin creator: it registers none when it is loaded and has no "
            f"function {_ENTRY_POINTS[0]}; name a library of TensorRT plugins, as `trtexec --dynamicPlugins` takes it"
        )
    return tuple(sorted(found))


def _with_logger(tensorrt: TensorRT) -> Runtime:
    """Return an object that makes TensorRT know our logger."""
    return tensorrt.module.Runtime(tensorrt.logger)
