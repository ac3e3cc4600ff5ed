"""The plugins that a Python package registers: `pargo_kernels.trt_plugin`, for the two attentions.

An engine with them carries the compiled kernels; the package's launcher hands them their arguments. A launcher of
another version may hand over others, and a kernel does not notice: so an engine records a hash of these sources.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.resources
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pargo_export._version import __version__
from pargo_export.errors import EngineError
from pargo_export.trt.module import TensorRT
from pargo_export.trt.plugins_library import registered_creators

if TYPE_CHECKING:
    from tensorrt import IPluginCreatorV3One

__all__ = [
    "OPERATIONS",
    "PACKAGE",
    "acquire_creators",
    "find_compile_obstacle",
    "keep_creators",
    "package_sha256",
    "release_creators",
]

PACKAGE = f"pargo_kernels {__version__}"  # it comes with pargo-export, in one distribution
OPERATIONS = ("PartialGlobalAttention", "BlockDiagonalAttention")
# What runs when an engine with these plugins is loaded and executed; the rest only compiles kernels.
_RUNTIME_SOURCES = (
    "cubin_launcher.py",
    "trt_compiler.py",
    "trt_interfaces.py",
    "trt_launch.py",
    "trt_plugin.py",
)
_MEND = "install pargo-export again, it contains the package"


@dataclass
class _Registration:
    """The creators of one TensorRT module; its registry belongs to the process and takes each name once."""

    creators: list[IPluginCreatorV3One] = field(default_factory=list)
    capability: int | None = None
    num_builds: int = 0
    is_kept: bool = False
    # TensorRT keeps no reference to what it may still use.
    retired: list[IPluginCreatorV3One] = field(default_factory=list)


_lock = threading.Lock()
_registrations: dict[str, _Registration] = {}  # by flavor


def package_sha256() -> str:
    """Return one hash of the sources that an engine relies on when it runs.

    Raises:
        EngineError: The package or one of the sources is missing.
    """
    digest = hashlib.sha256()
    try:
        folder = importlib.resources.files("pargo_kernels")
        for name in _RUNTIME_SOURCES:
            content = folder.joinpath(name).read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"the package pargo_kernels with the TensorRT plugins is not here ({error}); {_MEND}"
        ) from error
    return digest.hexdigest()


def find_compile_obstacle(capability: int | None) -> str | None:
    """Return why the kernels of the plugins cannot be compiled in this process; `None` if they can.

    Args:
        capability: For which GPU, 86 for 8.6; `None` for the one of this machine.
    """
    try:
        compiler = importlib.import_module("pargo_kernels.trt_compiler")
        if capability is None:
            capability = importlib.import_module("pargo_kernels.cubin_launcher").current_compute_capability()
    except ImportError as error:
        return f"{error}; {_MEND}"
    except RuntimeError as error:
        return f"{error}; name the GPU to build for, for example --target rtx:sm86"
    try:
        compiler.NodeCompiler(capability).check()
    except ImportError as error:
        return f"{error}; compiling their kernels takes pip install 'pargo-export[cuda]'"
    except RuntimeError as error:  # Triton interprets
        return str(error)
    return None


def acquire_creators(tensorrt: TensorRT, capability: int | None) -> None:
    """Register the plugins for a build; undone by `release_creators`.

    Args:
        tensorrt: Where to register.
        capability: For which GPU their kernels are compiled, 86 for 8.6; `None` for the one of this machine.

    Raises:
        EngineError: The package is missing, other code has registered plugins of these names, or another build of
            this process compiles for another GPU.
    """
    with _lock:
        registration = _registrations.setdefault(tensorrt.flavor, _Registration())
        if registration.creators and registration.capability != capability:
            if registration.num_builds:
                raise EngineError(
                    f"a build in this process compiles the plugins for {_title(registration.capability)}, this one "
                    f"wants {_title(capability)}; wait for the other build, or use another process"
                )
            _deregister(tensorrt, registration)
        if not registration.creators:
            _register(tensorrt, registration, capability)
        registration.num_builds += 1


def release_creators(tensorrt: TensorRT) -> None:
    """End one build's use; after the last one the plugins are deregistered, unless a loaded engine has them."""
    with _lock:
        registration = _registrations[tensorrt.flavor]
        registration.num_builds -= 1
        if not registration.num_builds and not registration.is_kept:
            _deregister(tensorrt, registration)


def keep_creators(tensorrt: TensorRT) -> list[IPluginCreatorV3One]:
    """Register the plugins to load engines with, for as long as the process lives, and return their creators.

    Raises:
        EngineError: The package is missing, or other code has registered plugins of these names.
    """
    with _lock:
        registration = _registrations.setdefault(tensorrt.flavor, _Registration())
        if not registration.creators:
            _register(tensorrt, registration, None)
        registration.is_kept = True
        return registration.creators


def _register(tensorrt: TensorRT, registration: _Registration, capability: int | None) -> None:
    taken = sorted(
        {item.name for item in registered_creators(tensorrt) if not item.namespace} & {*OPERATIONS}
    )
    if taken:
        raise EngineError(
            f"plugins named {', '.join(taken)} are registered in this process by other code, which an engine could not "
            "name as its requirement; give their library with --plugin, in a new process"
        )
    try:
        plugins = importlib.import_module("pargo_kernels.trt_plugin")
        registration.creators = plugins.register_plugins(tensorrt.module, compute_capability=capability)
    except ImportError as error:
        raise EngineError(
            f"the package pargo_kernels with the TensorRT plugins is not here ({error}); {_MEND}"
        ) from error
    except RuntimeError as error:
        raise EngineError(f"{tensorrt.title} refuses the plugins of pargo_kernels ({error})") from error
    registration.capability = capability


def _deregister(tensorrt: TensorRT, registration: _Registration) -> None:
    plugins = importlib.import_module("pargo_kernels.trt_plugin")
    plugins.deregister_plugins(tensorrt.module, registration.creators)
    registration.retired += registration.creators
    registration.creators = []


def _title(capability: int | None) -> str:
    return "the GPU of this machine" if capability is None else f"compute capability {capability / 10:.1f}"
