"""What to quantize and how, as data."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import Self

from pargo_calibration.ranges import RangeMethod, WeightMethod

__all__ = [
    "ActivationRule",
    "AttentionRule",
    "KeepRule",
    "OverrideRule",
    "Precision",
    "QuantRecipe",
    "SmoothRule",
    "WeightRule",
]

Precision = Literal["int8", "int8_weight_only", "fp8"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Table(BaseModel):
    """A frozen table of a recipe; a key that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ActivationRule(_Table):
    """How the range of an activation is chosen.

    Attributes:
        method: `max`, `percentile`, `entropy`, `mse` or `output_mse`.
        percentile: Percentage of the values kept; `percentile` needs it, the others must not have it.
    """

    method: RangeMethod = "max"
    percentile: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.method == "percentile") != (self.percentile is not None):
            raise ValueError(
                f"method is {self.method!r} and percentile is {self.percentile}; method 'percentile' needs a "
                "percentile such as 99.99, the other methods must not have one"
            )
        return self


class WeightRule(_Table):
    """How the scale of each output channel of a weight is chosen.

    Attributes:
        method: `max` or `mse`.
    """

    method: WeightMethod = "max"


class SmoothRule(_Table):
    """SmoothQuant (arXiv 2211.10438): outlier channels of activations move into the weights.

    Attributes:
        alpha: Largest migration strength; 0 is off, at 1 all of the difficulty may move into the weights. Which strength
            an activation gets is decided by calibration, and never exceeds this one.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.0


class AttentionRule(_Table):
    """Attention products, which are kept in floating point unless asked for.

    Attributes:
        projector_self: Quantize both products of the projector's self-attention.
        tower_scores: Quantize the product of queries and keys in the tower. It holds for the dialect `cpu` alone:
            TensorRT's fused INT8 attention ends at 512 keys, and the tower has 577. `off` leaves it in floating point;
            `where_possible` quantizes it in that dialect if the calibration saw its operands; `on` insists.
    """

    projector_self: bool = False
    tower_scores: Literal["off", "where_possible", "on"] = "off"


class KeepRule(_Table):
    """Linears that stay in floating point.

    Attributes:
        pattern: Glob on module paths; `*` crosses dots.
        reason: Why; it is written into the bundle.
    """

    pattern: Text
    reason: Text


class OverrideRule(ActivationRule):
    """Another range method for the inputs of some linears.

    Attributes:
        pattern: Glob on module paths; `*` crosses dots.
    """

    pattern: Text

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if "method" not in self.model_fields_set:
            raise ValueError("method is missing; an override says which method it puts in place")
        return self


class QuantRecipe(_Table):
    """A quantization recipe.

    Attributes:
        name: Identifies it in a bundle.
        summary: What it is for, in one sentence.
        precision: `int8` (weights and activations), `int8_weight_only`, or `fp8` (E4M3, both).
        activations: Range method of all activations that no override matches.
        weights: Scale method of all weights.
        smooth: SmoothQuant.
        attention: Attention products.
        keep: Linears kept in floating point.
        override: Range methods for some activations.
    """

    name: Text
    summary: Text
    precision: Precision
    activations: ActivationRule = ActivationRule()
    weights: WeightRule = WeightRule()
    smooth: SmoothRule = SmoothRule()
    attention: AttentionRule = AttentionRule()
    keep: tuple[KeepRule, ...] = ()
    override: tuple[OverrideRule, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.precision == "int8_weight_only":
            superfluous = {"activations", "override"} & self.model_fields_set
            superfluous |= {"smooth"} if self.smooth.alpha else set()
            superfluous |= {"attention"} if self.attention != AttentionRule() else set()
            if superfluous:
                raise ValueError(
                    f"precision 'int8_weight_only' leaves activations alone, but {sorted(superfluous)} are about them; "
                    "remove them or choose 'int8'"
                )
        if self.precision == "fp8" and self.attention.tower_scores != "off":
            raise ValueError(
                f"tower_scores is {self.attention.tower_scores!r}, but it is for integer units of CPUs, and fp8 has none; "
                "leave it out or choose 'int8'"
            )
        if self.precision == "fp8" and "entropy" in {
            rule.method for rule in (self.activations, *self.override)
        }:
            raise ValueError(
                "method 'entropy' needs evenly spaced levels, which fp8 has not; choose 'max', 'percentile', 'mse' or 'output_mse'"
            )
        return self

    def kept_by(self, module_path: str) -> KeepRule | None:
        """Return the first rule that keeps a linear in floating point, or `None`."""
        return next((rule for rule in self.keep if fnmatchcase(module_path, rule.pattern)), None)

    def activations_of(self, module_path: str) -> ActivationRule:
        """Return how the input range of a linear is chosen: by the first override that matches, or the default."""
        matches = (rule for rule in self.override if fnmatchcase(module_path, rule.pattern))
        return next(matches, self.activations)

    def to_json(self) -> str:
        """Canonical JSON with every default spelled out: equal recipes, equal text, equal hash."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
