"""Options of commands that read a checkpoint: where its vision tower is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pargo_export.cli.arguments import FILE

if TYPE_CHECKING:
    from pargo_export.checkpoint.vision_model import VisionLayer

__all__ = ["check_vision", "vision_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _parse_layer(_: click.Context, __: click.Parameter, value: str | None) -> VisionLayer | None:
    if value is None or value == "last":
        return "last" if value else None
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"found {value!r}, expected -1, -2, ... or last") from error


_OPTIONS = (
    click.option("--vision-checkpoint", type=FILE, help="EVA-CLIP checkpoint, if CHECKPOINT has no tower."),
    click.option(
        "--vision-model",
        type=FILE,
        metavar="DIR",
        help="Directory of transformers with a CLIP or SigLIP vision model: the tower.",
    ),
    click.option(
        "--vision-layer",
        metavar="N|last",
        callback=_parse_layer,
        help="Where its features are taken: -1 the last block, -2 the one before; last: its last_hidden_state. By default "
        "-2 for CLIP, last for SigLIP.",
    ),
)


def vision_options(function: _Function) -> _Function:
    """Give a command the options that name a tower; `check_vision` sees that they fit together."""
    for option in reversed(_OPTIONS):  # decorators apply from the last to the first
        function = option(function)
    return function


def check_vision(
    vision_checkpoint: Path | None, vision_model: Path | None, vision_layer: VisionLayer | None
) -> None:
    """Refuse two towers, and a layer of none.

    Raises:
        click.UsageError: They do not fit together.
    """
    if vision_model is not None and vision_checkpoint is not None:
        raise click.UsageError("--vision-model and --vision-checkpoint are two towers; give one of them")
    if vision_layer is not None and vision_model is None:
        raise click.UsageError("--vision-layer needs --vision-model")
