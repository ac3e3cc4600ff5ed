"""Measured kernels of earlier builds, kept in the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pargo_export.bundle import Bundle
from pargo_export.errors import IntegrityError
from pargo_export.trt import TensorRT

if TYPE_CHECKING:
    from tensorrt import IBuilderConfig, ITimingCache

__all__ = ["cache_path", "read_cache", "take_cache", "use_cache"]


def cache_path(tensorrt: TensorRT, capability: str) -> str | None:
    """Path in the bundle; `None` where nothing is measured.

    TensorRT for RTX has the methods, but they do nothing since 1.2 and warn; its kernels are chosen on the user's GPU.
    """
    if tensorrt.flavor == "rtx":
        return None
    sm = "sm" + capability.replace(".", "")
    return f"engines/{tensorrt.flavor}-{tensorrt.version}-{sm}.timing.cache"


def read_cache(bundle: Bundle, path: str | None) -> tuple[bytes, tuple[str, ...]]:
    """Return the content of the cache and notes: empty if there is none, or if it was tampered with."""
    if path is None or path not in bundle.manifest.files:
        return b"", ()
    try:
        return bundle.check(path).read_bytes(), ()
    except IntegrityError as error:
        return b"", (f"the timing cache was dropped: {error}",)


def use_cache(config: IBuilderConfig, content: bytes) -> tuple[str, ...]:
    """Give a builder's configuration the cache, or an empty one to fill; return notes.

    A cache of another device, version or driver is refused by TensorRT and dropped here.
    """
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):
        return ()
    empty = config.create_timing_cache(b"")
    if empty is not None:
        config.set_timing_cache(empty, False)
    return (
        ("the timing cache in the bundle is of another device or driver and was dropped",) if content else ()
    )


def take_cache(config: IBuilderConfig) -> bytes:
    """Return the cache after a build; empty if there is none."""
    cache = cast("ITimingCache | None", config.get_timing_cache())
    if cache is None:
        return b""
    memory: Any = cache.serialize()  # IHostMemory has the buffer protocol, which the stubs get wrong
    return bytes(memoryview(memory))
