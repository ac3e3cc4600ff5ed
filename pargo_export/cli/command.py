"""What all commands share: their options, how errors look, and the exit status."""

from __future__ import annotations

import logging
import shlex
from typing import Any

import click

from pargo_export.cli.report import Reporter
from pargo_export.errors import PargoExportError

__all__ = ["PargoCommand", "command_line", "pass_reporter"]

pass_reporter = click.make_pass_decorator(Reporter)
_WORDS = "pargo_export.words"


def command_line() -> str:
    """Return how the running command was called, as a shell takes it."""
    context = click.get_current_context()
    return shlex.join(["pargo-export", *context.command_path.split()[1:], *context.meta[_WORDS]])


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON, and nothing else."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Show each step, with the time it took."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Show no progress and no warnings."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    ]


class PargoCommand(click.Command):
    """A command that maps errors to one red line and the exit status 1.

    The callback returns `False` if what it did succeeded but a check did not pass.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not left to the group: click keeps the help option that the first context of a command asked for.
        kwargs.setdefault("context_settings", {}).setdefault("help_option_names", ["-h", "--help"])
        super().__init__(*args, **kwargs)
        self.params += _shared_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep the words for `command_line`."""
        ctx.meta[_WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command and leave with its exit status."""
        as_json, verbose, quiet, debug = (
            bool(ctx.params.pop(name)) for name in ("as_json", "verbose", "quiet", "debug")
        )
        reporter = ctx.obj = Reporter(as_json=as_json, verbose=verbose, quiet=quiet)
        try:
            with reporter, _logging(reporter, verbose=verbose, quiet=quiet):
                passed = super().invoke(ctx)
        except PargoExportError as error:
            if debug:
                raise
            reporter.error(str(error))
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if debug:
                raise
            reporter.error(
                f"unexpected {type(error).__name__}: {error}; this should not happen: run again with --debug and "
                "report what it shows"
            )
            ctx.exit(1)
        ctx.exit(int(passed is False))


class _logging:  # noqa: N801 - used as `with _logging(...)`
    """Show what the package logs on standard error, while a command runs."""

    def __init__(self, reporter: Reporter, *, verbose: bool, quiet: bool) -> None:
        self._logger = logging.getLogger("pargo_export")
        self._handler = _ReporterHandler(reporter)
        self._level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING

    def __enter__(self) -> None:
        self._before = (self._logger.level, self._logger.propagate)
        self._logger.setLevel(self._level)
        self._logger.propagate = False
        self._logger.addHandler(self._handler)

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        level, self._logger.propagate = self._before
        self._logger.setLevel(level)


class _ReporterHandler(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.note(f"{record.levelname.lower()}: {record.getMessage()}")
