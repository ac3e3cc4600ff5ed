"""The official architecture with the weights that a bundle was made from."""

from __future__ import annotations

from pathlib import Path

import torch

from pargo_export.bundle import Bundle
from pargo_export.errors import CheckpointError, ConfigError, StateDictError
from pargo_export.graph.provenance import weights_sha256
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.model.loading import load_checkpoint
from pargo_export.rewrite.apply import deploy_module

__all__ = ["load_reference"]


def load_reference(bundle: Bundle, checkpoint: Path, dtype: torch.dtype = torch.float32) -> VisualFrontEnd:
    """Load the readable reference, its additive masks made once.

    Args:
        bundle: The bundle; its manifest has the configuration, tiles included.
        checkpoint: What it was made from.
        dtype: Of weights and activations.

    Raises:
        CheckpointError: The checkpoint cannot be read, or the bundle was made from another one.
    """
    wanted = f"the checkpoint that bundle {bundle.path} was made from"
    try:
        model = load_checkpoint(checkpoint, bundle.manifest.model)
    except (ConfigError, StateDictError) as error:
        raise CheckpointError(f"{checkpoint} is not {wanted}: {error}") from error
    found, recorded = weights_sha256(model), bundle.manifest.source.sha256
    if found != recorded:
        names = ", ".join(bundle.manifest.source.files) or "a model in memory"
        raise CheckpointError(
            f"{checkpoint} is not {wanted}: its weights have sha256 {found[:12]}, those of the bundle {recorded[:12]} "
            f"({names}); give that one, or export this one to a bundle of its own"
        )
    return deploy_module(model, (), "dense", dtype)[0]
