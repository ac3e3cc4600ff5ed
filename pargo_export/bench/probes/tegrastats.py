"""Power of a Jetson from `tegrastats`, where sysfs is hidden, as in some containers."""

from __future__ import annotations

import re
import select
import shutil
import subprocess
from collections.abc import Sequence
from typing import IO, cast

from pargo_export.bench.probes.ina3221 import INPUT_RAILS, choose_input
from pargo_export.bench.probes.sensor import PowerSensor, SensorError

__all__ = ["TegrastatsSensor", "open_tegrastats", "parse_rails"]

# "VDD_IN 6357mW/6449mW" since JetPack 5, "VDD_IN 3902/3611" before: now, and the mean since the start. Memory looks
# alike, but has another unit: "SWAP 0/3881MB".
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")
_INTERVAL_MS = 100
_FIRST_LINE_S = 5.0
_END_S = 2.0


def parse_rails(line: str) -> dict[str, float]:
    """Return the power of each rail in a line of tegrastats, watts."""
    return {name: int(power) / 1000 for name, power in _RAIL.findall(line)}


class TegrastatsSensor(PowerSensor):
    """The input rail in the output of tegrastats; `read` waits for its next line.

    Args:
        command: How it is started.

    Raises:
        SensorError: It cannot be started, or its first line shows no rail that is known to be the input.
    """

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                list(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError as error:
            raise SensorError(f"tegrastats cannot be started: {error}") from error
        self._lines = cast("IO[str]", self._process.stdout)
        try:
            self._rail = choose_input(list(parse_rails(self._first_line())), "tegrastats")
        except SensorError:
            self.close()
            raise
        self.name = f"tegrastats {self._rail} ({INPUT_RAILS[self._rail]})"

    def read(self) -> float:
        """Wait for the next line and return the power that it shows, watts."""
        rails = parse_rails(self._next_line())
        if self._rail not in rails:
            raise SensorError(f"tegrastats no longer shows the rail {self._rail}")
        return rails[self._rail]

    def close(self) -> None:
        """End the process; again does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._lines.close()

    def _first_line(self) -> str:
        if not select.select([self._lines], [], [], _FIRST_LINE_S)[0]:
            raise SensorError(f"tegrastats said nothing for {_FIRST_LINE_S:g} s")
        return self._next_line()

    def _next_line(self) -> str:
        try:
            line = self._lines.readline()
        except ValueError as error:  # closed by another thread
            raise SensorError("tegrastats was ended") from error
        if not line:
            raise SensorError(f"tegrastats ended with status {self._process.wait()}")
        return line


def open_tegrastats(
    command: Sequence[str] = ("tegrastats", "--interval", str(_INTERVAL_MS)),
) -> TegrastatsSensor:
    """Start tegrastats, if it is installed.

    Raises:
        SensorError: It is not, or shows no rail that is known to be the input.
    """
    if shutil.which(command[0]) is None:
        raise SensorError(f"{command[0]} is not installed")
    return TegrastatsSensor(command)
