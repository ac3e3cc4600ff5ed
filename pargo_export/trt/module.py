"""Find and load TensorRT, or TensorRT for RTX."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, cast

from pargo_export.bundle import Flavor
from pargo_export.errors import MissingDependencyError
from pargo_export.trt.api import TensorRTModule
from pargo_export.trt.log import Log

if TYPE_CHECKING:
    from tensorrt import ILogger

__all__ = ["LOWEST_VERSION", "MODULES", "TITLES", "TensorRT", "find_obstacle", "load_tensorrt"]

MODULES: dict[Flavor, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
TITLES: dict[Flavor, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
LOWEST_VERSION: dict[Flavor, tuple[int, int]] = {"tensorrt": (10, 3), "rtx": (1, 4)}
_MEND: dict[Flavor, str] = {
    "tensorrt": "pip install 'pargo-export[tensorrt]'; on a Jetson it comes with JetPack (docs/jetson.md)",
    "rtx": "pip install 'pargo-export[rtx]'",
}


@dataclass(frozen=True)
class TensorRT:
    """A loaded TensorRT.

    Attributes:
        flavor: Which of the two.
        module: The module, `tensorrt` or `tensorrt_rtx`.
        log: Its logger. TensorRT takes one logger for the whole process, so there is one a module.
    """

    flavor: Flavor
    module: TensorRTModule
    log: Log

    @cached_property
    def version(self) -> str:
        """For example `"10.13.3.9"`."""
        return str(self.module.__version__)

    @property
    def title(self) -> str:
        """For people: `TensorRT 10.13.3.9`."""
        return f"{TITLES[self.flavor]} {self.version}"

    @cached_property
    def logger(self) -> ILogger:
        """The logger as an object of the module's `ILogger`, for builders, parsers and runtimes."""
        return self.log.as_logger(self.module)


def find_obstacle(flavor: Flavor) -> str | None:
    """Return why this flavor cannot be used here, with the mend; `None` if it can. Imports the module."""
    try:
        load_tensorrt(flavor)
    except MissingDependencyError as error:
        return str(error)
    return None


@cache
def load_tensorrt(flavor: Flavor) -> TensorRT:
    """Import a flavor of TensorRT, once a process.

    Raises:
        MissingDependencyError: It is not installed, does not load, or is too old.
    """
    name, title = MODULES[flavor], TITLES[flavor]
    if not _is_installed(name):
        raise MissingDependencyError(f"{title} is not installed: {_MEND[flavor]}")
    try:
        module = importlib.import_module(name)
    # A broken installation raises what it likes: OSError of a library, ImportError, RuntimeError of its placeholder.
    except Exception as error:
        raise MissingDependencyError(
            f"{title} is installed, but the module {name} does not load ({type(error).__name__}: {error}); install it "
            f"again: {_MEND[flavor]}"
        ) from error
    if not hasattr(module, "__version__"):  # a folder of type stubs can be imported, too
        where = ", ".join(getattr(module, "__path__", ())) or "an unknown place"
        raise MissingDependencyError(
            f"{title} is not installed: the module {name} in {where} holds no library, only stubs perhaps; "
            f"{_MEND[flavor]}"
        )
    found = tuple(int(part) for part in str(module.__version__).split(".")[:2])
    if found < LOWEST_VERSION[flavor]:
        lowest = ".".join(map(str, LOWEST_VERSION[flavor]))
        raise MissingDependencyError(
            f"{title} {module.__version__} is too old, {lowest} is the first that serves: {_MEND[flavor]}"
        )
    return TensorRT(flavor, cast("TensorRTModule", module), Log(name))


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # an import hook refuses it
        return False
