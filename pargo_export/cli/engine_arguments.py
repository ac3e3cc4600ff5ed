"""Options of `trt`: how they are written, and how they become the options of the library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from pargo_export.cli import arguments

__all__ = [
    "PRECISION_FLAGS",
    "choose_engine_precision",
    "engine_precision_flags",
    "parse_batches",
    "parse_size",
    "parse_target",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Flags by the names of their parameters, with their help.
PRECISION_FLAGS = {
    "int8": "INT8 weights and activations.",
    "int8_weight_only": "INT8 weights, activations in floating point.",
    "fp8": "FP8 (E4M3) weights and activations; not on Orin.",
    "fp16": "FP16 throughout; the default.",
    "bf16": "BF16 throughout.",
    "fp32": "FP32 throughout.",
}
_DEFAULT = "fp16"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def engine_precision_flags(function: _Function) -> _Function:
    """Give a command one flag a precision, for `choose_engine_precision`."""
    for name, text in reversed(PRECISION_FLAGS.items()):  # decorators apply from the last to the first
        function = click.option(_flag(name), name, is_flag=True, help=text)(function)
    return function


def choose_engine_precision(flags: Mapping[str, bool], variant: str | None) -> str:
    """Return the one precision whose flag is set, by default FP16; `flags` has them by the names of the parameters.

    Raises:
        click.UsageError: Several are, or one beside a variant, which has its own.
    """
    chosen = [name for name in PRECISION_FLAGS if flags[name]]
    if len(chosen) > 1:
        raise click.UsageError(f"found {' and '.join(map(_flag, chosen))}; choose one precision")
    if chosen and variant is not None:
        raise click.UsageError(f"found {_flag(chosen[0])} and --variant; a variant has its own precision")
    return (chosen or [_DEFAULT])[0].replace("_", "-")


def parse_target(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Check `auto`, `orin`, `rtx:sm86,sm89`, ...

    Raises:
        click.BadParameter: It is no target.
    """
    names = "|".join(name for name in arguments.TARGETS if name != "cpu")
    if not re.fullmatch(rf"auto|{names}|rtx:(sm_?)?\d+\.?\d(,(sm_?)?\d+\.?\d)*", value):
        raise click.BadParameter(
            f"found {value!r}, expected auto, {names.replace('|', ', ')} or rtx:sm86,sm89"
        )
    return value


def parse_batches(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Return the numbers of `1,4,8`.

    Raises:
        click.BadParameter: They are not positive, or not ascending.
    """
    if value is None:
        return ()
    words = [word.strip() for word in value.split(",")]
    numbers = tuple(int(word) for word in words if word.isdecimal())
    if len(numbers) != len(words) or not all(numbers) or list(numbers) != sorted(set(numbers)):
        raise click.BadParameter(f"found {value!r}, expected ascending batch sizes such as 1,4,8")
    return numbers


def parse_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return the bytes of `512M`, `2G`, `1.5GiB` or a plain number.

    Raises:
        click.BadParameter: It is no size.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", value.strip(), re.IGNORECASE)
    num_bytes = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if not num_bytes:
        raise click.BadParameter(f"found {value!r}, expected a size such as 512M or 2G")
    return num_bytes


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
