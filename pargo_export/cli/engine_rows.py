"""How an engine looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pargo_export.bundle import Engine
from pargo_export.cli import layout
from pargo_export.graph.check import summarize_evidence
from pargo_export.trt.module import TITLES

__all__ = ["engine_rows"]

_NUM_CASTS = 3


def engine_rows(engine: Engine) -> Iterator[tuple[str, str]]:
    """Describe an engine: what it is for, what is in it, what was measured."""
    found, device, timing = engine.built_as_asked, engine.device, engine.timing
    yield "file", f"{engine.file}, {layout.size(engine.size_bytes)}"
    capabilities = ", ".join(engine.compute_capabilities) or "8.0 and later"
    title = f"{TITLES[engine.flavor]} {engine.tensorrt_version}"
    yield "built with", f"{title}, for compute capability {capabilities}"
    jetpack = f"JetPack {device.jetpack}" if device.jetpack else ""
    yield "on", ", ".join(filter(None, (device.jetson or device.name, jetpack, device.platform)))
    yield "batches", ", ".join(map(str, engine.profiles)) + " (smallest-optimal-largest)"
    yield "attention", f"{engine.attention} in the graph; {found.attention}"
    linears = ", ".join(f"{name} {number}" for name, number in found.linears.items())
    share = (
        f"{found.share:.1%} of the work of the linears in {found.asked} ({linears}), by the {found.source}"
    )
    yield "precision", share if found.passed else f"{share}: FAILED, at least {found.limit:.1%} were to be"
    casts = ", ".join(found.casts[:_NUM_CASTS])
    more = len(found.casts) - _NUM_CASTS
    yield "casts", f"{casts} and {more} more" if more > 0 else casts
    yield "remark", "; ".join(found.notes)
    plugins = [f"{', '.join(item.operators)}: {item.package or item.file}" for item in engine.plugins]
    yield "plugins", "; ".join(plugins)
    yield "build", f"{engine.build_seconds:.1f} s, peak memory {layout.size(engine.peak_memory_bytes)}"
    evidence = engine.evidence
    if evidence is None:
        yield "agreement", "not measured: it was not run"
    else:
        passed = "passed" if evidence.passed else "FAILED"
        yield "agreement", f"{passed}, {summarize_evidence(evidence)}, against {evidence.reference}"
    if timing is not None:
        yield "time", f"{timing.median_ms:.3g} ms at batch {timing.batch}, median of {timing.num_runs}"
