"""Read MME: images and their questions, in the layouts in which they are handed around.

- As ParGo's evaluation reads it: `Data_json/TASK.txt`, a line a question (image, question and answer, separated by tabs),
  and `images/TASK/IMAGE`.
- As MME was released: a folder for each task with `images/NAME.jpg` and `questions_answers_YN/NAME.txt`, or both side by
  side; a line a question (question and answer, separated by a tab).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pargo_export.bundle import recipe_sha256, sha256_file
from pargo_export.errors import ImageError, InputError
from pargo_export.evaluation.mme.tasks import in_order

__all__ = ["MmeData", "MmeImage", "MmeTask", "Question", "find_picture", "read_mme"]

Layout = Literal["pargo", "release"]

_QUESTIONS, _IMAGES, _RELEASE_QUESTIONS = "Data_json", "images", "questions_answers_YN"
_RELEASE = "MME_Benchmark_release_version"
_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".webp", ".bmp")
_MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Question:
    """A question with its answer, `"yes"` or `"no"`."""

    text: str
    truth: str


@dataclass(frozen=True)
class MmeImage:
    """An image and what is asked about it.

    Attributes:
        name: File name, as result files write it.
        path: The file.
        questions: Two.
    """

    name: str
    path: Path
    questions: tuple[Question, Question]


@dataclass(frozen=True)
class MmeTask:
    """A task.

    Attributes:
        name: For example `"existence"`.
        images: In the order of the question file.
    """

    name: str
    images: tuple[MmeImage, ...]

    @cached_property
    def sha256(self) -> str:
        """Hash of questions, answers and the content of the images, in order; reads every image once.

        Raises:
            ImageError: An image cannot be read.
        """
        items = []
        for image in self.images:
            try:
                content = sha256_file(image.path)
            except OSError as error:
                raise ImageError(f"{image.path}: cannot be read: {error.strerror or error}") from error
            items.append([image.name, content, [[item.text, item.truth] for item in image.questions]])
        return recipe_sha256({"task": self.name, "images": items})


@dataclass(frozen=True)
class MmeData:
    """A data set in the form of MME.

    Attributes:
        root: Its folder.
        layout: How it lies there.
        tasks: The tasks, in the official order.
        skipped: Images that are missing, and were left out because that was asked for.
    """

    root: Path
    layout: Layout
    tasks: dict[str, MmeTask]
    skipped: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        """Images of all tasks."""
        return sum(len(task.images) for task in self.tasks.values())

    @property
    def num_questions(self) -> int:
        """Questions of all tasks."""
        return 2 * self.num_images

    @cached_property
    def sha256(self) -> str:
        """Hash over the tasks."""
        return recipe_sha256({name: task.sha256 for name, task in self.tasks.items()})

    def sample(self, count: int) -> list[MmeImage]:
        """Choose up to `count` images, the first ones of every task in turns."""
        longest = max((len(task.images) for task in self.tasks.values()), default=0)
        turns = [
            task.images[index]
            for index in range(longest)
            for task in self.tasks.values()
            if index < len(task.images)
        ]
        return turns[:count]


def read_mme(
    directory: str | os.PathLike[str],
    *,
    tasks: Iterable[str] | None = None,
    limit: int | None = None,
    skip_missing: bool = False,
) -> MmeData:
    """Read a folder of MME, in either layout; images are looked for, not opened.

    Args:
        directory: The folder.
        tasks: The tasks to read; by default all there are, also those that MME does not have.
        limit: Images of each task at most, the first ones.
        skip_missing: Leave images out that are missing, as the official evaluation does, instead of failing.

    Raises:
        InputError: There is no such data, a line is malformed, an image has not two questions, an image or a task is
            missing, or `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit: found {limit}, expected at least 1 image of each task")
    root, layout, found = _find(Path(directory))
    wanted = in_order(found) if tasks is None else in_order(dict.fromkeys(tasks))
    unknown = [task for task in wanted if task not in found]
    if unknown or not wanted:
        raise InputError(
            f"{root}: found no task {', '.join(unknown) or 'at all'}; it has {', '.join(in_order(found)) or 'none'}"
        )
    read: dict[str, MmeTask] = {}
    missing: list[str] = []
    for task in wanted:
        images = list(_read_pargo(root, task) if layout == "pargo" else _read_release(found[task]))
        absent = [image for image in images if not image.path.is_file()]
        missing += [str(image.path) for image in absent]
        kept = [image for image in images if image not in absent] if absent else images
        if kept:
            read[task] = MmeTask(task, tuple(kept[:limit]))
    if missing and not skip_missing:
        raise InputError(
            f"{root}: {len(missing)} image(s) are missing: {_examples(missing)}; put them there, or leave them out "
            "(--skip-missing), as the official evaluation does"
        )
    if not read:
        raise InputError(f"{root}: found no images, expected some in {root / _IMAGES}")
    return MmeData(root, layout, read, tuple(missing))


def find_picture(root: Path, task: str, image: str) -> Path | None:
    """Return the file of an image of a task, wherever either layout has it; `None` if it is not there."""
    places = (root / _IMAGES / task, root / task / _IMAGES, root / task)
    return next((path for place in places if (path := place / image).is_file()), None)


def _find(directory: Path) -> tuple[Path, Layout, dict[str, Path]]:
    """Return the root, its layout, and the question file or the folder of each task."""
    for root in (directory, directory / _RELEASE):
        if (root / _QUESTIONS).is_dir():
            return root, "pargo", {path.stem: path for path in (root / _QUESTIONS).glob("*.txt")}
        if root.is_dir():
            found = {path.name: path for path in root.iterdir() if path.is_dir() and _is_release_task(path)}
            if found:
                return root, "release", found
    raise InputError(
        f"{directory}: found no MME data; expected {_QUESTIONS}/TASK.txt and {_IMAGES}/TASK/IMAGE, or the released "
        f"folders TASK/{_IMAGES} and TASK/{_RELEASE_QUESTIONS}"
    )


def _is_release_task(folder: Path) -> bool:
    if (folder / _RELEASE_QUESTIONS).is_dir():
        return True
    # Side by side: a text for an image of that name. Other folders of the release (eval_tool) have none.
    return any(_beside(folder, path.stem) is not None for path in folder.glob("*.txt"))


def _beside(folder: Path, stem: str) -> Path | None:
    return next((path for suffix in _SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)


def _read_pargo(root: Path, task: str) -> Iterator[MmeImage]:
    path = root / _QUESTIONS / f"{task}.txt"
    found: dict[str, list[Question]] = {}
    for number, fields in _lines(path, 3, "image, question and answer"):
        found.setdefault(fields[0].strip(), []).append(
            _question(fields[1], fields[2], f"{path}, line {number}")
        )
    for name, questions in found.items():
        if Path(name).name != name:
            raise InputError(
                f"{path}: found the image {name!r}, expected the name of a file in {_IMAGES}/{task}"
            )
        yield MmeImage(name, root / _IMAGES / task / name, _two(questions, f"{path}, image {name}"))


def _read_release(folder: Path) -> Iterator[MmeImage]:
    questions, images = folder / _RELEASE_QUESTIONS, folder / _IMAGES
    if not questions.is_dir():
        questions = images = folder
    for path in sorted(questions.glob("*.txt")):
        picture = _beside(images, path.stem) or images / f"{path.stem}{_SUFFIXES[0]}"
        found = [
            _question(fields[0], fields[1], f"{path}, line {number}")
            for number, fields in _lines(path, 2, "question and answer")
        ]
        yield MmeImage(picture.name, picture, _two(found, str(path)))


def _lines(path: Path, count: int, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of every line that is not blank; a byte order mark and CRLF do no harm."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.strip().split("\t")
        if fields == [""]:
            continue
        if len(fields) != count:
            raise InputError(
                f"{path}, line {number}: found {len(fields)} field(s), expected {count}, separated by tabs: {what}; mend the "
                f"line: {line.strip()[:80]!r}"
            )
        yield number, fields


def _question(text: str, truth: str, where: str) -> Question:
    found = truth.strip().lower()
    if found not in {"yes", "no"}:
        raise InputError(f"{where}: found the answer {truth!r}, expected Yes or No; mend the line")
    if not text.strip():
        raise InputError(f"{where}: found no question, expected one before the answer; mend the line")
    return Question(text, found)


def _two(questions: Sequence[Question], where: str) -> tuple[Question, Question]:
    if len(questions) != 2:
        raise InputError(
            f"{where}: found {len(questions)} question(s), expected two; acc+ counts an image if both are answered right"
        )
    return questions[0], questions[1]


def _examples(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MOST_EXAMPLES} more" if len(items) > _MOST_EXAMPLES else ""
    return ", ".join(items[:_MOST_EXAMPLES]) + more
