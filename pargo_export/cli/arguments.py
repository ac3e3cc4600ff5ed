"""Choices and parsers of options. Choices are written out, so that `--help` imports nothing heavy."""

from __future__ import annotations

import re
from math import isqrt
from pathlib import Path

import click

__all__ = [
    "ATTENTIONS",
    "COMPONENTS",
    "FILE",
    "INPUTS",
    "MODES",
    "PRECISIONS",
    "TARGETS",
    "parse_names",
    "parse_tiles",
]

ATTENTIONS = ("auto", "fused", "structured", "dense", "attention_op")
COMPONENTS = ("all", "encoder", "projector")
INPUTS = ("float", "uint8")
MODES = ("pad", "resize", "square-resize", "official-eval")
PRECISIONS = ("fp32", "fp16", "bf16")
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
