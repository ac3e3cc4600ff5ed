"""What one run costs, block by block: parameters, floating-point operations, bytes moved.

Counted from the configuration, for any engine: nothing is measured here.

- FLOPs are those of matrix products and the patch convolution, a multiply-add counting as two; PyTorch's
  `FlopCounterMode` counts the same.
- Bytes are a lower bound: every weight is read once, every matrix product and every attention reads its
  inputs and writes its output once. Scores stay on the chip, and element-wise work is done on the way.
- A quantized linear reads 8-bit weights, and 8-bit inputs where activations are quantized; what it writes, its
  bias and everything else keep the float precision. Scales are not counted: one a row.

What does not depend on the image (the queries before the first cross-attention) is computed for one image,
whatever the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pargo_export.config import ModelConfig
from pargo_export.inspect.parameters import count_parameters
from pargo_export.inspect.tally import Tally
from pargo_export.inspect.walk import Form, walk_encoder, walk_projector

__all__ = ["BlockCost", "CostTable", "Part", "estimate_cost"]

Part = Literal["encoder", "projector"]
_UNUSED = "unused_tower_weights"


@dataclass(frozen=True)
class BlockCost:
    """One block.

    Attributes:
        name: The block, for example `"tower_block_3"`.
        part: The component it belongs to; `None` for a sum over both.
        parameters: Its learned parameters in the checkpoint.
        flops: Operations of its matrix products.
        weight_bytes: Weights and constants that are read.
        activation_bytes: Activations that are read and written.
    """

    name: str
    part: Part | None
    parameters: int
    flops: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class CostTable:
    """The cost of one run.

    Attributes:
        batch: Images at once.
        element_bytes: Bytes of a weight and of an activation that is not quantized.
        blocks: The blocks in the order in which they run.
    """

    batch: int
    element_bytes: int
    blocks: tuple[BlockCost, ...]

    def total(self, part: Part | None = None) -> BlockCost:
        """Return the sum over one part, or over everything."""
        blocks = [block for block in self.blocks if part in {None, block.part}]
        return BlockCost(
            name=part or "total",
            part=part,
            parameters=sum(block.parameters for block in blocks),
            flops=sum(block.flops for block in blocks),
            weight_bytes=sum(block.weight_bytes for block in blocks),
            activation_bytes=sum(block.activation_bytes for block in blocks),
        )


def estimate_cost(
    config: ModelConfig,
    *,
    batch: int = 1,
    element_bytes: int = 4,
    component: Literal["all"] | Part = "all",
    attention: str = "dense",
    rewrites: Iterable[str] = (),
    quantized: Iterable[str] = (),
    quantizes_activations: bool = True,
) -> CostTable:
    """Count what one run costs: by default of the reference, with its dense masks.

    Args:
        config: The model.
        batch: Images at once.
        element_bytes: Bytes of a weight and of an activation that is not quantized: 4 for float32, 2 for float16
            and bfloat16.
        component: Which part runs.
        attention: Attention form of the projector, as a variant of the bundle names it.
        rewrites: Rewrites that were applied, as a variant of the bundle names them.
        quantized: Linears whose weights have 8 bits, as a variant of the bundle names them.
        quantizes_activations: Whether their inputs have 8 bits too.
    """
    form = Form(attention, frozenset(rewrites), frozenset(quantized), quantizes_activations)
    parameters = count_parameters(config)
    found: list[tuple[Part, str, Tally]] = []
    if component != "projector":
        found += [("encoder", name, tally) for name, tally in walk_encoder(config, form, batch)]
        if _UNUSED in parameters and not form.has("drop-unused-weights"):
            found.append(("encoder", _UNUSED, Tally()))
    if component != "encoder":
        found += [("projector", name, tally) for name, tally in walk_projector(config, form, batch)]
    return CostTable(
        batch=batch,
        element_bytes=element_bytes,
        blocks=tuple(
            BlockCost(
                name=name,
                part=part,
                parameters=parameters[name],
                flops=tally.flops,
                weight_bytes=_bytes(tally.weights, tally.narrow_weights, element_bytes),
                activation_bytes=_bytes(tally.activations, tally.narrow_activations, element_bytes),
            )
            for part, name, tally in found
        ),
    )


def _bytes(elements: int, narrow: int, element_bytes: int) -> int:
    return element_bytes * (elements - narrow) + narrow
