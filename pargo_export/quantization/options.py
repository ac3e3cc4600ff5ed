"""What kind of quantized variant to make."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from pargo_calibration import QuantRecipe, load_recipe
from pargo_calibration import errors as calibration_errors
from pargo_export.bundle import VARIANT_NAME, Dialect, Limits
from pargo_export.errors import ConfigError, QuantizationError
from pargo_export.graph.comparison import PARITY_LIMITS

__all__ = ["ACCURACY_LIMITS", "QuantizeOptions", "TargetName"]

TargetName = Literal["cpu", "cuda", "orin", "thor", "rtx"]
FloatPrecision = Literal["float32", "float16", "bfloat16"]

# Command-line word -> name in code.
PRECISIONS: dict[str, str] = {
    "int8": "int8",
    "int8-weight-only": "int8_weight_only",
    "fp8": "fp8",
    "fp16": "float16",
    "bf16": "bfloat16",
}
_DEFAULT_RECIPES = {"int8": "int8", "int8_weight_only": "int8-weight-only", "fp8": "fp8"}
# E4M3 products need compute capability 8.9: Ada, Hopper, Blackwell. No Orin (8.7) and no CPU has them.
_WITHOUT_FP8 = {
    "cpu": "no CPU backend has FP8 products; choose --int8",
    "orin": "Orin (compute capability 8.7) has no FP8; choose --int8",
}

# Held against every evaluation image at every stage; see docs/numerics.md for what they were chosen from.
ACCURACY_LIMITS: dict[str, Limits] = {
    "int8": Limits(mean_cosine=0.99, sqnr_db=15.0),
    "int8_weight_only": Limits(mean_cosine=0.999, sqnr_db=25.0),
    "fp8": Limits(mean_cosine=0.99, sqnr_db=15.0),
    "float16": PARITY_LIMITS["float16"],
    "bfloat16": PARITY_LIMITS["bfloat16"],
}


@dataclass(frozen=True)
class QuantizeOptions:
    """Choices of one quantization.

    Attributes:
        precision: `int8` (weights and activations), `int8_weight_only`, `fp8`, or only another float precision:
            `float16`, `bfloat16`. The command-line words are taken too.
        target: Device family; `cpu` decides for the `cpu` dialect, every other one for `tensorrt`.
        recipe: Name or file of a recipe, or the recipe; by default the one of the precision.
        calibration: Name of the calibration in the bundle.
        base: Float variant to start from; by default the one that suits the target best.
        float_precision: Of what is not quantized; by default float32 for `cpu`, else float16.
        keep: Patterns of module paths to keep in float, beyond the recipe's.
        limits: Accuracy limits, instead of those of the precision.
        allow_below: Write the variant even if it misses the limits, marked as failed.
        name: Name of the variant; by default made from precision and target.
        threads: CPU threads; by default those that ONNX Runtime takes.

    Raises:
        ConfigError: A choice is unknown, or two contradict each other.
        QuantizationError: The target cannot compute the precision.
    """

    precision: str = "int8"
    target: TargetName = "cpu"
    recipe: str | QuantRecipe | None = None
    calibration: str = "default"
    base: str | None = None
    float_precision: FloatPrecision | None = None
    keep: tuple[str, ...] = ()
    limits: Limits | None = None
    allow_below: bool = False
    name: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", PRECISIONS.get(self.precision, self.precision))
        if self.precision not in PRECISIONS.values():
            raise ConfigError(f"precision is {self.precision!r}; known: {', '.join(PRECISIONS.values())}")
        if self.target not in get_args(TargetName):
            raise ConfigError(f"target is {self.target!r}; known: {', '.join(get_args(TargetName))}")
        if self.float_precision not in {None, *get_args(FloatPrecision)}:
            raise ConfigError(
                f"float_precision is {self.float_precision!r}; known: {', '.join(get_args(FloatPrecision))}"
            )
        if self.precision == "fp8" and self.target in _WITHOUT_FP8:
            raise QuantizationError(f"target {self.target!r} cannot compute FP8: {_WITHOUT_FP8[self.target]}")
        if self.name is not None and not re.fullmatch(VARIANT_NAME, self.name):
            raise ConfigError(
                f"name is {self.name!r}; expected a letter or digit, then letters, digits, '.', '_' or '-'"
            )
        if not self.quantizes and (self.recipe is not None or self.keep):
            raise ConfigError(
                f"precision {self.precision!r} quantizes nothing, so recipe and keep mean nothing; choose int8 or fp8"
            )

    @property
    def quantizes(self) -> bool:
        """Whether anything is quantized, or only the float precision changes."""
        return self.precision in _DEFAULT_RECIPES

    @property
    def dialect(self) -> Dialect:
        """How activations are written."""
        return "cpu" if self.target == "cpu" else "tensorrt"

    @property
    def resolved_float_precision(self) -> FloatPrecision:
        """The precision of what is not quantized, with `None` resolved."""
        if not self.quantizes:
            return "bfloat16" if self.precision == "bfloat16" else "float16"
        if self.float_precision is not None:
            return self.float_precision
        return "float32" if self.target == "cpu" else "float16"

    @property
    def resolved_limits(self) -> Limits:
        """The accuracy limits, with `None` resolved by the precision."""
        return self.limits or ACCURACY_LIMITS[self.precision]

    @property
    def variant_name(self) -> str:
        """Name of the variant in the bundle: `int8-cpu`, `int8-cuda`, `fp8-thor`, `fp16`, ..."""
        if self.name is not None:
            return self.name
        word = next(word for word, precision in PRECISIONS.items() if precision == self.precision)
        return f"{word}-{self.target}" if self.quantizes else word

    def load_recipe(self) -> QuantRecipe | None:
        """Return the recipe; `None` if nothing is quantized.

        Raises:
            QuantizationError: There is no such recipe, it is not valid, or it is for another precision.
        """
        if not self.quantizes:
            return None
        recipe = self.recipe if self.recipe is not None else _DEFAULT_RECIPES[self.precision]
        if not isinstance(recipe, QuantRecipe):
            try:
                recipe = load_recipe(recipe)
            except calibration_errors.CalibrationError as error:
                raise QuantizationError(str(error)) from error
        if recipe.precision != self.precision:
            raise QuantizationError(
                f"recipe {recipe.name!r} is for {recipe.precision}, but {self.precision} was asked for; choose another "
                "recipe or precision"
            )
        return recipe
