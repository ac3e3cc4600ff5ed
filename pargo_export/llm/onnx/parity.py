"""The gate at export: the graph's logits against PyTorch, which reads every sequence anew, without caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pargo_export.bundle import Evidence, Limits
from pargo_export.errors import AccuracyError
from pargo_export.graph.comparison import PARITY_LIMITS, compare, find_failures, require_parity
from pargo_export.llm.onnx.decoder import Decoder, RunningDecoder

__all__ = ["LIMITS", "ExportPrecision", "ParityCase", "make_cases", "measure_logits", "require_logits"]

Array = NDArray[np.float32]
ExportPrecision = Literal["fp32", "int8", "int4"]
# Cosine is the worst row's. The 8-bit and 4-bit limits keep out what is broken; whether answers stay is for the task.
LIMITS: dict[str, Limits] = {
    "fp32": PARITY_LIMITS["float32"],
    "int8": Limits(cosine=0.99),
    "int4": Limits(cosine=0.9),
}
_SEED = 20240823  # the day the paper appeared
_SIZES = ((1, 5), (3, 9))  # prompts of one row and of several, the latter padded by 0, 1, 2, ... on the left
_STEPS = 3


@dataclass(frozen=True)
class ParityCase:
    """Prompts, how they go on, and the reference's logits after the prompts and after each further token.

    Attributes:
        embeddings: float32 `[B, L, C]`.
        attention_mask: int64 `[B, L]`.
        tokens: What is read after the prompts, `[steps, B]`.
        rows: Which row each one continues, `[steps, B]`; they change places, as beams do.
        logits: `[1 + steps, B, V]`.
    """

    embeddings: Array
    attention_mask: NDArray[np.int64]
    tokens: NDArray[np.int64]
    rows: NDArray[np.intp]
    logits: Array


def make_cases(
    embed: Callable[[Sequence[int]], Array],
    vocab_size: int,
    read: Callable[[Array, NDArray[np.int64]], Array],
) -> list[ParityCase]:
    """Draw prompts, half tokens and half noise of their size as visual tokens are, and ask the reference.

    Args:
        embed: Returns the embeddings `[L, C]` of tokens.
        vocab_size: V.
        read: The reference: embeddings and mask to the logits `[B, V]` of the last position, without caches.
    """
    generator = np.random.default_rng(_SEED)
    cases = []
    for batch, length in _SIZES:
        embeddings = np.stack(
            [embed(generator.integers(vocab_size, size=length).tolist()) for _ in range(batch)]
        )
        noise = generator.standard_normal(embeddings.shape) * embeddings.std()
        embeddings[:, : length // 2] = noise[:, : length // 2]
        mask = np.ones((batch, length), np.int64)
        for row in range(batch):
            mask[row, :row], embeddings[row, :row] = 0, 0
        tokens = generator.integers(vocab_size, size=(_STEPS, batch))
        rows = np.stack([generator.permutation(batch) for _ in range(_STEPS)])
        whole, whole_mask = embeddings, mask
        logits = [read(whole, whole_mask)]
        for following, kept in zip(tokens, rows, strict=True):
            step = embed(following.tolist())[:, None]
            whole = np.concatenate([whole[kept], step], axis=1)
            whole_mask = np.concatenate([whole_mask[kept], np.ones((batch, 1), np.int64)], axis=1)
            logits.append(read(whole, whole_mask))
        cases.append(ParityCase(embeddings, mask, tokens, rows, np.stack(logits)))
    return cases


def measure_logits(
    decoder: Decoder,
    embed: Callable[[Sequence[int]], Array],
    cases: Sequence[ParityCase],
    precision: ExportPrecision,
) -> Evidence:
    """Read the same with the graph, step by step with its caches, and compare.

    Raises:
        ParityError: Logits are not finite, or of another shape.
    """
    measured, agreed, total = [], 0, 0
    for case in cases:
        running = RunningDecoder(decoder, embed, case.embeddings, case.attention_mask)
        found = [running.start(1)]
        found += [running.advance(tokens, rows) for tokens, rows in zip(case.tokens, case.rows, strict=True)]
        for step, (expected, logits) in enumerate(zip(case.logits, found, strict=True)):
            what = f"step {step}" if step else "prompt"
            measured.append(compare("logits", f"{what}, {len(expected)} row(s)", expected, logits))
            agreed += int((expected.argmax(-1) == logits.argmax(-1)).sum())
            total += len(expected)
    return Evidence(
        stages=tuple(measured),
        limits=LIMITS[precision],
        passed=not find_failures(measured, LIMITS[precision]),
        reference="PyTorch in float32 on the CPU, without caches",
        notes=(f"the most likely token is the same at {agreed} of {total} places",),
    )


def require_logits(evidence: Evidence, precision: ExportPrecision) -> None:
    """Turn failed evidence into an error.

    Raises:
        ParityError: The float32 graph does not compute what PyTorch computes.
        AccuracyError: The graph with weights of fewer bits is too far from it.
    """
    if precision == "fp32":
        require_parity(evidence)
    elif not evidence.passed:
        worst = min(item.cosine for item in evidence.stages)
        raise AccuracyError(
            f"with {precision} weights the logits have a cosine of {worst:.5f} with those of float32, expected at least "
            f"{evidence.limits.cosine}; nothing was written: export with more bits, or in fp32"
        )
