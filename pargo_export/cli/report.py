"""Where commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import Self

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID
    from rich.status import Status

__all__ = ["Reporter"]


class Reporter:
    """The output of one command; a context manager that takes the progress display down.

    Args:
        as_json: Print results as JSON.
        verbose: Print each step on a line, with the time it took.
        quiet: Show no progress.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False, quiet: bool = False) -> None:
        self._as_json, self._verbose, self._quiet = as_json, verbose, quiet
        self._status: Status | None = None
        self._bar: tuple[Progress, TaskID] | None = None
        self._current = ""
        self._since = 0.0
        self._tenths = 0

    @property
    def as_json(self) -> bool:
        """Whether the result is printed as JSON."""
        return self._as_json

    @cached_property
    def _out(self) -> Console:
        from rich.console import Console

        return Console(highlight=False)

    @cached_property
    def _err(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_step()
        self._stop_status()

    def step(self, text: str) -> None:
        """Show what is being done: a spinner on a terminal, a line with --verbose, else nothing."""
        self._finish_step()
        self._current, self._since, self._tenths = text, time.perf_counter(), 0
        if self._quiet or self._verbose or not self._err.is_terminal:
            return
        if self._status is None:
            self._status = self._err.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def advance(self, done: int, total: int) -> None:
        """Show how far the step is: a bar on a terminal, a line every tenth with --verbose, else nothing."""
        if self._quiet or total <= 0:
            return
        if self._verbose:
            tenths = 10 * done // total
            if tenths > self._tenths:
                self._tenths = tenths
                self.note(f"{time.perf_counter() - self._since:7.2f} s  {self._current}: {done} of {total}")
            return
        if not self._err.is_terminal:
            return
        if self._bar is None:
            self._stop_status()  # rich shows one live display at a time
            self._bar = self._start_bar(total)
        progress, task = self._bar
        progress.update(task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a line on standard error."""
        self._err.print(text, markup=False, soft_wrap=True)

    def error(self, text: str) -> None:
        """Print an error: one red line."""
        self._err.print(f"error: {text}", style="red", markup=False, soft_wrap=True)

    def result(self, values: Any, render: Callable[[], Iterable[RenderableType]]) -> None:
        """Print the result: `values` as JSON, or what `render` yields for people."""
        self.__exit__()
        if self._as_json:
            click.echo(json.dumps(values, indent=2, ensure_ascii=False))
            return
        if self._out.is_terminal:
            self._print(render())
            return
        with self._out.capture() as captured:
            self._print(render())
        for line in captured.get().splitlines():
            click.echo(line.rstrip())  # tables are padded to the full width

    def _print(self, items: Iterable[RenderableType]) -> None:
        for item in items:
            verbatim = getattr(item, "overflow", None) == "ignore"  # layout.verbatim
            self._out.print(item, markup=False, soft_wrap=verbatim)

    def _start_bar(self, total: int) -> tuple[Progress, TaskID]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=self._err, transient=True)
        bar.start()
        return bar, bar.add_task(self._current, total=total)

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _finish_step(self) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None
        if self._current and self._verbose and not self._quiet:
            self.note(f"{time.perf_counter() - self._since:7.2f} s  {self._current}")
        self._current = ""
