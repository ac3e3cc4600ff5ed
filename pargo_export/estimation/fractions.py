"""Fitted constants: what share of its peaks a device reaches, and how far estimates were off."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pargo_export.estimation.devices import read_table

__all__ = ["Fractions", "Reached", "Slow", "Spread", "load_fractions"]

Share = Annotated[float, Field(gt=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reached(_Table):
    """Shares of the peaks, the same for all devices.

    Attributes:
        compute: Of the peak in 16 or 32 bits, in matrix products and attention.
        compute_8bit: Of the 8-bit peak, in matrix products.
        bandwidth: Of the memory bandwidth.
        launch_us: Time that a kernel takes beside its work: start, ramp and tail.
    """

    compute: Share
    compute_8bit: Share
    bandwidth: Share
    launch_us: Annotated[float, Field(ge=0)]


class Slow(_Table):
    """What makes the slow end slower.

    Attributes:
        misaligned: Factor on products whose channels are no multiple of 8.
        unproven_8bit: Time of INT8 as a multiple of FP16's, should it not pay.
    """

    misaligned: Annotated[float, Field(ge=1)]
    unproven_8bit: Annotated[float, Field(ge=1)]


class Spread(_Table):
    """Factors on the fast and on the slow end."""

    low: Share
    high: Annotated[float, Field(ge=1)]


class Fractions(_Table):
    """All of them.

    Attributes:
        reached: Shares of the peaks.
        slow: The slow end.
        spread: By what is known: `validated`, `other` or `unproven`.
    """

    reached: Reached
    slow: Slow
    spread: dict[str, Spread]


@cache
def load_fractions() -> Fractions:
    """Return the constants of this package."""
    return Fractions.model_validate(read_table("fractions.toml"))
