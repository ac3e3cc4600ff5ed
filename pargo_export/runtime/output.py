"""Write visual tokens to a file, with where they come from."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from pargo_export._version import __version__
from pargo_export.bundle import atomic_write, sha256_bytes
from pargo_export.errors import InputError, PargoExportError
from pargo_export.runtime.runner import Array
from pargo_export.runtime.runtime import Runtime

__all__ = ["METADATA_NAME", "describe_provenance", "write_tokens"]

METADATA_NAME = "__metadata__"


def describe_provenance(runtime: Runtime, image_names: Iterable[str]) -> dict[str, str]:
    """Return what the outputs of a runtime come from, as metadata for `write_tokens`.

    Args:
        runtime: What computed them.
        image_names: The images, in the order of the batch axis.
    """
    manifest, variant = runtime.bundle.manifest, runtime.variant
    outputs = {spec.name: {"dtype": spec.dtype, "axes": spec.shape} for spec in variant.signature.outputs}
    engine = runtime.engine
    of_engine = {} if engine is None else {"engine": engine.name, "engine_sha256": engine.engine_sha256}
    return of_engine | {
        "backend": runtime.backend,
        "bundle_sha256": sha256_bytes(manifest.to_json()),
        "component": variant.component,
        "graph_sha256": manifest.files[variant.graph].sha256,
        "images": json.dumps(list(image_names), ensure_ascii=False),
        "outputs": json.dumps(outputs),
        "pargo_export_version": __version__,
        "precision": variant.precision,
        "variant": variant.name,
    }


def write_tokens(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write arrays by name, atomically, in the format that the suffix names.

    Args:
        path: `*.safetensors`, with the metadata in its header; or `*.npz`, with the metadata as JSON text
            in the entry `__metadata__`. The directory must exist.
        arrays: What to write, for example `{"visual_tokens": float32 [B, Q, C_llm]}`.
        metadata: Where it comes from.
        overwrite: Replace an existing file.

    Returns:
        The path.

    Raises:
        InputError: Another suffix, no arrays, a reserved name, or the file exists and may not be replaced.
        PargoExportError: The file cannot be written.
    """
    path = Path(path)
    encoders = {".npz": _encode_npz, ".safetensors": _encode_safetensors}
    encode = encoders.get(path.suffix.lower())
    if encode is None:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; use .safetensors or .npz")
    if not arrays or METADATA_NAME in arrays:
        raise InputError(
            f"{path}: found arrays {sorted(arrays)}, expected at least one, none {METADATA_NAME!r}"
        )
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} exists; choose another name, or allow overwriting")
    content = encode({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata))
    try:
        atomic_write(path, content)
    except OSError as error:
        raise PargoExportError(
            f"{path} cannot be written: {error}; check that the directory exists, is writable and has free space"
        ) from error
    return path


def _encode_safetensors(arrays: dict[str, Array], metadata: dict[str, str]) -> bytes:
    return save(arrays, metadata)


def _encode_npz(arrays: dict[str, Array], metadata: dict[str, str]) -> bytes:
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # unlike numpy.savez: any name, the same bytes every time
        for name, array in {**arrays, METADATA_NAME: np.array(text)}.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return file.getvalue()
