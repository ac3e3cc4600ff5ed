"""Which attention form which TensorRT takes: what is expected, for advice; the parser decides.

Sources: the changelog of onnx-tensorrt (local functions: 9.0; `Attention`: 10.14), TensorRT's release notes, and for
TensorRT for RTX our own builds. Nothing but RTX 1.7.1 was run.
"""

from __future__ import annotations

from dataclasses import dataclass

from pargo_export.bundle import Flavor

__all__ = ["LADDER", "Rung", "find_rung"]


@dataclass(frozen=True)
class Rung:
    """A range of versions, up to the next one of the same flavor.

    Attributes:
        flavor: `tensorrt` or `rtx`.
        since: First version.
        jetpack: JetPack that brings it; empty for none.
        forms: Attention forms that are expected to be parsed, the preferred one first.
        plugin: When the parser takes a plugin for a function of its name: `never`, `always`, `on request`.
        source: Where that is known from.
    """

    flavor: Flavor
    since: tuple[int, int]
    jetpack: str
    forms: tuple[str, ...]
    plugin: str
    source: str


_PLAIN = ("fused", "structured", "dense")
_ALL = (*_PLAIN, "attention_op")

LADDER: tuple[Rung, ...] = (
    Rung("tensorrt", (10, 3), "6.1, 6.2", _PLAIN, "never", "onnx-tensorrt changelog, 9.0 and 10.3"),
    Rung("tensorrt", (10, 7), "", _PLAIN, "always", "onnx-tensorrt changelog, 10.7"),
    Rung("tensorrt", (10, 13), "7.0, 7.1", _PLAIN, "always", "onnx-tensorrt changelog, 10.13"),
    Rung("tensorrt", (10, 14), "", _ALL, "always", "onnx-tensorrt changelog, 10.14: Attention"),
    Rung(
        "tensorrt", (10, 15), "", _ALL, "on request", "onnx-tensorrt changelog, 10.15: ENABLE_PLUGIN_OVERRIDE"
    ),
    Rung("tensorrt", (10, 16), "7.2", _ALL, "on request", "onnx-tensorrt changelog, 10.15"),
    Rung(
        "tensorrt",
        (11, 4),
        "7.2.2",
        _ALL,
        "on request",
        "names in the bindings 11.4.0, migration guide 11.4.1",
    ),
    Rung("rtx", (1, 4), "", _ALL, "on request", "built with 1.7.1"),
)


def find_rung(flavor: Flavor, version: str) -> Rung:
    """Return what is expected of a version, for example `"10.3.0"`.

    Raises:
        ValueError: It is older than the lowest one that is supported.
    """
    found = tuple(int(part) for part in version.split(".")[:2])
    rungs = [rung for rung in LADDER if rung.flavor == flavor and rung.since <= found]
    if not rungs:
        raise ValueError(f"{flavor} {version} is older than every version that is supported")
    return max(rungs, key=lambda rung: rung.since)
