"""The other end of `worker.py`: starts a subject in a process of its own, and asks it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from typing_extensions import Self

from pargo_export.bench.records import Subject
from pargo_export.bundle import Limits
from pargo_export.errors import BackendError

__all__ = ["SubjectProcess", "SubjectSpec"]

_LOG_LINES = 12
_LOG_BYTES = 8192
_CLOSE_S = 5.0


@dataclass(frozen=True)
class SubjectSpec:
    """What is to be measured.

    Attributes:
        facts: What is known of it before it is loaded.
        factory: What opens it in its process, as `"module:function"`; returns a `LoadedSubject`.
        arguments: Of that function; what JSON can hold.
        imports: Libraries that it needs, imported before loading is timed.
        limits: How far its output may be from the reference; `None`: the limits of its precision.
        takes_load: Whether requests can be submitted to it.
    """

    facts: Subject
    factory: str
    arguments: dict[str, Any]
    imports: tuple[str, ...] = ()
    limits: Limits | None = None
    takes_load: bool = False


class SubjectProcess:
    """A loaded subject in a process of its own; a context manager that ends the process.

    Args:
        spec: What it is.
        pictures: Files of encoded pictures.
        log: File for what it prints.

    Attributes:
        spec: What it is.
        facts: What it says of itself, with `load_s`.
        max_batch: Images in one run at most.
        has_stages: Whether it tells the times of its stages.
        pid: Of its process.

    Raises:
        BackendError: It cannot be loaded; the message is what it said.
    """

    def __init__(self, spec: SubjectSpec, pictures: Sequence[Path], log: Path) -> None:
        self.spec = spec
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pargo_export.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                encoding="utf-8",
            )
        self.pid = self._process.pid
        self._commands = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)
        try:
            found = self._exchange(
                {
                    "factory": spec.factory,
                    "arguments": spec.arguments,
                    "imports": spec.imports,
                    "pictures": [str(path) for path in pictures],
                }
            )
        except BaseException:
            self.close()
            raise
        facts = Subject.parse(found["facts"], source=f"the process of {spec.facts.name}")
        self.facts = facts.model_copy(
            update={
                "name": spec.facts.name,
                "is_baseline": spec.facts.is_baseline,
                "load_s": float(found["load_s"]),
            }
        )
        self.max_batch: int = found["max_batch"]
        self.has_stages: bool = found["has_stages"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Give a command and wait for the answer.

        Raises:
            BackendError: It failed, or the process ended.
        """
        return self._exchange({"do": do, **values})

    def close(self) -> None:
        """End the process, whatever it does; again does nothing."""
        with contextlib.suppress(BrokenPipeError):  # it ended before it read everything
            self._commands.close()
        try:
            # A library that takes longer to wind up, as compilers with processes of their own do, is not waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_CLOSE_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._answers.close()

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            self._commands.write(json.dumps(message) + "\n")
            self._commands.flush()
        except (BrokenPipeError, ValueError) as error:  # ValueError: closed by us
            raise self._ended() from error
        line = self._answers.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BackendError(f"{self.spec.facts.name}: {answer['error']}")
        return answer

    def _ended(self) -> BackendError:
        """Say how the process ended and what it printed last."""
        self.close()
        status = self._process.returncode
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        hint = "; the system may have run out of memory" if status == -signal.SIGKILL else ""
        printed = self._log.read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
        said = "; it printed last:\n  " + "\n  ".join(printed) if printed else "; it printed nothing"
        return BackendError(f"{self.spec.facts.name}: its process ended with {how}{hint}{said}")
