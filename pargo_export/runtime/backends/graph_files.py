"""Find the files of a variant and see that they are the ones that the manifest describes."""

from __future__ import annotations

from pathlib import Path

from pargo_export.bundle import Bundle, Variant
from pargo_export.bundle.store import require_size

__all__ = ["check_graph", "list_graph_files"]


def list_graph_files(bundle: Bundle, variant: Variant) -> tuple[str, ...]:
    """Bundle files of a variant: its graph, and the weights beside it (`<graph>.data`)."""
    prefix = f"{variant.graph}."
    weights = sorted(relative for relative in bundle.manifest.files if relative.startswith(prefix))
    return (variant.graph, *weights)


def check_graph(bundle: Bundle, variant: Variant, *, verify: bool) -> Path:
    """Return the path of the graph, after comparing all its files with the manifest.

    Args:
        bundle: The bundle.
        variant: One of its variants.
        verify: Hash the files (about a second a gigabyte), not only compare their sizes.

    Raises:
        IntegrityError: A file is missing or differs.
    """
    for relative in list_graph_files(bundle, variant):
        if verify:
            bundle.check(relative)
        else:
            require_size(bundle.path, relative, bundle.manifest.files[relative])
    return bundle.file(variant.graph)
