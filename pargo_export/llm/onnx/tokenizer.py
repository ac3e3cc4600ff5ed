"""Text to tokens and back without transformers, the same as with it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pargo_export.bundle import atomic_write
from pargo_export.errors import ConfigError, ExportError
from pargo_export.llm.prompts import TEMPLATES
from pargo_export.optional import require

__all__ = ["TextCodec", "open_saved_tokenizer", "save_tokenizer"]

_FAST, _SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
_TEXTS = (*TEMPLATES.values(), "Yes", " It's a dog, isn't it ? No .\n 3 + 4 = 7", "naïve café 数字")


class TextCodec(Protocol):
    """Text to tokens and back; special tokens are neither added nor hidden."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        ...


class _FastTokenizer:
    """A `tokenizer.json`, read by the library tokenizers."""

    def __init__(self, path: Path) -> None:
        tokenizers: Any = require("tokenizers", extra="llm-onnx", purpose="read tokenizer.json")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise ConfigError(
                f"{path}: tokenizers cannot read it: {error}; export the language model again"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))


def open_saved_tokenizer(path: Path) -> TextCodec:
    """Open what `save_tokenizer` wrote.

    Raises:
        ConfigError: It cannot be read.
        MissingDependencyError: tokenizers, or sentencepiece for `tokenizer.model`, is not installed.
    """
    if path.name == _SENTENCEPIECE:
        from pargo_export.llm.tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(path)
    return _FastTokenizer(path)


def save_tokenizer(tokenizer: Any, directory: Path) -> str:
    """Write the tokenizer of an opened language model, and see that it reads and writes the same without transformers.

    Returns:
        The name of the file.

    Raises:
        ExportError: It can do what it does only in transformers.
    """
    from pargo_export.llm.tokenizer import SentencePieceTokenizer

    if isinstance(tokenizer, SentencePieceTokenizer):
        shutil.copyfile(tokenizer.path, directory / _SENTENCEPIECE)
        return _SENTENCEPIECE
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise ExportError(
            f"{type(tokenizer).__name__} runs in transformers alone, expected one with a {_FAST}; save the fast tokenizer "
            "beside the model (AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(DIR))"
        )
    path = directory / _FAST
    atomic_write(path, fast.to_str().encode())
    saved = _FastTokenizer(path)
    for text in _TEXTS:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        found = saved.encode(text)
        if found != tokens:
            raise ExportError(
                f"{_FAST} reads {text!r} as {found}, transformers as {tokens}: {type(tokenizer).__name__} adds code of its "
                "own; run the language model with transformers"
            )
        expected = tokenizer.decode(tokens, skip_special_tokens=False)
        if saved.decode(tokens) != expected:
            raise ExportError(
                f"{_FAST} writes {saved.decode(tokens)!r}, transformers {expected!r}: {type(tokenizer).__name__} cleans up; "
                "set clean_up_tokenization_spaces to false in tokenizer_config.json if the model was trained without"
            )
    return _FAST
