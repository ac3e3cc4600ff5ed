"""A second loss of training: the words of an image's caption are to be readable from its visual tokens.

A language model from nothing does not begin to look at visual tokens whose meaning it would have to invent: for a thousand
steps it only learns what captions are usually like. So each word is asked for directly, by the likeness of the best
visual token to its embedding. Nothing is said of where a thing is, so that no projector is favoured, and scale and bias are
thrown away after training. A pretrained language model has no need of it: the paper trains on captions alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["WordLoss", "caption_words"]

_RARE, _COMMON = 0.003, 0.7  # of the captions: words in fewer or more of them say nothing that can be learnt
_SCALE, _BIAS = 4.0, -3.0
_WEIGHT = 0.1


def caption_words(captions: Sequence[Sequence[int]]) -> Tensor:
    """Return int64 `[W]`: the tokens that tell captions apart.

    Args:
        captions: Tokens of each.
    """
    counts = Counter(token for caption in captions for token in set(caption))
    low, high = _RARE * len(captions), _COMMON * len(captions)
    return torch.tensor(sorted(token for token, count in counts.items() if low < count < high))


class WordLoss(nn.Module):
    """Binary cross-entropy of every word of `words`, by the visual tokens.

    Args:
        words: int64 `[W]`, of `caption_words`.
    """

    words: Tensor

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.register_buffer("words", words)
        self.scale = nn.Parameter(torch.tensor(_SCALE))
        self.bias = nn.Parameter(torch.full((len(words),), _BIAS))

    def targets(self, captions: Sequence[Sequence[int]]) -> Tensor:
        """Return float32 `[B, W]`: 1 where a caption holds a word."""
        rows = [torch.isin(self.words, torch.tensor(list(caption))) for caption in captions]
        return torch.stack(rows).float()

    def forward(self, visual: Tensor, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, weighted for its place beside the language loss.

        Args:
            visual: Visual tokens `[B, Q, C]`.
            embeddings: Of the language model's words, `[vocabulary, C]`.
            targets: `[B, W]`.
        """
        tokens = visual.float()
        tokens = tokens * (tokens.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        likeness = tokens @ embeddings[self.words].T.float() * self.scale  # [B, Q, W]
        scores = likeness.logsumexp(dim=1) + self.bias
        losses = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return _WEIGHT * losses.sum(dim=1).mean()
