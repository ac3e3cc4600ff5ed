"""Text to tokens and back, for a directory of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pargo_export.errors import ConfigError
from pargo_export.optional import require

__all__ = ["SentencePieceTokenizer", "open_tokenizer"]

_FILES = ("tokenizer.json", "tokenizer.model", "*.tiktoken", "vocab.json", "vocab.txt", "spiece.model")


class SentencePieceTokenizer:
    """A `tokenizer.model` of InternLM2 without its remote code: text goes to sentencepiece as it is.

    Tokens beyond the file (`<|im_start|>` and such, which the official template does not use) are not recognised in
    texts; when decoded they are shown by number.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        sentencepiece: Any = require("sentencepiece", extra="llm", purpose=f"read {path.name}")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"{path}: sentencepiece cannot read it: {error}; copy it again") from error
        self.bos_token_id = _or_none(self._pieces.bos_id())
        self.eos_token_id = _or_none(self._pieces.eos_id())
        self.pad_token_id = _or_none(self._pieces.pad_id())

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the tokens of a text; with special tokens, behind that of the begin."""
        begin = [self.bos_token_id] if add_special_tokens and self.bos_token_id is not None else []
        return [*begin, *self._pieces.encode(text)]

    def decode(self, token_ids: Sequence[int], **_: Any) -> str:
        """Return the text of tokens; control tokens are shown by name, as `<s>`."""
        text, known = "", []
        size = self._pieces.get_piece_size()
        for token in map(int, token_ids):
            if token < size and not self._pieces.is_control(token):
                known.append(token)
                continue
            name = self._pieces.id_to_piece(token) if token < size else f"<token {token}>"
            text, known = text + str(self._pieces.decode(known)) + name, []
        return text + str(self._pieces.decode(known))


def open_tokenizer(directory: Path, *, model_type: str, trust_remote_code: bool = False) -> Any:
    """Open the tokenizer in a directory; it has `encode(text, add_special_tokens=...)`, `decode` and ids of special tokens.

    A `tokenizer.json` is taken as it is. Without one, InternLM2's `tokenizer.model` is read by sentencepiece, any other
    by transformers.

    Raises:
        ConfigError: There is none, or it needs code of its own that is not trusted.
    """
    has_json = (directory / "tokenizer.json").is_file()
    from pargo_export.llm.internlm2 import MODEL_TYPE  # needs PyTorch, which an exported model does without

    if not has_json and model_type == MODEL_TYPE and (directory / "tokenizer.model").is_file():
        return SentencePieceTokenizer(directory / "tokenizer.model")
    if not any(path for pattern in _FILES for path in directory.glob(pattern)):
        raise ConfigError(
            f"{directory}: found no tokenizer ({', '.join(_FILES)}); save it beside the model: "
            "tokenizer.save_pretrained(directory)"
        )
    transformers = require("transformers", extra="llm", purpose="run a language model")
    try:
        if has_json:
            return transformers.PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
        return transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # transformers raises many kinds, also for packages that are missing
        raise ConfigError(
            f"{directory}: transformers cannot open the tokenizer: {error}; expected a tokenizer.json, which "
            "AutoTokenizer.from_pretrained(...).save_pretrained(directory) writes where the model was made"
        ) from error


def _or_none(token: int) -> int | None:
    return token if token >= 0 else None
