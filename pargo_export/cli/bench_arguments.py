"""Parsers of the options of `bench`: durations, numbers and loads as people write them."""

from __future__ import annotations

import math
import re
from typing import Literal

import click

__all__ = ["parse_counts", "parse_duration", "parse_load", "parse_milliseconds", "parse_share"]

_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of `10s`, `500ms`, `10m`, `1h`; of a number without a unit too.

    Raises:
        click.BadParameter: It is none of these, or not more than 0.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|min|h)?", value.strip())
    seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else 0.0
    if not 0 < seconds < math.inf:
        raise click.BadParameter(f"found {value!r}, expected a duration such as 10s, 500ms or 10m")
    return seconds


def parse_milliseconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the milliseconds of `50ms` or `0.05s`; a number without a unit would be seconds, and is refused.

    Raises:
        click.BadParameter: It is no duration with a unit.
    """
    if value is None:
        return None
    if not value.strip()[-1:].isalpha():
        raise click.BadParameter(f"found {value!r}, expected a duration with its unit, such as 50ms")
    seconds = parse_duration(ctx, param, value)
    return None if seconds is None else 1000 * seconds


def parse_counts(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return the numbers of `1,2,4`.

    Raises:
        click.BadParameter: One is no number from 1 on, or there is none.
    """
    if value is None:
        return None
    words = [word.strip() for word in value.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise click.BadParameter(f"found {value!r}, expected numbers from 1 on, such as 1,8")
    return tuple(int(word) for word in words)


def parse_load(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[float, ...] | Literal["auto"] | None:
    """Return the rates of `10,20.5`, or `auto`.

    Raises:
        click.BadParameter: It is neither.
    """
    if value is None:
        return None
    if value == "auto":
        return "auto"
    words = [word.strip() for word in value.split(",") if word.strip()]
    if not words or not all(re.fullmatch(r"\d+(\.\d*)?|\.\d+", word) and float(word) > 0 for word in words):
        raise click.BadParameter(f"found {value!r}, expected auto or requests a second, such as 10,20")
    return tuple(float(word) for word in words)


def parse_share(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return 0.05 of `5%`; a number without the sign might mean either, and is refused.

    Raises:
        click.BadParameter: It is no percentage.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", value.strip())
    if match is None:
        raise click.BadParameter(f"found {value!r}, expected a percentage such as 5%")
    return float(match[1]) / 100
