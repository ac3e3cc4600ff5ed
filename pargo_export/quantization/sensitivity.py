"""Which blocks lose accuracy when they are quantized, and how the error grows through the network.

One block at a time is quantized, everything else stays as the base graph has it, and the graph's own output is held
against the reference. Such graphs are never written: ONNX Runtime gets the few changed tensors in memory and maps
the others from the file of the base, so that a block of the full size costs no 1.3 GB of disk.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from pargo_calibration import AttentionRule, QuantRecipe
from pargo_export.bundle import StageEvidence
from pargo_export.errors import QuantizationError
from pargo_export.graph.comparison import compare
from pargo_export.graph.emulate_half import emulated
from pargo_export.quantization.build import BuiltGraph, GraphBuilder
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.measure import Reference, measure
from pargo_export.quantization.observe import group_by_activation
from pargo_export.quantization.plan import make_plan
from pargo_export.quantization.sessions import open_session

__all__ = [
    "Accuracy",
    "BlockError",
    "Sensitivity",
    "block_sensitivity",
    "candidate_blocks",
    "depth_curve",
    "first_past",
    "linear_sensitivity",
    "run_images",
]

# An image of the full size costs seconds per block; the second one guards against an odd first one.
NUM_IMAGES = 2


@dataclass(frozen=True)
class Accuracy:
    """Agreement of one value with the reference, on the worst image by each measure.

    Attributes:
        mean_cosine: Mean cosine similarity of the tokens.
        worst_cosine: Smallest cosine similarity of a token.
        sqnr_db: Signal-to-quantization-noise ratio.
        max_abs: Largest absolute difference.
        worst_image: Image with the lowest ratio.
    """

    mean_cosine: float
    worst_cosine: float
    sqnr_db: float
    max_abs: float
    worst_image: str

    @classmethod
    def of(cls, measured: Iterable[StageEvidence]) -> Accuracy:
        """Summarize measurements of one stage, one for each image."""
        items = list(measured)
        worst = min(items, key=_ratio)
        return cls(
            mean_cosine=min(item.cosine if item.mean_cosine is None else item.mean_cosine for item in items),
            worst_cosine=min(item.cosine for item in items),
            sqnr_db=_ratio(worst),
            max_abs=max(item.max_abs for item in items),
            worst_image=worst.source,
        )


@dataclass(frozen=True)
class Sensitivity(Accuracy):
    """The graph's output with one block, or one linear, quantized and the rest in float.

    Attributes:
        name: The block or the linear.
        linears: What was quantized, by module path.
    """

    name: str
    linears: tuple[str, ...]


@dataclass(frozen=True)
class BlockError(Accuracy):
    """The values that leave a block of a quantized graph.

    Attributes:
        block: The block.
    """

    block: str


def block_sensitivity(
    builder: GraphBuilder,
    reference: Reference,
    *,
    keep: Mapping[str, str] | None = None,
    images: Sequence[int] | None = None,
    threads: int | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Sensitivity, ...]:
    """Measure each block that the recipe quantizes, on its own.

    Where the float parts are to become half, they stay float32 here: rounding them is far below the error of eight
    bits, and the conversion would have to be written out. Attention products stay in float too.

    Args:
        builder: Decides the graphs.
        reference: What their outputs are held against.
        keep: Linears that stay in float anyway, by module path, with the reason.
        images: Indices of evaluation images; by default the first two.
        threads: CPU threads.
        advance: Called with the blocks done and in all.

    Returns:
        The blocks, the most sensitive first (lowest ratio of signal to noise).

    Raises:
        ParityError: A value is NaN or infinite.
        QuantizationError: The recipe quantizes nothing, or ONNX Runtime refuses a graph.
    """
    groups = candidate_blocks(builder, keep)
    return _measure_each(builder, reference, groups, keep, images, threads, advance)


def linear_sensitivity(
    builder: GraphBuilder,
    reference: Reference,
    *,
    keep: Mapping[str, str] | None = None,
    images: Sequence[int] | None = None,
    threads: int | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Sensitivity, ...]:
    """Measure each linear that the recipe quantizes, on its own; as `block_sensitivity`, some five times as long."""
    blocks = candidate_blocks(builder, keep)
    groups = {path: (path,) for paths in blocks.values() for path in paths}
    return _measure_each(builder, reference, groups, keep, images, threads, advance)


def candidate_blocks(
    builder: GraphBuilder, keep: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the linears that would be quantized, by block, in the order of the network.

    Raises:
        CalibrationError: The calibration does not fit the graph.
        QuantizationError: There are none.
    """
    if builder.recipe is None:
        raise QuantizationError(
            "nothing is quantized where only the float precision changes; sensitivity and budget need int8, "
            "int8-weight-only or fp8"
        )
    groups = group_by_activation(find_linears(ir.load(builder.base)))
    plans, kept = make_plan(groups, builder.recipe, builder.observation, keep or {})
    blocks: dict[str, list[str]] = defaultdict(list)
    for plan in plans:
        for linear in plan.linears:
            blocks[linear.block].append(linear.path)
    if not blocks:
        raise QuantizationError(
            f"no linear is left to quantize ({'; '.join(sorted(set(kept.values())))}); keep fewer of them in float"
        )
    return {block: tuple(paths) for block, paths in blocks.items()}


def depth_curve(
    built: BuiltGraph,
    reference: Reference,
    *,
    images: Sequence[int] | None = None,
    threads: int | None = None,
) -> tuple[BlockError, ...]:
    """Measure what leaves each block of a quantized graph, in one pass over the images.

    Args:
        built: The graph.
        reference: What it is held against; blocks that it does not have are left out.
        images: Indices of evaluation images; by default all.
        threads: CPU threads.

    Returns:
        The blocks in the order of the network.

    Raises:
        ParityError: A value is NaN or infinite.
        QuantizationError: The graphs share no block, or ONNX Runtime refuses the graph.
    """
    known = reference.outputs[0]
    places = {block: value for block, value in built.blocks.items() if block in known}
    if not places:
        raise QuantizationError(
            f"the graph has the blocks {', '.join(built.blocks) or 'none'} and the reference has values of "
            f"{', '.join(known)}; compare a graph that has towers or query layers with a float32 one of the same component"
        )
    measured = measure(built, reference, places=places, images=images, threads=threads)
    return tuple(
        BlockError(block=block, **vars(Accuracy.of(item for item in measured if item.stage == block)))
        for block in places
    )


def first_past(curve: Sequence[BlockError], threshold_cosine: float) -> str | None:
    """Return the first block of a depth curve whose mean cosine is below a threshold, or `None`."""
    return next((item.block for item in curve if item.mean_cosine < threshold_cosine), None)


def run_images(
    model: onnx.ModelProto,
    folder: Path,
    reference: Reference,
    images: Iterable[int],
    *,
    threads: int | None = None,
) -> list[NDArray[np.float32]]:
    """Return the first output of a graph on evaluation images.

    Args:
        model: The graph; BFloat16 parts are emulated.
        folder: Folder of its external weights.
        reference: Has the images.
        images: Their indices.
        threads: CPU threads.

    Raises:
        QuantizationError: ONNX Runtime refuses the graph.
    """
    if any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer):
        model = emulated(model, "bfloat16")
    # Arranging the weights for speed costs more than it saves a handful of images.
    session = open_session(model, folder, threads=threads, prepack=False)
    feed, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return [
        session.run([output], {feed: reference.images.feed(index, takes_uint8=reference.takes_uint8)})[
            0
        ].astype(np.float32)
        for index in images
    ]


def _measure_each(
    builder: GraphBuilder,
    reference: Reference,
    groups: Mapping[str, Sequence[str]],
    keep: Mapping[str, str] | None,
    images: Sequence[int] | None,
    threads: int | None,
    advance: Callable[[int, int], None],
) -> tuple[Sensitivity, ...]:
    """Quantize one group of linears at a time."""
    indices = range(min(NUM_IMAGES, len(reference.images))) if images is None else images
    alone = dataclasses.replace(builder, float_precision="float32", recipe=_without_attention(builder))
    paths = [path for group in groups.values() for path in group]
    found = []
    for done, (name, group) in enumerate(groups.items(), start=1):
        others = {path: "sensitivity" for path in paths if path not in group}
        model, facts = alone.make({**others, **(keep or {})})
        stage = list(facts.stages)[-1]  # the graph's own output
        outputs = run_images(ir.to_proto(model), builder.base.parent, reference, indices, threads=threads)
        accuracy = Accuracy.of(
            compare(stage, reference.images.names[index], reference.outputs[index][stage], output)
            for index, output in zip(indices, outputs, strict=True)
        )
        found.append(Sensitivity(name=name, linears=tuple(group), **vars(accuracy)))
        advance(done, len(groups))
    return tuple(sorted(found, key=lambda item: item.sqnr_db))


def _without_attention(builder: GraphBuilder) -> QuantRecipe | None:
    """Return the recipe with float attention products: they are part of no linear."""
    if builder.recipe is None:
        return None
    return builder.recipe.model_copy(update={"attention": AttentionRule()})


def _ratio(item: StageEvidence) -> float:
    return -np.inf if item.sqnr_db is None else item.sqnr_db
