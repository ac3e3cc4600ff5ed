"""The model of a variant as plain calls, on any device: what the CUDA graphs are captured from."""

from __future__ import annotations

import torch
from torch import Tensor

from pargo_export.config import ModelConfig, VisionConfig
from pargo_export.errors import BackendError
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.projector import GroupProjector, QueryProjector, SizedProjector, load_projector
from pargo_export.runtime.cuda.support import find_missing_rewrite, find_tower_refusal
from pargo_export.runtime.cuda.tower import Tower
from pargo_export.runtime.cuda.weights import Weights
from pargo_kernels import scale_bias

__all__ = ["Program"]


class Program:
    """Tower, projector, or both.

    Args:
        weights: Of the variant, on the device where it is to run.
        config: The model.
        spec: What the variant computes.
        options: How to compute it.

    Attributes:
        dtype: Float type of the results.

    Raises:
        BackendError: The weights were made without a rewrite that this program relies on, or do not fit.
    """

    def __init__(
        self, weights: Weights, config: ModelConfig, spec: ProgramSpec, options: ProgramOptions | None = None
    ) -> None:
        if missing := find_missing_rewrite(spec.component, spec.rewrites, config.projector):
            raise BackendError(missing)
        options = options or ProgramOptions()
        self.dtype = spec.dtype
        self._projector: QueryProjector | SizedProjector | GroupProjector | None = None
        self._tower: Tower | None = None
        quantize = None
        if spec.component != "encoder":
            self._projector = load_projector(weights, config, spec, options)
            quantize = self._projector.quantize
        if spec.component != "projector":
            if not isinstance(config.vision, VisionConfig):
                raise BackendError(str(find_tower_refusal(spec.component, config.vision)))
            self._tower = Tower(
                weights, config.vision, spec, options, num_tiles=config.num_tiles, quantize=quantize
            )
        self._features_quantize = quantize

    @torch.no_grad()
    def __call__(self, values: Tensor) -> Tensor:
        """Compute the output of the variant.

        Args:
            values: Pixels `[B, 3, R*S, C*S]`, uint8, or normalised in any float type; or, for a projector alone,
                image features `[B, N, C]` in any float type.

        Returns:
            Visual tokens `[B, Q, C_llm]`, or image features `[B, N, C]`, in the float type of the variant.
        """
        if self._tower is not None:
            features = self._tower(values)
        elif self._features_quantize is None:
            features = values.to(self.dtype)
        else:
            features = scale_bias(values, quantize=self._features_quantize, dtype=self.dtype)
        return features if self._projector is None else self._projector(features)
