"""Take an engine out of a bundle."""

from __future__ import annotations

import os

from pargo_export.bundle import Bundle, BundleTransaction
from pargo_export.errors import BundleError

__all__ = ["drop_engine"]


def drop_engine(path: str | os.PathLike[str], name: str) -> Bundle:
    """Remove an engine, its sidecar, and the plugin libraries that no other engine needs.

    Args:
        path: The bundle.
        name: Name of the engine.

    Raises:
        BundleError: There is no such engine, or the bundle cannot be written.
    """
    with BundleTransaction(path) as transaction:
        manifest = transaction.previous
        if manifest is None or name not in manifest.engines:
            raise BundleError(f"bundle {path} has no engine {name!r}; it was removed meanwhile")
        engines = manifest.engines
        needed = {file for item in engines.values() if item.name != name for file in item.files}
        transaction.commit(manifest.merged(without=set(engines[name].files) - needed))
    return Bundle.open(path)
