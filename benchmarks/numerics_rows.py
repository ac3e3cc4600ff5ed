"""The graphs that `numerics.py` measures: every built-in recipe, and the choices that the default one makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pargo_calibration import QuantRecipe, list_recipes, load_recipe
from pargo_calibration.recipe import AttentionRule, KeepRule, WeightRule
from pargo_export.bundle import Dialect

__all__ = ["Row", "list_rows"]

DEFAULT = "int8"


@dataclass(frozen=True)
class Row:
    """One graph to measure.

    Attributes:
        name: Its name in the table.
        recipe: What is quantized; `None` changes the float precision only.
        dialect: How activations are written.
        float_precision: Of what is not quantized.
    """

    name: str
    recipe: QuantRecipe | None
    dialect: Dialect = "cpu"
    float_precision: Literal["float32", "float16", "bfloat16"] = "float32"

    @property
    def is_emulated(self) -> bool:
        """Whether a CPU computes it only by imitation, so that its time means nothing."""
        is_fp8 = self.recipe is not None and self.recipe.precision == "fp8"
        return is_fp8 or self.float_precision != "float32"


def list_rows() -> list[Row]:
    """Return every graph, float ones first; all but those that say otherwise have float32 parts."""
    rows = [Row("fp16", None, "tensorrt", "float16"), Row("bf16", None, "tensorrt", "bfloat16")]
    names = sorted(list_recipes(), key=lambda name: (name != DEFAULT, name))
    for recipe in map(load_recipe, names):
        if recipe.precision == "int8":
            rows += [
                Row(f"{recipe.name}, cpu", recipe, "cpu"),
                Row(f"{recipe.name}, tensorrt", recipe, "tensorrt"),
            ]
        else:
            rows.append(Row(recipe.name, recipe, "tensorrt"))
    default = load_recipe(DEFAULT)
    variations = {
        "patch embedding quantized": default.model_copy(update={"keep": ()}),
        "llm_projection in float": default.model_copy(
            update={"keep": (*default.keep, KeepRule(pattern="projector.llm_projection*", reason="study"))}
        ),
        "projector self-attention quantized": default.model_copy(
            update={"attention": default.attention.model_copy(update={"projector_self": True})}
        ),
        "attention in float": default.model_copy(update={"attention": AttentionRule()}),
        "weights by least squared error": default.model_copy(update={"weights": WeightRule(method="mse")}),
    }
    for name, recipe in variations.items():
        rows.append(Row(f"{DEFAULT}, cpu: {name}", recipe.model_copy(update={"name": f"{DEFAULT}: {name}"})))
    rows += [
        Row(f"{DEFAULT}, tensorrt: float16 parts", default, "tensorrt", "float16"),
        Row(f"{DEFAULT}, tensorrt: bfloat16 parts", default, "tensorrt", "bfloat16"),
    ]
    return rows
