"""Greedy and beam search in NumPy, step for step what `generate` of transformers 5 does without sampling.

Source: `GenerationMixin._sample` and `._beam_search` of transformers 5.23, with its defaults (`early_stopping=False`),
and its logits processors for repetitions and for the least number of tokens. Scores are float32, as there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pargo_export.llm.settings import GenerationSettings

__all__ = ["Decoding", "beam_search", "greedy_search"]

Scores = NDArray[np.float32]
Tokens = NDArray[np.int64]
_NEVER = np.float32(-1e9)  # the score of beams that must not be chosen, as in transformers


class Decoding(Protocol):
    """Sequences in progress, one a row."""

    def start(self, copies: int) -> Scores:
        """Read the prompts, continue each in `copies` rows; return the logits `[rows, V]` of what comes next."""
        ...

    def advance(self, tokens: Tokens, rows: NDArray[np.intp]) -> Scores:
        """Let row i continue what was row `rows[i]` by `tokens[i]`; return the logits `[rows, V]` of what comes next."""
        ...


def greedy_search(
    decoding: Decoding, settings: GenerationSettings, end_ids: Collection[int]
) -> Iterator[Tokens]:
    """Yield the next token of each row, `[B]`, until every row has ended; what follows an end means nothing."""
    logits = decoding.start(1)
    count = len(logits)
    history = np.zeros((count, 0), np.int64)
    open_rows = np.ones(count, bool)
    ends = np.array(sorted(end_ids), np.int64)
    while True:
        tokens = np.argmax(_process(logits, history, settings, ends), axis=-1)
        yield tokens
        history = np.concatenate([history, tokens[:, None]], axis=1)
        open_rows &= ~np.isin(tokens, ends)
        if not open_rows.any() or history.shape[1] == settings.max_new_tokens:
            return
        logits = decoding.advance(tokens, np.arange(count))


@dataclass
class _Beams:
    """The K sequences of each prompt that are kept, the best first: `[B, K, T]`, `[B, K]`."""

    sequences: Tokens
    scores: Scores

    def take(self, indices: NDArray[np.intp]) -> _Beams:
        """Return those at `indices` `[B, K']`."""
        return _Beams(
            np.take_along_axis(self.sequences, indices[..., None], axis=1),
            np.take_along_axis(self.scores, indices, axis=1),
        )


def beam_search(decoding: Decoding, settings: GenerationSettings, end_ids: Collection[int]) -> Tokens:
    """Return the best sequence of each prompt, `[B, T]`; what follows an end means nothing.

    Each step scores every continuation of every running beam, keeps enough of the best that `num_beams` running ones
    remain even if all others end, and moves those of the first `num_beams` that end to the finished ones. A prompt is
    done when its best running beam, divided by the length so far, is no better than its worst finished one.
    """
    beams, longest = settings.num_beams, settings.max_new_tokens
    ends = np.array(sorted(end_ids), np.int64)
    logits = decoding.start(beams)
    batch, vocab = len(logits) // beams, logits.shape[1]
    running = _Beams(np.zeros((batch, beams, longest), np.int64), np.zeros((batch, beams), np.float32))
    running.scores[:, 1:] = _NEVER  # all beams of a prompt are the same yet: only the first one counts
    finished = _Beams(running.sequences.copy(), np.full((batch, beams), _NEVER))
    is_finished = np.zeros((batch, beams), bool)
    is_open = np.ones((batch, 1), bool)
    kept = min(max(2, 1 + len(ends)) * beams, beams * vocab)
    for length in range(1, longest + 1):
        history = running.sequences[:, :, : length - 1].reshape(batch * beams, -1)
        following = _process(_log_softmax(logits), history, settings, ends).reshape(batch, beams, vocab)
        scores = (following + running.scores[..., None]).reshape(batch, -1)
        best = _top(scores, kept)
        parents, tokens = best // vocab, best % vocab
        candidates = running.take(parents)
        candidates.sequences[:, :, length - 1] = tokens
        candidates.scores = np.take_along_axis(scores, best, axis=1)
        has_ended = np.isin(tokens, ends) | (length == longest)

        still: Scores = candidates.scores + has_ended.astype(np.float32) * _NEVER
        next_beams = _top(still, beams)
        running = candidates.take(next_beams)
        running.scores = np.take_along_axis(still, next_beams, axis=1)

        is_new = has_ended & (np.arange(kept) < beams)
        candidates.scores = candidates.scores / np.float32(length**settings.length_penalty)
        candidates.scores += (~is_open).astype(np.float32) * _NEVER + (~is_new).astype(np.float32) * _NEVER
        merged = _Beams(
            np.concatenate([finished.sequences, candidates.sequences], axis=1),
            np.concatenate([finished.scores, candidates.scores], axis=1),
        )
        best = _top(merged.scores, beams)
        finished = merged.take(best)
        is_finished = np.take_along_axis(np.concatenate([is_finished, is_new], axis=1), best, axis=1)

        possible = running.scores[:, :1] / np.float32(length**settings.length_penalty)
        worst = np.where(is_finished, finished.scores.min(axis=1, keepdims=True), _NEVER)
        is_open &= (possible > worst).any(axis=1, keepdims=True)
        if not is_open.any() or has_ended.all():
            break
        parents = np.take_along_axis(parents, next_beams, axis=1) + np.arange(batch)[:, None] * beams
        logits = decoding.advance(running.sequences[:, :, length - 1].reshape(-1), parents.reshape(-1))
    best_sequences: Tokens = finished.sequences[:, 0, :length]
    return best_sequences


def _process(scores: Scores, history: Tokens, settings: GenerationSettings, ends: Tokens) -> Scores:
    """Punish repetitions, and forbid an end before the least number of tokens."""
    scores = scores.astype(np.float32)
    if settings.repetition_penalty != 1 and history.size:
        found = np.take_along_axis(scores, history, axis=1)
        penalty = np.float32(settings.repetition_penalty)
        np.put_along_axis(scores, history, np.where(found < 0, found * penalty, found / penalty), axis=1)
    if history.shape[1] < settings.min_new_tokens:
        scores[:, ends[ends < scores.shape[1]]] = -np.inf
    return scores


def _log_softmax(logits: Scores) -> Scores:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Scores = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def _top(scores: Scores, count: int) -> NDArray[np.intp]:
    """Return the indices of the `count` best of each row, the best first, of equal ones the first."""
    if count < scores.shape[1]:
        best = np.sort(np.argpartition(-scores, count - 1, axis=1)[:, :count], axis=1)
    else:
        best = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
