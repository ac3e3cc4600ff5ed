"""One graph of a bundle, what made it and the evidence that it computes what the reference computes."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pargo_export.bundle.fields import BundlePath, Positive, Sha256
from pargo_export.bundle.task_evidence import TaskEvidence
from pargo_export.config import Record
from pargo_export.signature import Signature

__all__ = [
    "VARIANT_NAME",
    "Component",
    "Dialect",
    "Evidence",
    "InputKind",
    "Limits",
    "Precision",
    "Quantization",
    "StageEvidence",
    "Variant",
]

Component = Literal["all", "encoder", "projector"]
InputKind = Literal["float", "uint8"]
Precision = Literal["float32", "float16", "bfloat16", "int8", "int8_weight_only", "fp8", "nvfp4"]
Dialect = Literal["cpu", "tensorrt"]

VARIANT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

# A precision of a later version must not hide the variants that this version can run.
PrecisionName = Precision | Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class StageEvidence(Record):
    """Agreement of one stage with the reference, on one input.

    Attributes:
        stage: What was compared, for example `"image_features"` or `"visual_tokens"`.
        batch: Images at once.
        source: The input, for example `"photograph"` or `"normal noise"`.
        max_abs: Largest absolute difference.
        cosine: Smallest cosine similarity of a token.
        reference_std: Standard deviation of the reference, which `max_abs` is to be read against.
        mean_cosine: Mean cosine similarity of the tokens.
        sqnr_db: Signal-to-quantization-noise ratio, decibels: power of the reference over that of the difference.
    """

    stage: str
    batch: Positive
    source: str
    max_abs: float
    cosine: float
    reference_std: float
    mean_cosine: float | None = None
    sqnr_db: float | None = None


class Limits(Record):
    """What the evidence was held against; `None` sets no limit."""

    max_abs: float | None = None
    cosine: float | None = None
    mean_cosine: float | None = None
    sqnr_db: float | None = None


class Evidence(Record):
    """The measured parity of a variant.

    Attributes:
        stages: The measurements.
        limits: The limits.
        passed: Whether every measurement is within the limits; never with a measurement that is not finite.
        reference: What the variant was compared with.
        notes: Remarks for the reader.
        task: The score on a task, if a budget was set on one.
    """

    stages: tuple[StageEvidence, ...]
    limits: Limits
    passed: bool
    reference: str
    notes: tuple[str, ...] = ()
    task: TaskEvidence | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.passed:
            for item in self.stages:
                if not all(map(math.isfinite, (item.max_abs, item.cosine, item.reference_std))):
                    raise ValueError(f"passed, but the evidence of stage {item.stage!r} is not finite")
        return self


class Quantization(Record):
    """How a variant was made from another one, by the stage `quantize`.

    Attributes:
        base: Name of the variant that it was made from.
        float_precision: Precision of everything that is not quantized.
        recipe: Name of the recipe; empty if only the float precision was changed.
        dialect: `cpu` (unsigned, asymmetric activations, for integer units of CPUs) or `tensorrt` (symmetric).
        calibration: Name of the calibration in the manifest; `None` if no activation is quantized.
        quantized: Linears that are quantized, by module path.
        kept: Linears that are not, with the reason.
        smoothed: Linears whose activation outliers were moved into the weights.
    """

    base: str
    float_precision: Literal["float32", "float16", "bfloat16"]
    recipe: str = ""
    dialect: Dialect = "tensorrt"
    calibration: str | None = None
    quantized: tuple[str, ...] = ()
    kept: dict[str, str] = Field(default_factory=dict)
    smoothed: tuple[str, ...] = ()


class Variant(Record):
    """One graph of the bundle.

    Attributes:
        name: Name in the bundle, for example `"fp16"`.
        precision: Precision of the heavy matrix products.
        component: Which part of the model the graph computes.
        graph: Path of the `.onnx` file in the bundle.
        attention: Attention form of the projector, for example `"fused"`.
        target: Device family that it was made for, for example `"orin"`.
        opset: ONNX opset of the graph.
        input: `float` (normalised pixels) or `uint8` (normalisation is in the graph).
        max_batch: Largest batch that it was made for; `evidence` says at which batches it was measured.
        rewrites: Rewrites that were applied, in order.
        signature: Inputs and outputs.
        evidence: Parity with the reference, if it was measured.
        quantization: How it was made from another variant; `None` for one that was exported from the checkpoint.
        recipe_sha256: Hash of everything that made the graph; a different hash means that it is stale.
    """

    name: Annotated[str, Field(pattern=VARIANT_NAME)]
    precision: PrecisionName
    component: Component
    graph: BundlePath
    attention: str
    target: str
    opset: Positive
    input: InputKind
    max_batch: Positive
    rewrites: tuple[str, ...] = ()
    signature: Signature
    evidence: Evidence | None = None
    quantization: Quantization | None = None
    recipe_sha256: Sha256

    @property
    def float_precision(self) -> str:
        """Precision of everything that is not quantized: what a runtime must have float products for."""
        return self.precision if self.quantization is None else self.quantization.float_precision
