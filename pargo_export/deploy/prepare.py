"""What can be said here about a variant that another device will build."""

from __future__ import annotations

from dataclasses import dataclass

from pargo_export.bundle import Bundle, Variant
from pargo_export.deploy.target import GpuTarget
from pargo_export.engine.ladder import LADDER
from pargo_export.engine.network import parse
from pargo_export.errors import EngineError, MissingDependencyError
from pargo_export.trt import load_tensorrt

__all__ = ["Probe", "probe_variant"]

# The lowest TensorRT of a JetPack that is supported on each Jetson: docs/jetson.md.
_LOWEST: dict[GpuTarget, tuple[int, int]] = {"orin": (10, 3), "thor": (10, 13)}


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        detail: In one line.
        notes: Remarks for the reader.
    """

    detail: str
    notes: tuple[str, ...] = ()


def probe_variant(bundle: Bundle, name: str, target: GpuTarget) -> Probe:
    """Parse a variant with TensorRT for RTX, if it is installed, and compare it with what is known of the device.

    That another parser takes a graph is a sign, no proof: nothing here forbids a build.

    Args:
        bundle: The bundle.
        name: Name of the variant.
        target: The device.

    Raises:
        IntegrityError: A file of the variant is not the one that the manifest describes.
    """
    variant = bundle.variant(name)
    for file in bundle.manifest.files_of(variant.graph):
        bundle.check(file)
    expected = _expectation(variant, target)
    try:
        rtx = load_tensorrt("rtx")
    except MissingDependencyError:
        note = "no parser of TensorRT has seen the graph: pip install 'pargo-export[rtx]' to try that of TensorRT for RTX"
        return Probe("its files are whole", (*expected, note))
    try:
        parsed = parse(rtx, variant, bundle.file(variant.graph))
    except EngineError as error:
        note = (
            f"the device will most likely refuse the graph, as the parser of another TensorRT does: {error}"
        )
        return Probe(f"not parsed by {rtx.title}", (*expected, note))
    note = (
        f"the parser of {rtx.title} takes the graph; that of the device is another one and decides for itself"
    )
    return Probe(
        f"parsed by {rtx.title}, {parsed.network.num_layers} layers", (*expected, *parsed.notes, note)
    )


def _expectation(variant: Variant, target: GpuTarget) -> tuple[str, ...]:
    """Say it if the oldest TensorRT of the target is not expected to take the attention form."""
    lowest = _LOWEST.get(target)
    if lowest is None:
        return ()
    rung = next(item for item in LADDER if item.flavor == "tensorrt" and item.since == lowest)
    if variant.attention in rung.forms:
        return ()
    version = ".".join(map(str, lowest))
    note = (
        f"TensorRT {version} (JetPack {rung.jetpack}) is not expected to take attention {variant.attention!r}, only "
        f"{', '.join(rung.forms)}; export with another form for it, or use a newer JetPack"
    )
    return (note,)
