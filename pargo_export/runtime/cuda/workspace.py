"""Workspaces of the cross-attention, kept between runs: filling their counters with zeros is a kernel of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from pargo_export.config import ProjectorConfig
from pargo_kernels.partial_global_plan import SplitWorkspace, plan_workspace

__all__ = ["Workspaces"]


class Workspaces:
    """One workspace a stream and batch size, for all layers of a projector, which run one after the other.

    What runs on one stream runs in order, so nothing else uses a workspace at the same time; a graph keeps that of the
    stream on which it was captured, and a slot replays its graphs on that stream.

    Args:
        config: The projector.
    """

    def __init__(self, config: ProjectorConfig) -> None:
        self._config = config
        self._kept: dict[tuple[int, int, int], SplitWorkspace | None] = {}

    def get(self, features: Tensor) -> SplitWorkspace | None:
        """Return the workspace for image features `[B, N, C]`, `None` where none is needed."""
        if not features.is_cuda:
            return None
        batch, num_keys = features.shape[:2]
        key = (torch.cuda.current_stream(features.device).cuda_stream, batch, num_keys)
        if key not in self._kept:
            self._kept[key] = plan_workspace(
                batch * self._config.num_heads,
                num_partial=self._config.num_partial_tokens,
                num_global=self._config.num_global_tokens,
                num_keys=num_keys,
                head_dim=self._config.head_dim,
                dtype=features.dtype,
                device=features.device,
            )
        return self._kept[key]
