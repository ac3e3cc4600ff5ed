"""What a bundle is compared with: the model as it was trained, in PyTorch or plainly exported to ONNX Runtime.

All baselines compute the official architecture with its additive masks, without any rewrite of this package, and prepare
pictures with the same code as the runtime, by the preprocessing of the bundle: what is compared is the model alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pargo_export.bench.options import BASELINES
from pargo_export.bundle import Bundle
from pargo_export.errors import BundleError, ConfigError
from pargo_export.optional import require

if TYPE_CHECKING:
    from pargo_export.bench.subject import LoadedSubject

__all__ = ["open_baseline", "prepare_baseline"]


def prepare_baseline(
    kind: str, *, bundle: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None
) -> dict[str, dict[str, str]]:
    """Do what takes long and much memory, before anything is loaded: the export of `"onnxruntime"`.

    Args:
        kind: As for `open_baseline`.
        bundle: As for `open_baseline`.
        checkpoint: As for `open_baseline`.

    Returns:
        Further arguments of `open_baseline`, which JSON can hold.

    Raises:
        BundleError: As for `open_baseline`.
        CheckpointError: As for `open_baseline`.
        ConfigError: As for `open_baseline`.
        ExportError: PyTorch cannot export the model, or the export cannot be kept.
        MissingDependencyError: PyTorch or onnxscript is not installed.
    """
    opened, source = _check(kind, bundle, checkpoint)
    if kind != "onnxruntime":
        return {}
    from pargo_export.bench.baseline_export import find_or_export

    exported = find_or_export(opened, source)
    return {"exported": {"path": str(exported.path), "sha256": exported.sha256}}


def open_baseline(
    kind: str,
    *,
    bundle: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str] | None,
    threads: int | None = None,
    exported: Mapping[str, str] | None = None,
) -> LoadedSubject:
    """Load a baseline into this process; for the whole process it sets the threads of PyTorch.

    Args:
        kind: `"torch"` (eager) or `"torch-compile"`, both in FP16 on GPU 0 if PyTorch finds one, else in float32 on the
            CPU; or `"onnxruntime"`: `torch.onnx.export` and a session, as PyTorch's own instructions have it.
        bundle: Directory of the bundle that it is compared with.
        checkpoint: What the bundle was made from.
        threads: CPU threads of a run; `None`: every physical core that this process may use.
        exported: What `prepare_baseline` returned under this name; without it the export is made now.

    Raises:
        BackendError: The library cannot run it here.
        BundleError: There is no bundle, or no variant of it computes the whole model.
        CheckpointError: The checkpoint cannot be read, or the bundle was made from another one.
        ConfigError: There is no such baseline, or no checkpoint was given.
        ExportError: PyTorch cannot export the model, or the export cannot be kept.
        MissingDependencyError: A library is not installed.
    """
    opened, source = _check(kind, bundle, checkpoint)
    if kind == "onnxruntime":
        from pargo_export.bench.baseline_export import ExportedReference
        from pargo_export.bench.baseline_onnxruntime import PlainExport

        given = exported or prepare_baseline(kind, bundle=bundle, checkpoint=source)["exported"]
        return PlainExport(opened, ExportedReference(Path(given["path"]), given["sha256"]), threads)
    require("torch", extra="export", purpose=f"run the baseline {kind}")
    from pargo_export.bench.baseline_torch import TorchBaseline

    return TorchBaseline(opened, source, threads, is_compiled=kind == "torch-compile")


def _check(
    kind: str, bundle: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None
) -> tuple[Bundle, Path]:
    """Return the bundle and the checkpoint, if a baseline can be made of them."""
    if kind not in BASELINES:
        raise ConfigError(f"baseline: found {kind!r}, expected one of {', '.join(BASELINES)}")
    if checkpoint is None:
        raise ConfigError(
            f"baseline {kind}: found no checkpoint, expected the one that the bundle was made from (--checkpoint FILE): "
            "it runs the model as it was trained, and the graphs of a bundle hold rewritten weights"
        )
    opened = Bundle.open(bundle)
    if not any(variant.component == "all" for variant in opened.manifest.variants.values()):
        raise BundleError(
            f"bundle {bundle}: found no variant of the whole model, which is what a baseline computes; export one"
        )
    return opened, Path(checkpoint)
