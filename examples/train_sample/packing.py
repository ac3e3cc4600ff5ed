"""Several texts about one image in one sequence: prefix and visual tokens are computed once for all of them.

    [<s> prefix | visual tokens | text 1 | text 2 | ...]

A text sees the prefix, the visual tokens and itself, and its positions continue after the visual tokens, so each is
computed exactly as if it stood alone, which is how the official code splices a prompt (pinned by a test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["IGNORED", "Packed", "PackedModel", "Text", "pack"]

IGNORED = -100  # a position without a target


# Tokens of a prompt, tokens of its answer, and the weight of the prompt's own tokens in the loss, where an answer's have 1;
# at 0 they are no targets.
Text: TypeAlias = tuple[Sequence[int], Sequence[int], float]


@dataclass(frozen=True)
class Packed:
    """Texts of a batch, L tokens for each image.

    Attributes:
        tokens: int64 `[B, L]`, each text padded at its end.
        targets: int64 `[B, L]`: the token that follows each position, or `IGNORED`.
        weights: float32 `[B, L]`: of each target in the loss.
        lengths: Tokens of each text with its padding; their sum is L.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    lengths: tuple[int, ...]


def pack(texts: Sequence[Sequence[Text]], most: int | None, padding: int) -> Packed:
    """Lay out texts, in each place as many tokens as its longest text has; what is longer than `most` is cut.

    Args:
        texts: `[B][K]`.
        most: Tokens of a text's place at most; `None`: as many as it has.
        padding: Token behind the end of a text.
    """
    # The last token of a text is a target alone.
    lengths = [
        max(len(prompt) + len(answer) - 1 for prompt, answer, _ in column)
        for column in zip(*texts, strict=True)
    ]
    lengths = lengths if most is None else [min(length, most) for length in lengths]
    tokens = torch.full((len(texts), sum(lengths)), padding)
    targets = torch.full_like(tokens, IGNORED)
    weights = torch.ones(tokens.shape)
    for row, row_texts in enumerate(texts):
        start = 0
        for (prompt, answer, prompt_weight), length in zip(row_texts, lengths, strict=True):
            whole = torch.tensor([*prompt, *answer])[: length + 1]
            inputs = whole[:length]
            tokens[row, start : start + len(inputs)] = inputs
            answer_start = len(prompt) - 1  # the position that predicts the first token of the answer
            first = 0 if prompt_weight else answer_start
            targets[row, start + first : start + len(whole) - 1] = whole[first + 1 :]
            weights[row, start : start + answer_start] = prompt_weight
            start += length
    return Packed(tokens, targets, weights, tuple(lengths))


class PackedModel(nn.Module):
    """Projector and language model, trained together on packed texts.

    Args:
        projector: Of `pargo_export.model.projector`.
        language_model: A causal language model of transformers.
        prefix: Tokens before the image, `<s>` first.
    """

    prefix: Tensor

    def __init__(self, projector: nn.Module, language_model: Any, prefix: Sequence[int]) -> None:
        super().__init__()
        self.projector = projector
        self.language_model = language_model
        self.register_buffer("prefix", torch.tensor(list(prefix)), persistent=False)

    def forward(self, image_features: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
        """Image features `[B, N, C]` and texts -> visual tokens, and the weighted mean cross-entropy of the targets."""
        visual = self.projector(image_features)[1]
        return visual, _loss(*_predict(self.language_model, self.prefix, visual, packed), packed)

    def logits(self, image_features: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
        """Return logits `[T, vocabulary]` and targets `[T]`, text by text."""
        return _predict(self.language_model, self.prefix, self.projector(image_features)[1], packed)


def _predict(language_model: Any, prefix: Tensor, context: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Return logits `[T, vocabulary]` and targets `[T]` of all T targets.

    Args:
        language_model: A causal language model of transformers.
        prefix: Tokens before the context.
        context: Embeddings `[B, Q, C]` that every text of its row sees.
        packed: The texts.
    """
    embedding = language_model.get_input_embeddings()
    batch = len(packed.tokens)
    before = embedding(prefix).expand(batch, -1, -1)
    sequence = torch.cat([before, context.to(before.dtype), embedding(packed.tokens)], dim=1)
    shared = before.shape[1] + context.shape[1]
    mask, positions = _layout(shared, packed.lengths)
    hidden = language_model.model(
        inputs_embeds=sequence,
        attention_mask=mask.expand(batch, -1, -1, -1),
        position_ids=positions.expand(batch, -1),
        use_cache=False,
    ).last_hidden_state[:, shared:]
    chosen = packed.targets != IGNORED
    return language_model.lm_head(hidden[chosen]).float(), packed.targets[chosen]


def _loss(logits: Tensor, targets: Tensor, packed: Packed) -> Tensor:
    weights = packed.weights[packed.targets != IGNORED]
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def _layout(shared: int, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the mask bool `[1, 1, S, S]` (true: is seen) and positions `[1, S]` of S = shared + sum of lengths tokens."""
    owner = torch.cat([torch.full((shared,), -1), *(torch.full((n,), i) for i, n in enumerate(lengths))])
    index = torch.arange(len(owner))
    causal = index[:, None] >= index[None, :]
    keep = causal & ((owner[None, :] == -1) | (owner[None, :] == owner[:, None]))
    positions = torch.cat([torch.arange(shared), *(shared + torch.arange(length) for length in lengths)])
    return keep[None, None], positions[None]
