"""When two builds are the same, and when one may take the place of another."""

from __future__ import annotations

from collections.abc import Sequence

from pargo_export._version import __version__
from pargo_export.bundle import BatchProfile, Engine, EngineDevice, Variant, recipe_sha256
from pargo_export.engine.options import EngineOptions
from pargo_export.errors import EngineError
from pargo_export.trt import TensorRT

__all__ = ["engine_recipe", "require_replaceable"]


def engine_recipe(
    graph_sha256: str,
    tensorrt: TensorRT,
    device: EngineDevice,
    capabilities: Sequence[str],
    profiles: Sequence[BatchProfile],
    options: EngineOptions,
    plugin_hashes: Sequence[str],
) -> str:
    """Hash everything that decides an engine.

    Args:
        graph_sha256: Hash of the graph with its weights.
        tensorrt: What builds.
        device: This machine. It counts for TensorRT, which measures on it; RTX builds the same engine everywhere.
        capabilities: Compute capabilities of the engine.
        profiles: Batch sizes.
        options: The other settings.
        plugin_hashes: Hashes of code whose plugins may get into the engine.
    """
    is_measured = tensorrt.flavor == "tensorrt"
    return recipe_sha256(
        {
            "graph": graph_sha256,
            "flavor": tensorrt.flavor,
            "tensorrt": tensorrt.version,
            "device": [device.name, device.platform, device.l4t] if is_measured else [],
            "capabilities": list(capabilities),
            "profiles": [str(profile) for profile in profiles],
            "settings": options.settings(),
            "plugins": list(plugin_hashes),
            "pargo-export": __version__,
        }
    )


def require_replaceable(
    existing: Engine, variant: Variant, profiles: Sequence[BatchProfile], options: EngineOptions
) -> None:
    """See that the new engine is the old one made anew: for a changed graph, another version or another device.

    Raises:
        EngineError: They differ in what was asked for; the message names it.
    """
    differences = []
    if existing.variant != variant.name:
        differences.append(f"variant {existing.variant}")
    if existing.profiles != tuple(profiles):
        differences.append(f"batches {', '.join(map(str, existing.profiles))}")
    if existing.flavor == "rtx" and existing.compute_capabilities != options.capabilities:
        differences.append(f"compute capability {', '.join(existing.compute_capabilities) or 'by default'}")
    wanted = options.settings()
    names = sorted(wanted.keys() | existing.settings.keys())
    differences += [
        f"{name} {existing.settings.get(name, 'by default')}"
        for name in names
        if existing.settings.get(name) != wanted.get(name)
    ]
    if differences:
        raise EngineError(
            f"the bundle already has an engine {existing.name!r}, built otherwise ({'; '.join(differences)}); choose "
            "another name (--name), or replace it (--force, force=True)"
        )
