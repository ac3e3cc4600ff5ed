"""Which packages are installed, without importing them."""

from __future__ import annotations

from pargo_export.device.packages import find_version

__all__ = ["PACKAGES", "find_versions", "missing"]

# Distribution names by what they are for. Several distributions may provide the same module.
PACKAGES: dict[str, tuple[str, ...]] = {
    "base": ("click", "numpy", "pillow", "pydantic", "rich", "safetensors"),
    "export": ("onnx", "onnxruntime", "onnxscript", "torch"),
    "backends": (
        "cuda-bindings",
        "onnx-ir",
        "onnxruntime",
        "onnxruntime-gpu",
        "openvino",
        "tensorrt",
        "tensorrt-rtx",
        "torch",
        "triton",
    ),
}
# The one of several distributions of a module that a device may have in its place.
_ALSO = {"onnxruntime": "onnxruntime-gpu"}


def find_versions() -> dict[str, str | None]:
    """Return the version of every package that pargo-export can use; `None` where it is not installed."""
    names = sorted({name for group in PACKAGES.values() for name in group})
    return {name: find_version(name) for name in names}


def missing(group: str) -> tuple[str, ...]:
    """Return the packages of a group that are not installed, under any name."""
    return tuple(name for name in PACKAGES[group] if not _is_installed(name))


def _is_installed(name: str) -> bool:
    return any(find_version(each) is not None for each in (name, _ALSO.get(name, name)))
