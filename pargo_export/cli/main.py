"""The command `pargo-export`: finds the subcommands and imports the one that was asked for."""

from __future__ import annotations

import importlib
import sys
from io import TextIOWrapper
from typing import Any

import click

from pargo_export._version import __version__

__all__ = ["COMMANDS", "cli", "main"]

# In the order in which they are used.
COMMANDS = (
    "sample",
    "onnx",
    "calibrate",
    "quantize",
    "trt",
    "verify",
    "run",
    "encode-dataset",
    "llm",
    "chat",
    "eval",
    "bench",
    "report",
    "handover",
    "inspect",
    "estimate",
    "doctor",
)
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"pargo_export.cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Results go to standard output, progress to standard error; --json after any command gives "
    "machine-readable results. The exit status is 0 if everything passed, 1 if not, 2 for a wrong option.",
)
@click.version_option(__version__, prog_name="pargo-export", message="%(prog)s %(version)s")
def cli() -> None:
    """Export a ParGo visual front-end to ONNX, quantize it, verify it, and run it on edge devices."""


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? instead of failing
    cli(prog_name="pargo-export")
