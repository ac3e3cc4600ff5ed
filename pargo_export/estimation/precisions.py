"""What a precision means on a device: between which rates the truth may lie, and whether there is any evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pargo_export.errors import ConfigError
from pargo_export.estimation.devices import Device
from pargo_export.estimation.fractions import Spread, load_fractions
from pargo_export.estimation.roofline import Rates

__all__ = ["PRECISIONS", "Evidence", "Precision", "Pricing", "element_bytes", "price"]

Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8", "int8-weight-only"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Evidence = Literal["validated", "other", "unproven"]

_TERA, _GIGA, _MICRO = 1e12, 1e9, 1e-6
# From which compute capability on tensor cores can do it.
_SINCE: dict[Precision, tuple[int, int]] = {"bf16": (8, 0), "fp8": (8, 9), "int8": (7, 2)}
_TF32_SINCE = (8, 0)


@dataclass(frozen=True)
class Pricing:
    """How to price the operations of one precision.

    Attributes:
        fast: Rates of the fast end.
        slow: Rates of the slow end.
        slow_factor: Factor on the time of the slow end.
        is_slow_float: Whether the slow end is priced as if nothing had 8 bits.
        spread: How far estimates with this much evidence were off.
        evidence: `validated`: FP16 or BF16, held against times of this device; `other`: against times of others;
            `unproven`: against none.
        notes: What the reader should know.
    """

    fast: Rates
    slow: Rates
    slow_factor: float
    is_slow_float: bool
    spread: Spread
    evidence: Evidence
    notes: tuple[str, ...]


def element_bytes(precision: Precision) -> int:
    """Return the bytes of what is not quantized: 8-bit variants for GPUs keep the rest in FP16."""
    return 4 if precision == "fp32" else 2


def price(device: Device, precision: Precision) -> Pricing:
    """Choose the rates.

    Raises:
        ConfigError: The device cannot do it, or the table has no figure for it.
    """
    fractions = load_fractions()
    peak = _peak(device, precision)
    compute = fractions.reached.compute * _TERA
    half = compute * device.fp16
    narrow = fractions.reached.compute_8bit * _TERA * peak if precision in ("int8", "fp8") else half
    evidence = _evidence(device, precision)
    notes: list[str] = []
    fast_float, slow_float, slow_factor = half, half, 1.0
    if precision == "fp32":
        slow_float = compute * peak
        # TF32, which TensorRT uses for float32 unless told otherwise, runs at half the rate of FP16.
        fast_float = half / 2 if device.capability >= _TF32_SINCE else slow_float
        fast_float = max(fast_float, slow_float)
        notes.append(
            "FP32: the fast end is with TF32, the slow end without; no time was at hand to check either."
        )
    elif precision in ("int8", "int8-weight-only"):
        slow_factor = fractions.slow.unproven_8bit
        notes.append(
            "INT8 on a GPU: only times of an H100 were at hand, where the library's INT8 takes 1.2 times as long as FP16. "
            "The slow end allows for that, and the middle is only a middle: measure it on the device."
        )
    return Pricing(
        fast=_rates(device, fast_float, narrow, 1.0),
        slow=_rates(device, slow_float, narrow, fractions.slow.misaligned),
        slow_factor=slow_factor,
        is_slow_float=slow_factor != 1.0,
        spread=fractions.spread[evidence],
        evidence=evidence,
        notes=tuple(notes),
    )


def _rates(device: Device, flops_per_s: float, narrow_flops_per_s: float, misaligned: float) -> Rates:
    reached = load_fractions().reached
    return Rates(
        flops_per_s=flops_per_s,
        narrow_flops_per_s=narrow_flops_per_s,
        bytes_per_s=reached.bandwidth * device.bandwidth * _GIGA,
        launch_s=reached.launch_us * _MICRO,
        misaligned=misaligned,
    )


def _evidence(device: Device, precision: Precision) -> Evidence:
    if precision in ("fp32", "int8", "int8-weight-only"):
        return "unproven"
    return "validated" if device.validated and precision in ("fp16", "bf16") else "other"


def _peak(device: Device, precision: Precision) -> float:
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; the precisions are {', '.join(PRECISIONS)}")
    since = _SINCE.get(precision, (0, 0))
    if device.capability < since:
        raise ConfigError(
            f"{device.title} has no {precision}: its compute capability is {device.compute_capability}, "
            f"{precision} needs {since[0]}.{since[1]}; {_others(device)}"
        )
    peaks = {"fp32": device.fp32, "int8": device.int8, "fp8": device.fp8}
    peak = peaks.get(precision, device.fp16)
    if peak is None:
        raise ConfigError(
            f"the device table has no {precision} peak with a source for {device.title}; {_others(device)}"
        )
    return peak


def _others(device: Device) -> str:
    known = {
        "fp32": device.fp32,
        "fp16": device.fp16,
        "bf16": device.fp16 if device.capability >= _SINCE["bf16"] else None,
        "fp8": device.fp8,
        "int8": device.int8,
        "int8-weight-only": device.fp16,
    }
    return f"choose one of {', '.join(name for name, figure in known.items() if figure)}"
