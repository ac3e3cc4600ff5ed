"""What of pargo-export this machine can do, why not the rest, and what to install for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from pargo_export.bundle import Precision
from pargo_export.device.gpu import MIN_CAPABILITY, Driver
from pargo_export.doctor.packages import missing
from pargo_export.runtime.backends import BACKENDS, Backend

__all__ = ["Ability", "PrecisionSupport", "find_abilities"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# Instruction sets with 8-bit dot products, the fastest first: without one, int8 gains little on a CPU.
_INT8_FEATURES = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "dotprod")


@dataclass(frozen=True)
class PrecisionSupport:
    """Whether a backend runs graphs of one precision.

    Attributes:
        precision: The precision.
        ok: Whether it runs them.
        reason: Why not; empty if it does.
    """

    precision: str
    ok: bool
    reason: str


@dataclass(frozen=True)
class Ability:
    """One thing that pargo-export does.

    Attributes:
        name: `"export"`, or the name of a backend.
        device: Where it runs.
        ok: Whether it works here, as far as can be told without a graph.
        reason: Why not and what to do about it; empty if it works.
        precisions: What a backend runs; empty for `"export"`.
        note: What decides the speed here; empty if there is nothing to say.
    """

    name: str
    device: str
    ok: bool
    reason: str
    precisions: tuple[PrecisionSupport, ...] = ()
    note: str = ""


def find_abilities(
    driver: Driver, backends: Sequence[Backend] = BACKENDS, *, features: Sequence[str] = ()
) -> tuple[Ability, ...]:
    """Return whether this machine can export, then what each backend can do.

    Args:
        driver: The GPUs; backends run on the first one.
        backends: The known backends.
        features: Instruction sets of the processor.
    """
    lacking = missing("export")
    reason = f"{', '.join(lacking)} missing: pip install 'pargo-export[export]'" if lacking else ""
    export = Ability("export", "CPU", ok=not lacking, reason=reason)
    return (export, *(_describe(backend, driver, features) for backend in backends))


def _describe(backend: Backend, driver: Driver, features: Sequence[str]) -> Ability:
    obstacle = backend.find_obstacle() or ""
    return Ability(
        name=backend.name,
        device=backend.device,
        ok=not obstacle,
        reason=obstacle,
        precisions=tuple(_support(backend, precision, driver) for precision in PRECISIONS),
        note=_note_int8(features) if backend.device == "CPU" and "int8" in backend.precisions else "",
    )


def _note_int8(features: Sequence[str]) -> str:
    units = [name for name in _INT8_FEATURES if name in features]
    if units:
        return f"int8 is computed by {units[0]}"
    return f"int8 gains little: this CPU has none of {', '.join(_INT8_FEATURES)}"


def _support(backend: Backend, precision: str, driver: Driver) -> PrecisionSupport:
    if precision not in backend.precisions:
        reason = backend.unsupported.get(precision, "this version does not know that precision")
        return PrecisionSupport(precision, ok=False, reason=reason)
    wanted = MIN_CAPABILITY.get(precision, (0, 0))
    if backend.device != "CPU" and driver.gpus:
        gpu = driver.gpus[0]
        if tuple(map(int, gpu.compute_capability.split("."))) < wanted:
            least = ".".join(map(str, wanted))
            reason = f"{gpu.name} has compute capability {gpu.compute_capability}, {precision} needs {least}"
            return PrecisionSupport(precision, ok=False, reason=reason)
    return PrecisionSupport(precision, ok=True, reason="")
