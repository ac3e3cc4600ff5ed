"""First of all: does a subject compute what it should? Without that its times say nothing.

Every subject encodes pictures of the benchmark at every batch size that will be timed, a whole batch and several pictures
at least, and the result is held
against the float32 variant of the bundle in ONNX Runtime, picture by picture, with the limits of the variant's own
evidence. Those of a baseline are the limits of its precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pargo_export.agreement import describe_agreement
from pargo_export.bench.process import SubjectProcess
from pargo_export.bundle import Evidence
from pargo_export.graph.comparison import PARITY_LIMITS, compare, find_failures

__all__ = ["Reference", "check_outputs", "compute_reference", "describe_failure", "num_checked"]

_FEWEST_PICTURES = 4  # one picture alone may be an easy one
_STAGE = "visual_tokens"


@dataclass(frozen=True)
class Reference:
    """What the outputs are held against.

    Attributes:
        outputs: float32 `[number of pictures, Q, C_llm]`.
        name: What computed them.
    """

    outputs: NDArray[np.float32]
    name: str


def compute_reference(process: SubjectProcess, num_pictures: int, file: Path) -> Reference:
    """Encode pictures one by one.

    Args:
        process: The reference.
        num_pictures: How many of its pictures.
        file: Where to put the outputs; they are read back.

    Raises:
        BackendError: It failed.
    """
    process.ask("encode", num_images=num_pictures, batch=1, out=str(file))
    facts = process.facts
    return Reference(np.load(file), f"{facts.variant} in {facts.backend}")


def num_checked(batch: int, num_pictures: int) -> int:
    """Return how many pictures a subject encodes at a batch size: a batch, or a few where that is fewer."""
    return max(batch, min(_FEWEST_PICTURES, num_pictures))


def check_outputs(
    process: SubjectProcess, reference: Reference, batches: Sequence[int], file: Path
) -> Evidence:
    """Hold a subject against the reference at every batch size.

    Args:
        process: The subject.
        reference: Of the same pictures.
        batches: Batch sizes.
        file: Where to put the outputs; they are read back.

    Returns:
        The measurements; whether they passed is in them.

    Raises:
        BackendError: It failed.
        ParityError: A value is not finite, or the output has another shape.
    """
    limits = process.spec.limits or PARITY_LIMITS.get(process.facts.precision, PARITY_LIMITS["float32"])
    stages = []
    for batch in batches:
        count = num_checked(batch, len(reference.outputs))
        process.ask("encode", num_images=count, batch=batch, out=str(file))
        expected = reference.outputs[np.arange(count) % len(reference.outputs)]
        found = compare(_STAGE, "pictures of the benchmark", expected, np.load(file))
        stages.append(found.model_copy(update={"batch": batch}))  # images in a run, not in all of them
    return Evidence(
        stages=tuple(stages),
        limits=limits,
        passed=not find_failures(stages, limits),
        reference=reference.name,
    )


def describe_failure(evidence: Evidence) -> str:
    """Say how far the output is from what is allowed."""
    allowed = evidence.limits.model_dump(exclude_none=True)
    return f"its output misses the limits, so it was not timed: {describe_agreement(evidence)}; allowed are {allowed}"
