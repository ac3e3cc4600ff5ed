"""Which packages are installed, without importing them."""

from __future__ import annotations

from importlib import metadata

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
_SAME = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
}


def find_versions() -> dict[str, str | None]:
    """Return the version of every package that pargo-export can use; `None` where it is not installed."""
    names = sorted({name for group in PACKAGES.values() for name in group})
    return {name: _version((name,) if name == "onnxruntime" else _SAME.get(name, (name,))) for name in names}


def missing(group: str) -> tuple[str, ...]:
    """Return the packages of a group that are not installed, under any name."""
    return tuple(name for name in PACKAGES[group] if _version(_SAME.get(name, (name,))) is None)


def _version(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:  # noqa: PERF203 - a handful of names
            continue
    return None
