"""The exported graph in ONNX Runtime: sequences in progress with their keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.device.cores import count_usable_cores
from pargo_export.errors import BackendError
from pargo_export.llm.onnx.names import ATTENTION_MASK, INPUTS_EMBEDS, LOGITS, past_names, present_names
from pargo_export.llm.onnx.record import CacheShape
from pargo_export.optional import require
from pargo_export.runtime.backends.messages import last_line

__all__ = ["Decoder", "RunningDecoder"]

Array = NDArray[np.float32]
_ERRORS_ONLY = 3


class Decoder:
    """The graph in a session.

    Args:
        graph: The `.onnx` file; its weights lie beside it.
        caches: Keys and values in turns, layer by layer.
        threads: CPU threads; by default every core that this process may use.

    Raises:
        BackendError: ONNX Runtime cannot load it.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: Path, caches: Sequence[CacheShape], *, threads: int | None = None) -> None:
        onnxruntime = require("onnxruntime", extra="llm-onnx", purpose="run an exported language model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or count_usable_cores()
        options.inter_op_num_threads = 1  # a decoder is a chain: nothing runs side by side
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # between steps Python works
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes share no base
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {graph.name}: {last_line(error)}; expected a "
                "version that knows operator set 23, such as 1.32"
            ) from error
        layers = len(caches) // 2
        self._caches = tuple(caches)
        self._past_names, self._outputs = past_names(layers), [LOGITS, *present_names(layers)]

    def empty_caches(self, batch: int) -> list[Array]:
        """Return the keys and values of no positions, `[B, heads, 0, width]` each."""
        return [np.zeros((batch, cache.heads, 0, cache.width), np.float32) for cache in self._caches]

    def run(
        self, embeddings: Array, attention_mask: NDArray[np.int64], caches: Sequence[Array]
    ) -> tuple[Array, list[Array]]:
        """Read further positions.

        Args:
            embeddings: float32 `[B, L, C]`.
            attention_mask: int64 `[B, P + L]`, of the P positions in the caches too.
            caches: Keys and values in turns, `[B, heads, P, width]`.

        Returns:
            Logits of the last position, float32 `[B, V]`, and the caches with L more positions.

        Raises:
            BackendError: The execution failed, or the decoder is closed.
        """
        if self.is_closed:
            raise BackendError("the language model is closed; open it again")
        feed = {
            INPUTS_EMBEDS: embeddings,
            ATTENTION_MASK: attention_mask,
            **dict(zip(self._past_names, caches, strict=True)),
        }
        try:
            logits, *present = self._session.run(self._outputs, feed)
        except Exception as error:  # its classes share no base
            raise BackendError(
                f"ONNX Runtime failed on embeddings {list(embeddings.shape)} after {caches[0].shape[2]} positions: "
                f"{last_line(error)}; if memory ran out, ask fewer questions at once, or with fewer beams"
            ) from error
        return logits, present

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._session is None

    def close(self) -> None:
        """Free the session; again does nothing."""
        self._session = None


class RunningDecoder:
    """Sequences in progress; a `search.Decoding`.

    Args:
        decoder: Computes.
        embed: Returns the embeddings `[L, C]` of tokens.
        embeddings: The prompts, float32 `[B, L, C]`, padded on the left.
        attention_mask: int64 `[B, L]`, 1 at real positions.
    """

    def __init__(
        self,
        decoder: Decoder,
        embed: Callable[[Sequence[int]], Array],
        embeddings: Array,
        attention_mask: NDArray[np.int64],
    ) -> None:
        self._decoder, self._embed = decoder, embed
        self._embeddings, self._mask = embeddings, attention_mask
        self._caches: list[Array] = []

    def start(self, copies: int) -> Array:
        """Read the prompts once, and keep each in `copies` rows; return the logits `[B * copies, V]`."""
        empty = self._decoder.empty_caches(len(self._embeddings))
        logits, caches = self._decoder.run(self._embeddings, self._mask, empty)
        if copies == 1:
            self._caches = caches
            return logits
        self._caches = [np.repeat(cache, copies, axis=0) for cache in caches]
        self._mask = np.repeat(self._mask, copies, axis=0)
        return np.repeat(logits, copies, axis=0)

    def advance(self, tokens: NDArray[np.int64], rows: NDArray[np.intp]) -> Array:
        """Continue what was row `rows[i]` by `tokens[i]`; return the logits `[rows, V]`."""
        if not np.array_equal(rows, np.arange(len(rows))):  # in greedy search rows stay where they are
            self._caches = [cache[rows] for cache in self._caches]
            self._mask = self._mask[rows]
        ones = np.ones((len(tokens), 1), np.int64)
        self._mask = np.concatenate([self._mask, ones], axis=1)
        embedded = self._embed(tokens.tolist())[:, None]
        logits, self._caches = self._decoder.run(embedded, self._mask, self._caches)
        return logits
