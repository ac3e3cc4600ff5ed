"""TensorRT for RTX adds a plugin to a network only if it finds its own library under a name that no wheel installs.

Its parser opens `libtensorrt_rtx.so`; the wheel has `libtensorrt_rtx.so.1`. Where the name is not found the parser of
1.7.1 ends the process, with `terminate called without an active exception`. So the name is looked for beforehand.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from pargo_export.trt.module import TensorRT

__all__ = ["find_link_obstacle"]

_NAME = "libtensorrt_rtx.so"
_CORE = "libtensorrt_rtx.so."
_PARSER = "libtensorrt_onnxparser_rtx.so"
_MAPS = Path("/proc/self/maps")


def find_link_obstacle(tensorrt: TensorRT) -> str | None:
    """Return why the ONNX parser could not add a plugin, with the mend; `None` if it can, or needs no such name."""
    if tensorrt.flavor != "rtx" or sys.platform != "linux":
        return None
    core, parser = _loaded_files(_CORE), _loaded_files(_PARSER)
    if not core or not parser:
        return None  # linked in some other way: nothing to compare with
    beside = parser[0].parent / _NAME  # the parser looks beside itself first (RPATH $ORIGIN), ctypes does not
    if not beside.exists():
        try:
            ctypes.CDLL(_NAME)
        except OSError:
            return (
                f"the parser of {tensorrt.title} opens {_NAME} to add a plugin, and ends the process where it is not "
                f"found, as here; make it once: ln -s {core[0].name} {beside}"
            )
    others = [
        path for path in (beside, *_loaded_files(_NAME)) if path.exists() and not path.samefile(core[0])
    ]
    if others:
        return (
            f"{others[0]}, which the parser opens to add a plugin, is another library than the one in use, {core[0]}; "
            "make it a link to that one, or take it off the library path"
        )
    return None


def _loaded_files(prefix: str) -> list[Path]:
    """Return the files that this process has loaded, by the beginning of their names, in the order of addresses."""
    paths = (Path("/" + line.partition("/")[2]) for line in _MAPS.read_text().splitlines() if "/" in line)
    return list(dict.fromkeys(path for path in paths if path.name.startswith(prefix)))
