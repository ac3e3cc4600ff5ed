"""What a language model has to do to answer questions about visual tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.llm.settings import GenerationSettings

__all__ = ["LanguageModel"]


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model that takes embeddings; a context manager.

    Attributes:
        name: For messages and records, such as the name of its directory.
        hidden_size: Width C of its embeddings.
        bos_token_id: Token that begins every sequence; `None` if it has none.
    """

    name: str
    hidden_size: int
    bos_token_id: int | None

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, without any that mark begin or end."""
        ...

    def embed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the input embeddings of tokens, float32 `[L, C]`."""
        ...

    def generate(
        self,
        embeddings: NDArray[np.float32],
        attention_mask: NDArray[np.int64],
        settings: GenerationSettings,
    ) -> list[str]:
        """Continue each sequence; greedy or beam search.

        Args:
            embeddings: float32 `[B, L, C]`, padded on the left.
            attention_mask: int64 `[B, L]`, 1 at real positions.
            settings: How.

        Returns:
            B decoded texts up to, without, the token that ends the sequence; not cleaned.
        """
        ...

    def stream(self, embeddings: NDArray[np.float32], settings: GenerationSettings) -> Iterator[str]:
        """Continue one sequence `[1, L, C]` and yield its text piece by piece; together they are that of `generate`.

        Raises:
            ConfigError: `settings` ask for several beams, of which none is final before the end.
        """
        ...

    def close(self) -> None:
        """Free the model; again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
