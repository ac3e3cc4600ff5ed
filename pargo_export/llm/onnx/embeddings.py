"""The table of input embeddings, read row by row: it can be larger than the memory that is free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pargo_export.errors import ConfigError, InputError

__all__ = ["TABLE", "EmbeddingTable"]

TABLE = "weight"


class EmbeddingTable:
    """Embeddings of tokens in a mapped safetensors file.

    Args:
        path: The file; it holds `weight` `[V, C]`, float32 or float16.

    Raises:
        ConfigError: It holds something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            file: Any = safe_open(path, framework="numpy")
            self._rows: Any = file.get_slice(TABLE)
            self.shape: tuple[int, ...] = tuple(self._rows.get_shape())
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{path}: cannot read the table {TABLE!r}: {error}; export the language model again"
            ) from error
        if len(self.shape) != 2:
            raise ConfigError(
                f"{path}: found the shape {list(self.shape)}, expected [V, C]; export the language model again"
            )

    def embed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the embeddings of tokens, float32 `[L, C]`.

        Raises:
            InputError: There is no such token.
        """
        count, width = self.shape
        embedded = np.empty((len(token_ids), width), np.float32)
        for row, token in enumerate(token_ids):
            if not 0 <= token < count:
                raise InputError(f"token {token}: expected one of 0 to {count - 1}")
            embedded[row] = self._rows[token : token + 1][0]
        return embedded
