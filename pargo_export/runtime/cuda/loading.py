"""From a variant of a bundle to its program."""

from __future__ import annotations

from pathlib import Path

import torch

from pargo_export.bundle import Manifest, Variant
from pargo_export.errors import BackendError
from pargo_export.runtime.cuda.onnx_weights import read_weights
from pargo_export.runtime.cuda.options import ProgramOptions, ProgramSpec
from pargo_export.runtime.cuda.program import Program
from pargo_export.runtime.cuda.support import find_tower_refusal, find_variant_refusal

__all__ = ["load_program"]


def load_program(
    path: Path,
    manifest: Manifest,
    variant: Variant,
    *,
    device: torch.device | str,
    options: ProgramOptions | None = None,
) -> Program:
    """Read the weights of a variant and return its program.

    Args:
        path: The ONNX file of the variant.
        manifest: Of the bundle.
        variant: The variant.
        device: Where it is to run; `"cpu"` computes the same with plain PyTorch.
        options: How to compute it.

    Raises:
        BackendError: The variant cannot run in this way, or its file cannot be read.
    """
    refusal = find_tower_refusal(variant.component, manifest.model.vision)
    if reason := refusal or find_variant_refusal(variant):
        raise BackendError(f"variant {variant.name!r}: {reason}")
    spec = ProgramSpec(
        component=variant.component,
        input=variant.input,
        dtype=getattr(torch, variant.float_precision),
        rewrites=frozenset(variant.rewrites),
        preprocessing=manifest.preprocessing,
    )
    return Program(read_weights(path, device), manifest.model, spec, options)
