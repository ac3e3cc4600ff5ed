"""Choices and parsers of options. Choices are written out, so that `--help` imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "ATTENTIONS",
    "COMPONENTS",
    "FILE",
    "FLOAT_PRECISIONS",
    "INPUTS",
    "LIMITS",
    "MODES",
    "PRECISIONS",
    "PRECISION_FLAGS",
    "TARGETS",
    "choose_precision",
    "parse_limits",
    "parse_names",
    "parse_shard",
    "parse_tiles",
    "precision_flags",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

ATTENTIONS = ("auto", "fused", "structured", "dense", "attention_op")
COMPONENTS = ("all", "encoder", "projector")
INPUTS = ("float", "uint8")
MODES = ("pad", "resize", "resize-bilinear", "square-resize", "center-crop", "official-eval")
PRECISIONS = ("fp32", "fp16", "bf16")
FLOAT_PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}  # what quantize calls them
# Flags of quantize, by the names of their parameters, with their help.
PRECISION_FLAGS = {
    "int8": "INT8 weights and activations.",
    "int8_weight_only": "INT8 weights, activations in floating point.",
    "fp8": "FP8 (E4M3) weights and activations.",
    "fp16": "FP16 throughout; quantizes nothing.",
    "bf16": "BF16 throughout; quantizes nothing.",
}
# Word of --limit, the same as of --budget -> field of the limits.
LIMITS = {
    "cosine": "mean_cosine",
    "worst_cosine": "cosine",
    "sqnr": "sqnr_db",
    "max_abs": "max_abs",
}
TARGETS = ("cpu", "cuda", "orin", "thor", "rtx")
FILE = click.Path(path_type=Path)  # whether it exists is for the library to say, which knows the mend


def parse_names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Split `a,b,c`; an empty text is an empty list."""
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


def parse_tiles(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return rows and columns of `2x3`, or of `4`: a square number is a square grid, any other one row.

    Raises:
        click.BadParameter: It is neither.
    """
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", value)
    if match is None:
        raise click.BadParameter(f"found {value!r}, expected rows x columns (2x3) or a number of tiles")
    first = int(match[1])
    if match[2]:
        return first, int(match[2])
    side = isqrt(first)
    return (side, side) if side * side == first else (1, first)


def parse_shard(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    """Return index and number of parts of `0/4`.

    Raises:
        click.BadParameter: It is no part of so many.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if match is None or int(match[1]) >= int(match[2]):
        raise click.BadParameter(f"found {value!r}, expected a part and the number of parts, from 0/4 to 3/4")
    return int(match[1]), int(match[2])


def parse_limits(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, float] | None:
    """Return the limits of `cosine=0.99`, `sqnr=15`, ... by their fields; `None` if there are none.

    Raises:
        click.BadParameter: One is unknown, is given twice or has no number.
    """
    limits: dict[str, float] = {}
    for value in values:
        name, _, text = value.partition("=")
        if name not in LIMITS or not re.fullmatch(r"-?\d+(\.\d*)?|\.\d+", text):
            raise click.BadParameter(f"found {value!r}, expected {'=X, '.join(LIMITS)}=X with a number X")
        if LIMITS[name] in limits:
            raise click.BadParameter(f"{name} is given twice")
        limits[LIMITS[name]] = float(text)
    return limits or None


def choose_precision(flags: Mapping[str, bool]) -> str:
    """Return the one precision whose flag is set; `flags` has them by the names of the parameters.

    Raises:
        click.UsageError: None or several are.
    """
    chosen = [name for name in PRECISION_FLAGS if flags[name]]
    if len(chosen) != 1:
        found = f"found {' and '.join(map(_flag, chosen))}" if chosen else "no precision is given"
        raise click.UsageError(f"{found}; choose one of {', '.join(map(_flag, PRECISION_FLAGS))}")
    return chosen[0]


def precision_flags(function: _Function) -> _Function:
    """Give a command one flag a precision, for `choose_precision`."""
    # Decorators apply from the last to the first.
    for name, text in reversed(PRECISION_FLAGS.items()):
        function = click.option(_flag(name), name, is_flag=True, help=text)(function)
    return function


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
