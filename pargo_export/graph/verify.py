"""Check a bundle: against itself, and against the checkpoint that it was made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pargo_export.bundle import Bundle
from pargo_export.bundle.store import read_manifest
from pargo_export.errors import IntegrityError
from pargo_export.graph.check import Check
from pargo_export.graph.graph_checks import check_graph
from pargo_export.optional import require

if TYPE_CHECKING:
    from pargo_export.checkpoint.config_file import ConfigSource

__all__ = ["Check", "VerifyReport", "verify"]


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        bundle: The directory.
        checks: Everything that was checked, in order.
    """

    bundle: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.ok)


def verify(
    bundle: Bundle | str | os.PathLike[str],
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    config: ConfigSource | None = None,
    vision_checkpoint: str | os.PathLike[str] | None = None,
    variant: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> VerifyReport:
    """Check the files and graphs of a bundle; what is wrong is reported, not raised.

    Args:
        bundle: The bundle, or its directory.
        checkpoint: The checkpoint that it should have been made from: weights are compared, and every graph is
            held against the PyTorch reference again. Without it nothing here needs PyTorch.
        config: Configuration of the checkpoint, as for `load_checkpoint`.
        vision_checkpoint: Checkpoint of the tower, as for `load_checkpoint`.
        variant: Check the graph of this variant only; files are checked anyway.
        progress: Called with a short text at the start of each step.

    Raises:
        BundleError: There is no bundle, its manifest cannot be read, or it has no such variant.
        CheckpointError: The checkpoint cannot be read.
        ConfigError: The configuration of the checkpoint is incomplete or contradicts it.
        MissingDependencyError: A checkpoint was given, but PyTorch is not installed.
    """
    if not isinstance(bundle, Bundle):
        bundle = _open(Path(bundle))
    if checkpoint is not None:
        require("torch", extra="export", purpose="compare a bundle with its checkpoint")
    by_name = bundle.manifest.variants
    variants = [by_name[name] for name in sorted(by_name)] if variant is None else [bundle.variant(variant)]
    progress("hashing the files")
    checks = [_check_manifest(bundle), *_check_files(bundle)]
    for item in variants:
        progress(f"checking {item.name}")
        checks += check_graph(bundle, item)
    if checkpoint is not None:
        from pargo_export.graph.reference_checks import check_against_checkpoint

        checks += check_against_checkpoint(
            bundle,
            variants,
            Path(checkpoint),
            config=config,
            vision_checkpoint=None if vision_checkpoint is None else Path(vision_checkpoint),
            progress=progress,
        )
    return VerifyReport(bundle.path, tuple(checks))


def _open(path: Path) -> Bundle:
    """Open a bundle even if one of its files is missing or cut short: that is for the checks to say."""
    try:
        return Bundle.open(path)
    except IntegrityError:
        manifest = read_manifest(path)
        if manifest is None:
            raise
        return Bundle(path, manifest)


def _check_manifest(bundle: Bundle) -> Check:
    manifest = bundle.manifest
    if not manifest.variants:
        return Check("manifest.json", ok=False, detail="it has no variants; export one")
    detail = f"schema {manifest.schema_version}, written by pargo-export {manifest.written_by}"
    return Check("manifest.json", ok=True, detail=detail)


def _check_files(bundle: Bundle) -> list[Check]:
    records = bundle.manifest.files
    return [
        Check(found.path, found.ok, found.reason or f"sha256 {records[found.path].sha256[:12]}")
        for found in bundle.verify()
    ]
