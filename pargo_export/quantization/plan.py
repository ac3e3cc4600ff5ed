"""What a recipe means for one graph: which linears are quantized, with which ranges, and why others are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from pargo_calibration import QuantRecipe, Range, compute_range
from pargo_calibration import errors as calibration_errors
from pargo_export.errors import CalibrationError, QuantizationError
from pargo_export.quantization.linears import Linear, finite_weight
from pargo_export.quantization.statistics import ActivationStatistics, Observation

__all__ = ["ActivationPlan", "channel_gain", "make_plan", "require_known_patterns"]


@dataclass(frozen=True, eq=False)
class ActivationPlan:
    """One activation and the quantized linears that read it.

    Attributes:
        linears: At least one.
        statistics: What calibration saw of the activation; `None` if only weights are quantized.
    """

    linears: list[Linear]
    statistics: ActivationStatistics | None

    def value_range(self, recipe: QuantRecipe, *, symmetric: bool, smoothed: bool) -> Range:
        """Choose the range by the method of the recipe.

        Raises:
            CalibrationError: The statistics allow none.
            QuantizationError: A weight holds NaN or infinity.
        """
        item = self.statistics
        statistics = None if item is None else (item.smoothed if smoothed else item.plain)
        path = self.linears[0].path
        if statistics is None:
            raise CalibrationError(f"calibration saw nothing of the input of {path}; calibrate again")
        rule = recipe.activations_of(path)
        gain = channel_gain(self.linears, statistics.num_channels) if rule.method == "output_mse" else None
        try:
            return compute_range(
                statistics,
                rule.method,
                symmetric=symmetric,
                percentile=rule.percentile or 99.99,
                grid="fp8" if recipe.precision == "fp8" else "integer",
                channel_gain=gain,
            )
        except calibration_errors.CalibrationError as error:
            raise CalibrationError(f"input of {path}: {error}") from error


def channel_gain(linears: Sequence[Linear], num_channels: int) -> NDArray[np.float64]:
    """Sum the squared weights that read each channel of an activation, as they are in the graph now.

    Args:
        linears: The linears that read it.
        num_channels: C of its statistics. Rows beyond are padding, and read zeros; missing ones count as zero.

    Returns:
        float64 `[C]`.

    Raises:
        QuantizationError: A weight holds NaN or infinity.
    """
    gain = np.zeros(num_channels)
    for linear in linears:
        weight = linear.node.inputs[1]
        assert weight is not None  # noqa: S101 - a linear has a weight
        input_axis = 1 if linear.node.op_type == "Conv" else 1 - linear.output_axis
        rows = np.moveaxis(finite_weight(weight), input_axis, 0)
        squares = np.square(rows.reshape(len(rows), -1), dtype=np.float64).sum(axis=1)
        used = min(num_channels, squares.size)
        gain[:used] += squares[:used]
    return gain


def require_known_patterns(linears: Sequence[Linear], recipe: QuantRecipe) -> None:
    """See that every pattern of a recipe names a linear of the graph.

    Raises:
        QuantizationError: One does not; the message lists the blocks and what they hold.
    """
    paths = [linear.path for linear in linears]
    patterns = [*(rule.pattern for rule in recipe.keep), *(rule.pattern for rule in recipe.override)]
    unknown = [pattern for pattern in patterns if not any(fnmatchcase(path, pattern) for path in paths)]
    if unknown:
        blocks = list(dict.fromkeys(linear.block for linear in linears))
        inside = sorted({linear.path.removeprefix(linear.block).lstrip(".") for linear in linears} - {""})
        raise QuantizationError(
            f"recipe {recipe.name!r} names {', '.join(unknown)}, which the graph does not have; its blocks: "
            f"{', '.join(blocks)}; linears inside: {', '.join(inside)}"
        )


def make_plan(
    groups: Mapping[str, list[Linear]],
    recipe: QuantRecipe,
    observation: Observation | None,
    keep: Mapping[str, str],
) -> tuple[list[ActivationPlan], dict[str, str]]:
    """Decide about every linear.

    Args:
        groups: The linears by the activation that they read.
        recipe: The policy.
        observation: What calibration saw; `None` if only weights are quantized.
        keep: Further linears to keep in float, by module path, with the reason.

    Returns:
        What is quantized, and the reasons for the rest, by module path.

    Raises:
        CalibrationError: An activation was not observed.
    """
    plans, kept = [], {}
    for path, group in groups.items():
        quantized = []
        for linear in group:
            rule = recipe.kept_by(linear.path)
            reason = keep.get(linear.path) or (rule.reason if rule else None)
            if (
                reason is None
                and linear.activation.producer() is None
                and not linear.activation.is_graph_input()
            ):
                reason = "its input is a constant"
            if reason:
                kept[linear.path] = reason
            else:
                quantized.append(linear)
        if not quantized:
            continue
        statistics = None
        if observation is not None:
            statistics = next(
                (observation.activations[x.path] for x in group if x.path in observation.activations), None
            )
            if statistics is None:
                raise CalibrationError(
                    f"calibration saw nothing of the input of {path}: it was made for another graph; calibrate again"
                )
            if not statistics.plain.max_abs:
                kept |= {linear.path: "its input was zero on every calibration image" for linear in quantized}
                continue
        plans.append(ActivationPlan(quantized, statistics))
    return plans, kept
