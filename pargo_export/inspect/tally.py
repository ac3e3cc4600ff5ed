"""Add up what one block computes and moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["NOTHING_NARROW", "Narrow", "Operation", "Tally"]


class Narrow(NamedTuple):
    """Which operands of a product have 8 bits."""

    weight: bool
    activation: bool


NOTHING_NARROW = Narrow(weight=False, activation=False)
_ALIGNMENT = 8  # tensor cores read 16 bytes at a time: 8 values of 16 bits


class Operation(NamedTuple):
    """One matrix product with a weight, or one attention, in operations and elements.

    Attributes:
        kind: What it is.
        flops: Its operations.
        weights: Weights read.
        inputs: Activations read; 0 if an earlier product of the same matrix has read them.
        outputs: Activations written.
        narrow: What has 8 bits.
        is_aligned: Whether its channels are multiples of 8, as tensor cores like them.
        scores: Pairs of a query and a key that are computed, of all sequences and one head; 0 for a product.
    """

    kind: Literal["product", "attention"]
    flops: int
    weights: int
    inputs: int
    outputs: int
    narrow: Narrow = NOTHING_NARROW
    is_aligned: bool = True
    scores: int = 0


@dataclass
class Tally:
    """Running sums of one block, in operations and elements.

    Attributes:
        flops: Operations of matrix products.
        weights: Weights and constants read.
        activations: Activations read and written.
        narrow_weights: Those of the weights that have 8 bits.
        narrow_activations: Those of the activations that have 8 bits.
        operations: What was added up, in the order in which it runs.
    """

    flops: int = 0
    weights: int = 0
    activations: int = 0
    narrow_weights: int = 0
    narrow_activations: int = 0
    operations: list[Operation] = field(default_factory=list)

    def product(
        self,
        rows: int,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        is_input_read: bool = True,
        narrow: Narrow = NOTHING_NARROW,
    ) -> None:
        """`[rows, inputs]` times a weight `[inputs, outputs]`; no rows: nothing is computed.

        Args:
            rows: Rows of the activation.
            inputs: Channels that go in.
            outputs: Channels that come out.
            bias: Whether a bias is added.
            is_input_read: False if an earlier product of the same matrix has read the input already.
            narrow: What has 8 bits; the bias and the output never have.
        """
        if not rows:
            return
        self.flops += 2 * rows * inputs * outputs
        self.weights += outputs * (inputs + bias)
        self.activations += rows * (inputs * is_input_read + outputs)
        self.narrow_weights += outputs * inputs * narrow.weight
        self.narrow_activations += rows * inputs * is_input_read * narrow.activation
        self.operations.append(
            Operation(
                "product",
                flops=2 * rows * inputs * outputs,
                weights=outputs * (inputs + bias),
                inputs=rows * inputs * is_input_read,
                outputs=rows * outputs,
                narrow=narrow,
                is_aligned=inputs % _ALIGNMENT == outputs % _ALIGNMENT == 0,
            )
        )

    def attention(self, batch: int, queries: int, keys: int, width: int, *, num_scores: int) -> None:
        """Queries `[batch, queries, width]` over keys and values `[batch, keys, width]`.

        Args:
            batch: Sequences; none: nothing is computed.
            queries: Queries of a sequence.
            keys: Keys of a sequence.
            width: Channels of all heads together.
            num_scores: Pairs of a query and a key, of one sequence and one head, that are computed.
        """
        self.flops += 4 * batch * num_scores * width  # query @ key^T and weights @ value
        self.activations += 2 * batch * (queries + keys) * width
        if batch:
            self.operations.append(
                Operation(
                    "attention",
                    flops=4 * batch * num_scores * width,
                    weights=0,
                    inputs=batch * (queries + 2 * keys) * width,
                    outputs=batch * queries * width,
                    scores=batch * num_scores,
                )
            )

    def norm(self, width: int) -> None:
        """Gain and offset of a LayerNorm, which works on what is passing by."""
        self.weights += 2 * width

    def constant(self, elements: int) -> None:
        """A table that is read."""
        self.weights += elements
