"""Calibration data of a bundle: where the activation ranges come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pargo_export.bundle.fields import BundlePath, Count, Positive, Sha256
from pargo_export.bundle.variant import VARIANT_NAME, Component, InputKind
from pargo_export.config import Record
from pargo_export.preprocessing import PreprocessSpec

__all__ = ["Calibration"]


class Calibration(Record):
    """One pass over calibration images.

    Attributes:
        name: Name in the bundle.
        variant: Float variant whose activations were observed.
        graph_sha256: Hash of its graph.
        weights_sha256: Hash of the weights, which every variant of the bundle shares.
        component: Of the variant.
        input: Of the variant.
        rewrites: Of the variant; a calibration fits variants with the same rewrites.
        preprocessing: How the images were prepared.
        source: Kind of the data, for example `"folder"` or `"webdataset"`; `"random"` is no evidence of accuracy.
        dataset_sha256: Hash of the contents of the images used, whatever their order.
        seed: Of the sampling.
        shard: Which part of the data, (index, number of parts).
        num_images: Images observed.
        num_evaluation: Further images, kept for measuring accuracy.
        num_skipped: Images that could not be read, and repeated ones; the table lists them.
        smoothing: Largest exponent of the migration of activation outliers that was observed beside the plain ranges.
        table: File with ranges and provenance, for people and machines.
        statistics: File with the histograms, from which every range method computes.
        evaluation: File with the evaluation images, prepared.
    """

    name: Annotated[str, Field(pattern=VARIANT_NAME)]
    variant: str
    graph_sha256: Sha256
    weights_sha256: Sha256
    component: Component
    input: InputKind
    rewrites: tuple[str, ...]
    preprocessing: PreprocessSpec
    source: str
    dataset_sha256: Sha256
    seed: int
    shard: tuple[Count, Positive]
    num_images: Positive
    num_evaluation: Count
    num_skipped: Count
    smoothing: float
    table: BundlePath
    statistics: BundlePath
    evaluation: BundlePath

    @property
    def files(self) -> tuple[str, str, str]:
        """The files, as paths in the bundle."""
        return (self.table, self.statistics, self.evaluation)
