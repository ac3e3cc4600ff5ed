"""The CUDA driver through NVIDIA's Python bindings, with errors that say what failed."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

from pargo_export.errors import BackendError, MissingDependencyError

__all__ = ["Cuda", "CudaError", "find_bindings_obstacle", "load_cuda"]

_MODULES = ("cuda.bindings.driver", "cuda.cuda")  # the second: cuda-python before 12.6.1
_INSTALL = (
    "pip install 'cuda-bindings<13' for a driver of CUDA 12 (JetPack 6), pip install cuda-bindings for CUDA 13; "
    "nvidia-smi shows which it is"
)


class CudaError(BackendError):
    """A call of the CUDA driver failed.

    Attributes:
        name: Name of the status, for example `"CUDA_ERROR_OUT_OF_MEMORY"`.
    """

    def __init__(self, function: str, name: str, text: str) -> None:
        super().__init__(f"{function} failed with {name} ({text})")
        self.name = name


class Cuda:
    """The driver's functions, called by their names in `cuda.h`.

    Args:
        module: NVIDIA's bindings, or what stands for them.

    Attributes:
        module: For its constants.
    """

    def __init__(self, module: Any) -> None:
        self.module = module

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function and return what it gives back: nothing, a value, or a tuple of values.

        Raises:
            CudaError: Its status is not success.
        """
        status, *values = getattr(self.module, function)(*arguments)
        if int(status):
            raise CudaError(
                function, self._describe("cuGetErrorName", status), self._describe("cuGetErrorString", status)
            )
        return tuple(values) if len(values) > 1 else next(iter(values), None)

    def _describe(self, function: str, status: Any) -> str:
        failed, text = getattr(self.module, function)(status)
        return f"status {int(status)}" if int(failed) or text is None else text.decode(errors="replace")


def find_bindings_obstacle() -> str | None:
    """Return why the bindings cannot be used, with the mend; `None` if they are installed."""
    if any(_is_installed(name) for name in _MODULES):
        return None
    return f"NVIDIA's CUDA bindings for Python are not installed: {_INSTALL}"


def load_cuda() -> Cuda:
    """Import the bindings; where there is a driver, they find it by themselves.

    Raises:
        MissingDependencyError: They are not installed or do not load.
    """
    problem = "they are not installed"
    for name in _MODULES:
        if not _is_installed(name):
            continue
        try:
            module: ModuleType = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken installation raises what it likes
            problem = f"{name} does not load ({type(error).__name__}: {error})"
        else:
            return Cuda(module)
    raise MissingDependencyError(f"NVIDIA's CUDA bindings for Python cannot be used, {problem}: {_INSTALL}")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # a parent is missing, or an import hook refuses it
        return False
