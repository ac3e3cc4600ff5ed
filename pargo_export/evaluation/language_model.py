"""Say which language model answered, so that answers of another one are not taken for its."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pargo_export.bundle import recipe_sha256, sha256_file
from pargo_export.errors import ConfigError
from pargo_export.evaluation.mme.records import LanguageModelFacts
from pargo_export.llm import Chat

__all__ = ["describe_chat", "language_model_sha256"]


def language_model_sha256(
    directory: str | os.PathLike[str], adapters: str | os.PathLike[str] | None = None
) -> str:
    """Hash the files of a language model, adapters included; hidden files and folders do not count.

    Args:
        directory: Its directory.
        adapters: A file of adapters, or a directory of such files.

    Raises:
        ConfigError: A file cannot be read, or the directory holds none.
    """
    hashes: dict[str, str] = {}
    for label, root in (("model", Path(directory)), ("adapters", Path(adapters) if adapters else None)):
        if root is None:
            continue
        files = {path.relative_to(root).as_posix(): path for path in _files(root)}
        if not files:
            raise ConfigError(f"{root}: found no files there, expected those of a language model")
        for name, path in files.items():
            try:
                hashes[f"{label}/{name}"] = sha256_file(path)
            except OSError as error:  # noqa: PERF203 - nothing beside hashing a file
                raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    return recipe_sha256(hashes)


def describe_chat(
    chat: Chat,
    directory: str | os.PathLike[str],
    adapters: str | os.PathLike[str] | None = None,
    **opened_with: str | float | None,
) -> LanguageModelFacts:
    """Describe the language model of a chat, with its template and settings.

    Args:
        chat: The chat.
        directory: Of the language model.
        adapters: What was put into it.
        **opened_with: Further choices that the answers depend on, such as the dtype.

    Raises:
        ConfigError: A file cannot be read.
    """
    return LanguageModelFacts(
        name=chat.language_model.name,
        sha256=language_model_sha256(directory, adapters),
        template=chat.template,
        settings={**asdict(chat.settings), **opened_with},
    )


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path
