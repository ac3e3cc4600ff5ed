"""Result files of one run and the record beside them, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pargo_export.bundle import atomic_write, sha256_file
from pargo_export.config import Record
from pargo_export.errors import ConfigError
from pargo_export.evaluation.mme.results import read_task, write_answers
from pargo_export.evaluation.mme.scoring import Answer

__all__ = ["RECORD_NAME", "ResultStore", "TaskRecord"]

RECORD_NAME = "run.json"
_MEND = "answer everything again (--force), or write to another folder (--results)"


class TaskRecord(Record):
    """A task that is finished.

    Attributes:
        data_sha256: Hash of its questions and images.
        results_sha256: Hash of its result file.
        num_images: Images.
        encode_ms: Median time of an image to visual tokens, milliseconds; reading and decoding included.
        seconds: Time for everything.
    """

    data_sha256: str
    results_sha256: str
    num_images: int
    encode_ms: float
    seconds: float


class _Run(Record):
    """The record of a run: what it was made with, and which tasks are finished."""

    kind: Literal["pargo-export mme run"] = "pargo-export mme run"
    schema_version: str = "1.0"
    identity: dict[str, str]
    tasks: dict[str, TaskRecord] = Field(default_factory=dict)


class ResultStore:
    """A folder of result files, `TASK.txt` in the official layout, with `run.json` beside them.

    Args:
        directory: The folder; it is made if it does not exist.
        identity: What the answers depend on, by names for people: hashes of tokens' source and language model, template,
            settings. A run goes on only if all of it is the same.
        resume: Go on with what is there.
        force: Replace what is there, task by task.

    Raises:
        ConfigError: There are results and neither `resume` nor `force` is set, or they belong to another run.
    """

    def __init__(
        self, directory: Path, identity: dict[str, str], *, resume: bool = False, force: bool = False
    ) -> None:
        if resume and force:
            raise ConfigError(
                "found both resume and force; go on with what is there (--resume), or replace it (--force)"
            )
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{directory}: cannot be made: {error.strerror or error}; choose another folder (--results)"
            ) from error
        self._run = _Run(identity=identity)
        has_results = any(directory.glob("*.txt")) or self._record.exists()
        if has_results and force:
            self._clear()
        elif has_results:
            if not resume:
                raise ConfigError(
                    f"{directory} holds results already; go on with them (--resume), or {_MEND}"
                )
            self._run = self._resume(identity)

    @property
    def _record(self) -> Path:
        return self.directory / RECORD_NAME

    def finished(self, task: str, data_sha256: str) -> TaskRecord | None:
        """Return the record of a task that is finished; `None` if it has to be answered.

        Raises:
            ConfigError: It was answered on other questions or images, or its file was changed since.
        """
        found = self._run.tasks.get(task)
        if found is None:
            return None
        path = self.path(task)
        if found.data_sha256 != data_sha256:
            raise ConfigError(
                f"{path}: questions or images of {task} are not those that were answered (data sha256 {data_sha256[:12]}, "
                f"answered {found.data_sha256[:12]}); {_MEND}"
            )
        if not path.is_file():
            return None
        if sha256_file(path) != found.results_sha256:
            raise ConfigError(f"{path}: was changed since it was written; {_MEND}")
        return found

    def path(self, task: str) -> Path:
        """Return the result file of a task."""
        return self.directory / f"{task}.txt"

    def write(
        self, task: str, answers: tuple[Answer, ...], *, data_sha256: str, encode_ms: float, seconds: float
    ) -> TaskRecord:
        """Write the answers of a task, then that it is finished; a crash in between only costs the task.

        Raises:
            ConfigError: A file cannot be written.
        """
        try:
            write_answers(self.path(task), answers)
            record = TaskRecord(
                data_sha256=data_sha256,
                results_sha256=sha256_file(self.path(task)),
                num_images=len(answers) // 2,
                encode_ms=encode_ms,
                seconds=seconds,
            )
            self._run = self._run.model_copy(update={"tasks": {**self._run.tasks, task: record}})
            atomic_write(self._record, (self._run.model_dump_json(indent=1) + "\n").encode())
        except OSError as error:
            raise ConfigError(
                f"{self.directory}: cannot be written: {error.strerror or error}; choose another folder (--results)"
            ) from error
        return record

    def read(self, task: str) -> tuple[Answer, ...]:
        """Read the answers of a finished task from its file.

        Raises:
            InputError: The file is malformed.
        """
        return read_task(self.path(task))

    def _clear(self) -> None:
        """Remove what an earlier run of ours left, so that no answers of two runs lie side by side."""
        with contextlib.suppress(ConfigError):  # of unknown origin: replaced task by task
            for task in self._read_record().tasks:
                self.path(task).unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def _resume(self, identity: dict[str, str]) -> _Run:
        found = self._read_record()
        differing = [
            f"{name} (found {_short(found.identity.get(name))}, expected {_short(identity.get(name))})"
            for name in dict.fromkeys([*identity, *found.identity])
            if found.identity.get(name) != identity.get(name)
        ]
        if differing:
            raise ConfigError(
                f"{self.directory} holds answers of another run; these differ: {', '.join(differing)}; {_MEND}"
            )
        return found

    def _read_record(self) -> _Run:
        try:
            values: Any = json.loads(self._record.read_bytes())
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self.directory}: found result files, but no {RECORD_NAME} that says what they were made with; {_MEND}"
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._record}: cannot be read: {error}; {_MEND}") from error
        return _Run.parse(values, source=str(self._record))


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return repr(value if len(value) <= 24 else f"{value[:12]}...")
