"""See that the files of a variant are the ones that the manifest describes."""

from __future__ import annotations

from pathlib import Path

from pargo_export.bundle import Bundle, Variant
from pargo_export.bundle.store import require_size

__all__ = ["check_graph"]


def check_graph(bundle: Bundle, variant: Variant, *, verify: bool) -> Path:
    """Return the path of the graph, after comparing all its files with the manifest.

    Args:
        bundle: The bundle.
        variant: One of its variants.
        verify: Hash the files (about a second a gigabyte), not only compare their sizes.

    Raises:
        IntegrityError: A file is missing or differs.
    """
    for relative in bundle.manifest.files_of(variant.graph):
        if verify:
            bundle.check(relative)
        else:
            require_size(bundle.path, relative, bundle.manifest.files[relative])
    return bundle.file(variant.graph)
