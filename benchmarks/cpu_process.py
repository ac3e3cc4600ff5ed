"""The other end of `cpu_worker.py`: starts one configuration and asks it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, cast

__all__ = ["WorkerError", "WorkerProcess"]


class WorkerError(Exception):
    """The configuration cannot be loaded or failed; the message is what it said."""


class WorkerProcess:
    """A loaded configuration.

    Args:
        name: Of the configuration; its log is named after it.
        spec: What `cpu_worker.py` loads.
        work: Folder of the log.

    Attributes:
        load_s: Seconds that loading took, imports not counted.
        peak_rss_mb: Peak memory of the process so far.

    Raises:
        WorkerError: It cannot be loaded.
    """

    def __init__(self, name: str, spec: dict[str, Any], work: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("cpu_worker.py")), json.dumps(spec)]
        self._log = work / f"{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._commands, self._answers = (
            cast("IO[str]", self._process.stdin),
            cast("IO[str]", self._process.stdout),
        )
        self.peak_rss_mb = 0.0
        try:
            self.load_s: float = self._answer()["load_s"]
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Give a command and wait for the answer.

        Raises:
            WorkerError: It failed.
        """
        try:
            self._commands.write(json.dumps({"do": do, **values}) + "\n")
            self._commands.flush()
        except BrokenPipeError as error:
            raise WorkerError(f"the process ended; see {self._log.name}") from error
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._commands.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise WorkerError(f"the process ended with status {self._process.wait()}; see {self._log.name}")
        answer: dict[str, Any] = json.loads(line)
        self.peak_rss_mb = answer["peak_rss_mb"]
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer
