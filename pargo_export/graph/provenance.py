"""Where a graph comes from: hashes of weights and recipe, versions of the tools."""

from __future__ import annotations

import hashlib
from importlib import metadata

import torch

from pargo_export._version import __version__
from pargo_export.bundle import CheckpointSource, recipe_sha256
from pargo_export.config import ModelConfig
from pargo_export.graph.options import ExportOptions
from pargo_export.model.frontend import VisualFrontEnd
from pargo_export.preprocessing import PreprocessSpec

__all__ = ["checkpoint_source", "export_recipe", "tool_versions", "weights_sha256"]

_TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy", "pillow")


def weights_sha256(model: VisualFrontEnd) -> str:
    """Hash every weight with its name and shape: what was exported, however it came into memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        # A view of the bytes: no copy, and it works for dtypes that NumPy lacks.
        digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tool_versions() -> dict[str, str]:
    """Versions of the packages that decide the bytes of a graph."""
    return {name: metadata.version(name) for name in _TOOLS}


def checkpoint_source(model: VisualFrontEnd, digest: str) -> CheckpointSource:
    """Describe the checkpoint for the manifest; a model made in memory names no files."""
    report = model.report
    if report is None:
        dtypes = tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in model.parameters()}))
        return CheckpointSource(
            files=(), sha256=digest, dtypes=dtypes, num_parameters=sum(p.numel() for p in model.parameters())
        )
    return CheckpointSource(
        files=tuple(record.name for record in report.files),
        sha256=digest,
        dtypes=tuple(report.stored_dtypes),
        num_parameters=report.num_parameters,
        ignored={group.name: group.num_tensors for group in report.ignored},
    )


def export_recipe(
    digest: str, config: ModelConfig, options: ExportOptions, spec: PreprocessSpec, rewrites: list[str]
) -> str:
    """Hash everything that decides the bytes of the graph."""
    return recipe_sha256(
        {
            "weights": digest,
            "config": config.model_dump(mode="json"),
            "options": options.recipe(),
            "preprocessing": spec.model_dump(mode="json"),
            "rewrites": rewrites,
            "tools": tool_versions() | {"pargo-export": __version__},
        }
    )
