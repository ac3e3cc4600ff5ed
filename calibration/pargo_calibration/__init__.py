"""Calibration without a model: images in, statistics and ranges out, and the recipes that say which.

This package knows nothing of `pargo_export`, nor of PyTorch, ONNX or an inference engine.
"""

from pargo_calibration.errors import CalibrationDataError, CalibrationError, RecipeError
from pargo_calibration.ranges import (
    SMALLEST_SCALE,
    QuantizedDType,
    Range,
    RangeMethod,
    WeightDType,
    WeightMethod,
    compute_range,
    quantize_weight,
    scale_and_zero_point,
    weight_scales,
)
from pargo_calibration.readers import DataSource, Entry, Item, SourceKind, open_source, random_source
from pargo_calibration.recipe import (
    ActivationRule,
    AttentionRule,
    KeepRule,
    OverrideRule,
    Precision,
    QuantRecipe,
    SmoothRule,
    WeightRule,
)
from pargo_calibration.recipe_files import list_recipes, load_recipe
from pargo_calibration.sampling import Duplicate, Unreadable, dataset_sha256, sample
from pargo_calibration.statistics import TensorStatistics

__all__ = [
    "SMALLEST_SCALE",
    "ActivationRule",
    "AttentionRule",
    "CalibrationDataError",
    "CalibrationError",
    "DataSource",
    "Duplicate",
    "Entry",
    "Item",
    "KeepRule",
    "OverrideRule",
    "Precision",
    "QuantRecipe",
    "QuantizedDType",
    "Range",
    "RangeMethod",
    "RecipeError",
    "SmoothRule",
    "SourceKind",
    "TensorStatistics",
    "Unreadable",
    "WeightDType",
    "WeightMethod",
    "WeightRule",
    "compute_range",
    "dataset_sha256",
    "list_recipes",
    "load_recipe",
    "open_source",
    "quantize_weight",
    "random_source",
    "sample",
    "scale_and_zero_point",
    "weight_scales",
]
