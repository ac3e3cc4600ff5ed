"""Make a quantized graph from a float one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pargo_calibration import QuantRecipe
from pargo_export.bundle import Dialect
from pargo_export.errors import QuantizationError
from pargo_export.graph.save import save_graph
from pargo_export.quantization.attention import quantize_self_attention
from pargo_export.quantization.attention_scores import quantize_tower_scores
from pargo_export.quantization.half import convert_to_half
from pargo_export.quantization.insert_qdq import ActivationDType, quantize_activation, quantize_weights
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.observe import group_by_activation
from pargo_export.quantization.plan import ActivationPlan, make_plan, require_known_patterns
from pargo_export.quantization.smooth import find_norm_site, scale_into_norm
from pargo_export.quantization.split_products import split_merged_products
from pargo_export.quantization.stages import find_blocks, find_stages
from pargo_export.quantization.statistics import Observation

__all__ = ["BuiltGraph", "GraphBuilder", "GraphFacts"]

FloatPrecision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class GraphFacts:
    """What was done to a graph.

    Attributes:
        quantized: Linears that are quantized, and attentions whose products are, by module path.
        kept: The other linears, and attentions that the recipe wanted quantized, with the reason.
        smoothed: Linears in front of which outliers were moved into the weights.
        stages: Value that holds each stage (`stages.find_stages`).
        blocks: Value that leaves each block (`stages.find_blocks`).
        factors: What a value is to be multiplied with to undo the smoothing, float32 `[C]`, by its name.
        float_precision: Precision of what is not quantized.
    """

    quantized: tuple[str, ...]
    kept: dict[str, str]
    smoothed: tuple[str, ...]
    stages: dict[str, str]
    blocks: dict[str, str]
    factors: dict[str, NDArray[np.float32]]
    float_precision: FloatPrecision


@dataclass(frozen=True)
class BuiltGraph(GraphFacts):
    """A graph on disk.

    Attributes:
        path: The `.onnx` file.
        files: Everything written.
    """

    path: Path
    files: tuple[Path, ...]


@dataclass(frozen=True)
class GraphBuilder:
    """Everything that decides a quantized graph, but for what is kept in float.

    Attributes:
        base: The float graph.
        recipe: The policy; `None` changes the float precision only.
        observation: What calibration saw; `None` if the recipe quantizes weights only.
        dialect: How activations are written: `cpu` unsigned and asymmetric, `tensorrt` symmetric.
        float_precision: Of everything that is not quantized.
        metadata: Written into the graph.
    """

    base: Path
    recipe: QuantRecipe | None
    observation: Observation | None
    dialect: Dialect
    float_precision: FloatPrecision
    metadata: Mapping[str, str]

    def build(self, path: Path, keep: Mapping[str, str] | None = None) -> BuiltGraph:
        """Write the graph to `path`.

        Args:
            path: The `.onnx` file; weights may come beside it.
            keep: Linears to keep in float beyond those of the recipe, by module path, with the reason.

        Raises:
            CalibrationError: The calibration does not fit the graph.
            ExportError: The ONNX checker refuses the graph.
            QuantizationError: Nothing is left to quantize, or the graph cannot be quantized.
        """
        model, facts = self.make(keep)
        return BuiltGraph(path=path, files=tuple(save_graph(model, path)), **vars(facts))

    def make(self, keep: Mapping[str, str] | None = None) -> tuple[ir.Model, GraphFacts]:
        """Return the graph in memory; weights that did not change stay in the files of `base`.

        Args:
            keep: Linears to keep in float beyond those of the recipe, by module path, with the reason.

        Raises:
            CalibrationError: The calibration does not fit the graph.
            QuantizationError: Nothing is left to quantize, or the graph cannot be quantized.
        """
        model = ir.load(self.base)
        if self.float_precision != "float32" and not _is_half(model):
            convert_to_half(model, self.float_precision)
        stages, blocks = find_stages(model), find_blocks(model)
        kept: dict[str, str] = {}
        quantized: list[str] = []
        smoothed: list[str] = []
        factors: dict[str, NDArray[np.float32]] = {}
        if self.recipe is not None:
            linears = find_linears(model)
            require_known_patterns(linears, self.recipe)
            plans, kept = make_plan(group_by_activation(linears), self.recipe, self.observation, keep or {})
            if not plans:
                reasons = "; ".join(sorted(set(kept.values())))
                raise QuantizationError(
                    f"no linear is left to quantize ({reasons}); keep fewer of them in float"
                )
            for plan in plans:
                smooth = self._smooth(plan, factors)
                smoothed += [linear.path for linear in plan.linears] if smooth else []
                self._quantize(model.graph, plan, self.recipe, smoothed=smooth)
                quantized += [linear.path for linear in plan.linears]
            if self.recipe.attention.projector_self:
                quantized += quantize_self_attention(
                    model, self.recipe, self.observation, self._activation_dtype, kept
                )
            attentions, left = quantize_tower_scores(model, self.recipe, self.observation, self.dialect, kept)
            quantized += attentions
            kept |= left
            if self.dialect == "cpu" and self.recipe.precision == "int8":
                split_merged_products(model)
        if self.dialect == "tensorrt":
            _leave_softmax_precision_to_the_parser(model)
        model.metadata_props.update(self.metadata)
        model.graph.sort()
        return model, GraphFacts(
            quantized=tuple(quantized),
            kept=kept,
            smoothed=tuple(smoothed),
            stages=stages,
            blocks=blocks,
            factors=factors,
            float_precision=self.float_precision,
        )

    @property
    def _activation_dtype(self) -> ActivationDType:
        if self.recipe is not None and self.recipe.precision == "fp8":
            return "float8e4m3"
        return "uint8" if self.dialect == "cpu" else "int8"

    def _smooth(self, plan: ActivationPlan, undo: dict[str, NDArray[np.float32]]) -> bool:
        """Move the outliers of an activation into the weights, if recipe, graph and calibration allow it."""
        statistics = plan.statistics
        if (
            self.recipe is None
            or not self.recipe.smooth.alpha
            or statistics is None
            or statistics.factors is None
        ):
            return False
        site = find_norm_site(plan.linears)
        if isinstance(site, str):
            return False
        scale_into_norm(site, plan.linears, statistics.factors)
        undo[str(plan.linears[0].activation.name)] = statistics.factors
        return True

    def _quantize(
        self, graph: ir.Graph, plan: ActivationPlan, recipe: QuantRecipe, *, smoothed: bool
    ) -> None:
        dtype = self._activation_dtype
        if recipe.precision != "int8_weight_only":
            value_range = plan.value_range(recipe, symmetric=dtype != "uint8", smoothed=smoothed)
            quantize_activation(graph, plan.linears, value_range, dtype)
        weight_dtype: Literal["int8", "float8e4m3"] = "float8e4m3" if recipe.precision == "fp8" else "int8"
        for linear in plan.linears:
            quantize_weights(graph, linear, recipe.weights.method, weight_dtype)


def _is_half(model: ir.Model) -> bool:
    return model.metadata_props.get("pargo.precision") in {"float16", "bfloat16"}


def _leave_softmax_precision_to_the_parser(model: ir.Model) -> None:
    """Drop what TensorRT's parser refuses from graphs that were exported for a CPU (`graph/translate.py`)."""
    for node in model.graph:
        if node.op_type == "Attention":
            node.attributes.pop("softmax_precision", None)
