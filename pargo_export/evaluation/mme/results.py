"""Result files in the official layout: `RESULTS/TASK.txt`, a line a question, image, prompt, ground truth and answer.

Two ways of reading: ours says where a file is wrong; the official one pairs lines as they come, and stops where the
official calculator would.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pargo_export.bundle import atomic_write
from pargo_export.errors import InputError
from pargo_export.evaluation.mme.scores import MmeScores
from pargo_export.evaluation.mme.scoring import Answer, Pair, pair_by_image, read_answer, score_pairs
from pargo_export.evaluation.mme.tasks import OFFICIAL_TASKS, in_order

__all__ = [
    "flatten",
    "format_answers",
    "read_official_pairs",
    "read_pairs",
    "read_results",
    "read_task",
    "score_results",
    "write_answers",
]

_FIELDS = "image, question, ground truth and answer"


def score_results(directory: str | os.PathLike[str], *, strict_official: bool = False) -> MmeScores:
    """Score result files that exist already.

    Args:
        directory: Holds `TASK.txt` for each task.
        strict_official: Read them as the official calculator does: lines are paired as they come, whatever image they
            name; of other tasks than its own nothing is read; files that cannot be read add nothing. Where it
            would stop with a traceback, there is an error.

    Raises:
        InputError: There is no result, a file is malformed, or with `strict_official` the official calculator would stop.
    """
    pairs = read_official_pairs(directory) if strict_official else read_pairs(directory)
    return score_pairs(pairs, strict_official=strict_official)


def read_pairs(directory: str | os.PathLike[str]) -> dict[str, list[Pair]]:
    """Read result files and bring the two answers about each image together.

    Raises:
        InputError: As for `read_results`, or an image has not two answers.
    """
    return {task: pair_by_image(answers, task) for task, answers in read_results(directory).items()}


def read_official_pairs(directory: str | os.PathLike[str]) -> dict[str, list[Pair]]:
    """Read result files as the official calculator does, see `score_results`.

    Raises:
        InputError: There is no result of an official task, or the official calculator would stop.
    """
    root = _directory(directory)
    pairs = {}
    for task in OFFICIAL_TASKS:
        lines = _official_lines(root / f"{task}.txt")
        if lines is not None:
            pairs[task] = _official_pairs(root / f"{task}.txt", lines)
    if not pairs:
        raise InputError(
            f"{root}: found results of no official task, expected files such as {OFFICIAL_TASKS[0]}.txt"
        )
    return pairs


def read_results(directory: str | os.PathLike[str]) -> dict[str, tuple[Answer, ...]]:
    """Read every result file of a directory. A byte order mark, CRLF and blank lines do no harm.

    Returns:
        The answers of each task, in the order of the lines.

    Raises:
        InputError: There is no result file, a line has not four fields, or a ground truth is neither yes nor no.
    """
    root = _directory(directory)
    files = {path.stem: path for path in root.glob("*.txt") if path.is_file()}
    if not files:
        raise InputError(f"{root}: found no result files there, expected TASK.txt for each task")
    return {task: read_task(files[task]) for task in in_order(files)}


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write a result file, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    atomic_write(path, format_answers(answers).encode())


def format_answers(answers: Sequence[Answer]) -> str:
    """Return the lines of a result file; as in the official code, line ends within a field become spaces."""
    return "".join(
        "\t".join((answer.image, flatten(answer.prompt), answer.truth.capitalize(), flatten(answer.text)))
        + "\n"
        for answer in answers
    )


def flatten(text: str) -> str:
    """Write a text as a field of a line: line ends and tabs become spaces."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ").replace("\t", " ")


def _directory(directory: str | os.PathLike[str]) -> Path:
    root = Path(directory)
    if not root.is_dir():
        raise InputError(f"{root}: found no such directory, expected one with TASK.txt for each task")
    return root


def read_task(path: Path) -> tuple[Answer, ...]:
    """Read one result file, as `read_results` does.

    Raises:
        InputError: It cannot be read, holds nothing, or a line is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    answers = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        answers.append(_parse(line.removesuffix("\r"), f"{path}, line {number}"))
    if not answers:
        raise InputError(f"{path}: found no answers, expected lines of {_FIELDS}, separated by tabs")
    return tuple(answers)


def _parse(line: str, where: str) -> Answer:
    fields = line.split("\t")
    if len(fields) != 4:
        raise InputError(
            f"{where}: found {len(fields)} field(s), expected 4, separated by tabs: {_FIELDS}; mend the line: {line[:80]!r}"
        )
    image, prompt, truth, text = fields
    truth = truth.strip().lower()
    if truth not in {"yes", "no"}:
        raise InputError(f"{where}: found the ground truth {fields[2]!r}, expected Yes or No; mend the line")
    return Answer(image.strip(), prompt, truth, text)


def _official_lines(path: Path) -> list[str] | None:
    """Return the lines; `None` for a file that cannot be read, which the official calculator passes over."""
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return None


def _official_pairs(path: Path, lines: list[str]) -> list[Pair]:
    if lines[-1] == "":
        lines = lines[:-1]  # what follows the last line end is no line
    if not lines:
        raise _stops(path, "the file is empty")
    answers = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if len(fields) != 4:
            raise _stops(f"{path}, line {number}", f"{len(fields)} field(s) separated by tabs, not 4")
        truth = fields[2].lower()
        if truth not in {"yes", "no"}:
            raise _stops(f"{path}, line {number}", f"the ground truth {fields[2]!r} is neither yes nor no")
        answers.append(Answer(fields[0], fields[1], truth, fields[3]))
    if len(answers) % 2:
        raise _stops(path, f"{len(answers)} lines, an odd number: it takes two lines for an image")
    if all(read_answer(answer.text) == "other" for answer in answers):
        raise _stops(path, "no answer is yes or no: scikit-learn computes no precision of nothing")
    return list(zip(answers[::2], answers[1::2], strict=True))


def _stops(where: object, reason: str) -> InputError:
    return InputError(
        f"{where}: the official calculator stops here: {reason}; mend the file, or score it without --strict-official"
    )
