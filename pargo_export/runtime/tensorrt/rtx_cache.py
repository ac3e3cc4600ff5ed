"""The kernels that TensorRT for RTX compiles when an engine is opened, kept for the next time.

They are machine code, and nothing vouches for them: the bundle, whose files are hashed, may be copied from anywhere and
be read only. So they lie in the user's cache directory, and are read only if nobody else could have written them.
TensorRT itself refuses those of another version, GPU or driver.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

from pargo_export.bundle import Engine, EngineDevice, atomic_write
from pargo_export.device.cache import cache_directory
from pargo_export.trt import TensorRT

__all__ = ["RtxCache", "cache_path"]

_LOGGER = logging.getLogger("pargo_export.runtime")


def cache_path(engine: Engine, device: EngineDevice, tensorrt: TensorRT) -> Path:
    """Return the file for an engine on a machine, under `XDG_CACHE_HOME`, by default `~/.cache`."""
    name = f"{engine.engine_sha256[:16]}-{tensorrt.version}-sm{device.compute_capability.replace('.', '')}"
    return cache_directory("tensorrt-rtx") / f"{name}.cache"


class RtxCache:
    """The runtime cache of one engine.

    Args:
        trt_cache: What `IRuntimeConfig.create_runtime_cache` returned; it is filled from the file. The CUDA context
            must be current.
        path: The file, which need not exist.

    Attributes:
        trt_cache: To be set in the runtime config of every execution context.
    """

    # Any: TensorRT for RTX alone has the class, so the stubs do not.
    def __init__(self, trt_cache: Any, path: Path) -> None:
        self.trt_cache = trt_cache
        self._path = path
        self._content = _read(path)
        if self._content and not trt_cache.deserialize(self._content):
            text = "%s is of another GPU, driver or version: kernels are compiled anew"
            _LOGGER.info(text, path, extra=_fields("kernel_cache_refused", path))

    def save(self) -> None:
        """Write what was compiled since; a directory that cannot be written is logged, as the engine works without."""
        memory = self.trt_cache.serialize()
        content = b"" if memory is None else bytes(memory)
        if not content or content == self._content:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._path, content)
        except OSError as error:
            text = "compiled kernels cannot be kept for the next start: %s"
            _LOGGER.warning(text, error, extra=_fields("kernel_cache_not_written", self._path))
        else:
            self._content = content


def _read(path: Path) -> bytes:
    """Return the content of a file that only this user can write; empty if there is none."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        text = "compiled kernels cannot be read: %s"
        _LOGGER.warning(text, error, extra=_fields("kernel_cache_not_read", path))
        return b""
    text = "%s belongs to another user or can be written by others: it is not read"
    _LOGGER.warning(text, path, extra=_fields("kernel_cache_not_read", path))
    return b""


def _fields(event: str, path: Path) -> dict[str, str]:
    """Return the fields of a log record."""
    return {"pargo_event": event, "pargo_path": str(path)}
