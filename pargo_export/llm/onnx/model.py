"""An exported language model at work: NumPy, ONNX Runtime, safetensors and tokenizers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.errors import BackendError, ConfigError, InputError
from pargo_export.llm.onnx.decoder import Decoder, RunningDecoder
from pargo_export.llm.onnx.embeddings import EmbeddingTable
from pargo_export.llm.onnx.record import ExportedLanguageModel, check_files, read_record
from pargo_export.llm.onnx.search import beam_search, greedy_search
from pargo_export.llm.onnx.tokenizer import open_saved_tokenizer
from pargo_export.llm.settings import GenerationSettings

__all__ = ["OnnxLanguageModel", "open_onnx_language_model"]

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what bytes of a character become that is not complete yet


def open_onnx_language_model(
    directory: str | os.PathLike[str], *, threads: int | None = None
) -> OnnxLanguageModel:
    """Open what `export_language_model` wrote.

    Args:
        directory: The directory.
        threads: CPU threads; by default every core that this process may use.

    Raises:
        ConfigError: It is no exported language model, or of another version.
        IntegrityError: A file is not the one that was exported.
        BackendError: ONNX Runtime cannot load the graph.
        MissingDependencyError: ONNX Runtime or tokenizers is not installed.
    """
    path = Path(directory)
    record = read_record(path)
    check_files(path, record)
    return OnnxLanguageModel(path, record, threads=threads)


class OnnxLanguageModel:
    """A language model that runs on the CPU without PyTorch; see `LanguageModel`.

    Args:
        directory: Where its files lie.
        record: What they are.
        threads: CPU threads.
    """

    def __init__(self, directory: Path, record: ExportedLanguageModel, *, threads: int | None = None) -> None:
        self.name = record.name
        self.hidden_size = record.hidden_size
        self.bos_token_id = record.bos_token_id
        self.directory, self.record = directory, record
        self._ends = frozenset(record.end_token_ids)
        self._text = open_saved_tokenizer(directory / record.tokenizer)
        self._table = EmbeddingTable(directory / record.embeddings)
        if self._table.shape[1] != record.hidden_size:
            raise ConfigError(
                f"{directory / record.embeddings}: found embeddings of width {self._table.shape[1]}, the record says "
                f"{record.hidden_size}; export the language model again"
            )
        caches = [shape for pair in zip(record.keys, record.values, strict=True) for shape in pair]
        self._decoder = Decoder(directory / record.graph, caches, threads=threads)

    def __repr__(self) -> str:
        return f"OnnxLanguageModel({self.name!r}, hidden_size={self.hidden_size}, precision={self.record.precision!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the graph; again does nothing."""
        self._decoder.close()

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, without special tokens."""
        return self._text.encode(text)

    def embed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the input embeddings of tokens, float32 `[L, C]`."""
        return self._table.embed(token_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens up to, without, the first that ends the sequence; special tokens are shown."""
        ids = list(token_ids)
        end = next((place for place, token in enumerate(ids) if token in self._ends), len(ids))
        return self._text.decode(ids[:end])

    def generate(
        self,
        embeddings: NDArray[np.float32],
        attention_mask: NDArray[np.int64],
        settings: GenerationSettings,
    ) -> list[str]:
        """Continue each sequence, see `LanguageModel`.

        Raises:
            InputError: The arrays do not fit the model.
            BackendError: The execution failed, or the model is closed.
        """
        decoding = self._begin(embeddings, attention_mask)
        if settings.num_beams > 1:
            tokens = beam_search(decoding, settings, self._ends)
        else:
            tokens = np.stack(list(greedy_search(decoding, settings, self._ends)), axis=1)
        return [self.decode(row) for row in tokens.tolist()]

    def stream(self, embeddings: NDArray[np.float32], settings: GenerationSettings) -> Iterator[str]:
        """Continue one sequence `[1, L, C]` and yield its text token by token; together they are that of `generate`.

        Raises:
            ConfigError: `settings` ask for several beams.
            InputError: As for `generate`.
            BackendError: The execution failed, or the model is closed.
        """
        if settings.num_beams != 1:
            raise ConfigError(f"found {settings.num_beams} beams, expected greedy search, to stream")
        if len(embeddings) != 1:
            raise InputError(f"found {len(embeddings)} sequences, expected one to stream")
        mask = np.ones(embeddings.shape[:2], np.int64)
        return self._stream(self._begin(embeddings, mask), settings)

    def _stream(self, decoding: RunningDecoder, settings: GenerationSettings) -> Iterator[str]:
        tokens: list[int] = []
        shown = text = ""
        for token in greedy_search(decoding, settings, self._ends):
            tokens.append(int(token[0]))
            text = self.decode(tokens)
            # A decoder may change its mind about the last characters: wait until they are settled.
            if text.startswith(shown) and not text.endswith(_UNFINISHED) and text != shown:
                yield text[len(shown) :]
                shown = text
        if text != shown:
            yield text[len(shown) :]

    def _begin(
        self,
        embeddings: NDArray[np.float32],
        attention_mask: NDArray[np.int64],
    ) -> RunningDecoder:
        if embeddings.ndim != 3 or 0 in embeddings.shape or embeddings.shape[2] != self.hidden_size:
            raise InputError(
                f"embeddings: found the shape {list(embeddings.shape)}, expected [B, L, {self.hidden_size}], none of them 0"
            )
        if attention_mask.shape != embeddings.shape[:2] or not attention_mask[:, -1].all():
            raise InputError(
                f"attention mask: found the shape {list(attention_mask.shape)}, expected {list(embeddings.shape[:2])} with a "
                "1 at the end of each row: pad on the left"
            )
        if self._decoder.is_closed:
            raise BackendError(f"the language model {self.name} is closed; open it again")
        return RunningDecoder(
            self._decoder,
            self.embed,
            embeddings.astype(np.float32, copy=False),
            attention_mask.astype(np.int64, copy=False),
        )
