"""The sidecar: the record of an engine as a file beside it, for people and tools that look at the engine alone."""

from __future__ import annotations

import json
import os
from typing import Any

from pargo_export.bundle import SCHEMA_VERSION, Bundle, BundleTransaction, Engine, FileRecord
from pargo_export.errors import BundleError, ConfigError, IntegrityError

__all__ = ["check_sidecar", "read_sidecar", "sidecar_bytes", "stage_sidecar", "store_record"]

_STAGE = "engine"


def sidecar_bytes(engine: Engine) -> bytes:
    """Text of a sidecar: the same for the same record, unknown fields included.

    Raises:
        BundleError: A number is not finite.
    """
    values = {"schema_version": SCHEMA_VERSION, "engine": engine.model_dump(mode="json")}
    try:
        text = json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise BundleError(
            f"the sidecar of engine {engine.name} cannot be written: {error}; numbers must be finite"
        ) from error
    return text.encode() + b"\n"


def stage_sidecar(transaction: BundleTransaction, engine: Engine) -> FileRecord:
    """Write the sidecar into a transaction and return the record for `engine.sidecar` in the manifest.

    Raises:
        BundleError: A number is not finite, or the file cannot be written.
    """
    transaction.stage(engine.sidecar).write_bytes(sidecar_bytes(engine))
    return transaction.record(engine.sidecar, stage=_STAGE, parents=[engine.file])


def store_record(path: str | os.PathLike[str], engine: Engine) -> None:
    """Replace the record of an engine that is in the bundle, in manifest and sidecar: evidence or a timing was added.

    Args:
        path: The bundle.
        engine: The record; the serialized engine stays as it is.

    Raises:
        BundleError: There is no such engine in the bundle, the record is of another file, or the bundle cannot be written.
    """
    with BundleTransaction(path) as transaction:
        manifest = transaction.previous
        old = manifest.engines.get(engine.name) if manifest is not None else None
        if manifest is None or old is None:
            raise BundleError(
                f"bundle {path} has no engine {engine.name!r}; build it with `pargo-export trt`"
            )
        if (old.engine_sha256, old.sidecar) != (engine.engine_sha256, engine.sidecar):
            raise BundleError(
                f"engine {engine.name!r} of bundle {path} was built again meanwhile; measure the new one"
            )
        record = stage_sidecar(transaction, engine)
        transaction.commit(manifest.merged(engines=[engine], files={engine.sidecar: record}))


def read_sidecar(text: bytes, *, source: str) -> Engine:
    """Read the text of a sidecar; `source` names it in messages.

    Raises:
        BundleError: It is no sidecar, or a field is missing or of the wrong type.
    """
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source} is not valid JSON ({error}); build the engine again") from error
    if not isinstance(values, dict) or "engine" not in values:
        raise BundleError(f"{source} is not the sidecar of an engine; build the engine again")
    try:
        return Engine.parse(values["engine"], source=source)
    except ConfigError as error:
        raise BundleError(f"{error}; build the engine again") from error


def check_sidecar(bundle: Bundle, engine: Engine) -> None:
    """Compare the sidecar of an engine with its record in the manifest.

    Raises:
        IntegrityError: The file is not the one that the manifest describes, or the two disagree; the message names
            the fields.
        BundleError: The file is no sidecar.
    """
    path = bundle.check(engine.sidecar)
    found = read_sidecar(path.read_bytes(), source=str(path)).model_dump(mode="json")
    expected = engine.model_dump(mode="json")
    different = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    if different:
        raise IntegrityError(
            f"bundle {bundle.path}: {engine.sidecar} and the manifest disagree about {', '.join(different)}; copy the "
            "bundle again, or build the engine again"
        )
