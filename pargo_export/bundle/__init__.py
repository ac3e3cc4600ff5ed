"""The bundle: one directory that every stage reads and extends.

Reading is `Bundle.open`; writing is `BundleTransaction`, which a crash cannot leave half done. The
records are what `manifest.json` contains.
"""

from __future__ import annotations

from pargo_export.bundle.atomic import atomic_write
from pargo_export.bundle.calibration import Calibration
from pargo_export.bundle.engine import (
    BatchProfile,
    BuiltAsAsked,
    Engine,
    EngineDevice,
    EngineTiming,
    Flavor,
    PluginRequirement,
    default_engine_name,
)
from pargo_export.bundle.hashing import recipe_sha256, sha256_bytes, sha256_file, sha256_files
from pargo_export.bundle.lock import BundleLockedError
from pargo_export.bundle.record_file import read_record_file, write_record_file
from pargo_export.bundle.schema import SCHEMA_VERSION, CheckpointSource, FileRecord, Manifest
from pargo_export.bundle.store import Bundle, FileCheck
from pargo_export.bundle.task_evidence import ScorePair, TaskEvidence
from pargo_export.bundle.transaction import BundleTransaction
from pargo_export.bundle.variant import (
    VARIANT_NAME,
    Component,
    Dialect,
    Evidence,
    InputKind,
    Limits,
    Precision,
    Quantization,
    StageEvidence,
    Variant,
)

__all__ = [
    "SCHEMA_VERSION",
    "VARIANT_NAME",
    "BatchProfile",
    "BuiltAsAsked",
    "Bundle",
    "BundleLockedError",
    "BundleTransaction",
    "Calibration",
    "CheckpointSource",
    "Component",
    "Dialect",
    "Engine",
    "EngineDevice",
    "EngineTiming",
    "Evidence",
    "FileCheck",
    "FileRecord",
    "Flavor",
    "InputKind",
    "Limits",
    "Manifest",
    "PluginRequirement",
    "Precision",
    "Quantization",
    "ScorePair",
    "StageEvidence",
    "TaskEvidence",
    "Variant",
    "atomic_write",
    "default_engine_name",
    "read_record_file",
    "recipe_sha256",
    "sha256_bytes",
    "sha256_file",
    "sha256_files",
    "write_record_file",
]
