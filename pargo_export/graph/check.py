"""One named check of a bundle, and how a finding becomes its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pargo_export.bundle import Evidence

__all__ = ["Check", "CheckFailure", "first_line", "perform", "summarize_evidence"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What, for example `"fp16: signature"`.
        ok: Whether it passed.
        detail: What was found; if it did not pass, also what was expected.
    """

    name: str
    ok: bool
    detail: str


class CheckFailure(Exception):  # noqa: N818 - a finding, not an error of the program
    """A check did not pass; the message says what was found and what was expected."""


def perform(name: str, function: Callable[[], str]) -> Check:
    """Run a check that returns what it found; whatever it raises is a finding.

    A graph that was tampered with can make onnx and ONNX Runtime raise anything.
    """
    try:
        return Check(name, ok=True, detail=function())
    except CheckFailure as failure:
        return Check(name, ok=False, detail=str(failure))
    except Exception as error:  # noqa: BLE001 - see above
        return Check(name, ok=False, detail=f"{type(error).__name__}: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return what an error says, without the trace that some libraries put behind it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def summarize_evidence(evidence: Evidence) -> str:
    """Say how far the worst measurement is from the reference, in the measures that have limits."""
    if not evidence.stages:
        return "nothing was measured"
    if evidence.limits.mean_cosine is not None or evidence.limits.sqnr_db is not None:
        return _summarize_quantized(evidence)
    largest = max(item.max_abs for item in evidence.stages)
    smallest = min(item.cosine for item in evidence.stages)
    return f"max abs {largest:.2g}, cosine {smallest:.6f} in {len(evidence.stages)} measurements"


def _summarize_quantized(evidence: Evidence) -> str:
    """Say it for a graph that rounds: single values and tokens are off, their mean and power tell."""
    means = [item.mean_cosine for item in evidence.stages if item.mean_cosine is not None]
    ratios = [item.sqnr_db for item in evidence.stages if item.sqnr_db is not None]
    mean = f"{min(means):.5f}" if means else "not measured"
    ratio = f"{min(ratios):.1f} dB" if ratios else "not measured"
    worst = min(item.cosine for item in evidence.stages)
    num_measured = len(evidence.stages)
    return f"mean cosine {mean}, SQNR {ratio}, worst token {worst:.5f} in {num_measured} measurements"
