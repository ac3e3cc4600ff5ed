"""What `manifest.json` says, as typed records.

The schema version is `MAJOR.MINOR`. A minor version adds fields, which older readers keep; a major
version changes the meaning of existing ones, and is refused by readers of another major.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from pargo_export._version import __version__
from pargo_export.bundle.calibration import Calibration
from pargo_export.bundle.engine import Engine
from pargo_export.bundle.fields import BundlePath, Count, Sha256
from pargo_export.bundle.hashing import recipe_sha256
from pargo_export.bundle.paths import check_relative
from pargo_export.bundle.variant import Variant
from pargo_export.config import ModelConfig, Record
from pargo_export.errors import BundleError, ConfigError
from pargo_export.preprocessing import PreprocessSpec

__all__ = ["SCHEMA_VERSION", "CheckpointSource", "FileRecord", "Manifest"]

SCHEMA_VERSION = "1.3"  # 1.1: calibrations, quantization of a variant; 1.2: engines; 1.3: evidence on a task
_CHECKPOINT_PREFIX = "checkpoint:"


def _check_parent(parent: str) -> str:
    if not parent.startswith(_CHECKPOINT_PREFIX):
        return check_relative(parent)
    digest = parent.removeprefix(_CHECKPOINT_PREFIX)
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"parent {parent!r} is not 'checkpoint:' and 64 lower-case hexadecimal digits")
    return parent


class FileRecord(Record):
    """One file of the bundle.

    Attributes:
        sha256: Hash of the content.
        size_bytes: Size of the content.
        stage: The stage that wrote it, for example `"graph"`.
        parents: What it was made from: bundle files, or `"checkpoint:<sha256>"`.
    """

    sha256: Sha256
    size_bytes: Count
    stage: str
    parents: tuple[Annotated[str, AfterValidator(_check_parent)], ...] = ()


class CheckpointSource(Record):
    """The checkpoint that the bundle was made from.

    Attributes:
        files: Names of its files, without directories.
        sha256: Hash of the file, or of all files together (`bundle.sha256_files`).
        dtypes: Dtypes that the tensors were stored in, for example `("bfloat16",)`.
        num_parameters: Parameters of the tower and the projector.
        ignored: Tensors that are no part of the front-end, by group: `{"language model": 291}`.
    """

    files: tuple[str, ...]
    sha256: Sha256
    dtypes: tuple[str, ...]
    num_parameters: Count
    ignored: dict[str, Count] = Field(default_factory=dict)


class Manifest(Record):
    """The whole description of a bundle.

    Attributes:
        schema_version: Version of this schema.
        written_by: Version of pargo-export that wrote the manifest last.
        model: The architecture and the tile grid.
        preprocessing: How pictures become inputs.
        source: The checkpoint.
        variants: The graphs, by name.
        calibrations: Passes over calibration images, by name.
        engines: TensorRT engines, by name.
        files: Every file of the bundle but the manifest itself, by path.
        tools: Versions of the tools that made the files, for example `{"torch": "2.9.0"}`.
    """

    schema_version: str = SCHEMA_VERSION
    written_by: str = __version__
    model: ModelConfig
    preprocessing: PreprocessSpec
    source: CheckpointSource
    variants: dict[str, Variant] = Field(default_factory=dict)
    calibrations: dict[str, Calibration] = Field(default_factory=dict)
    engines: dict[str, Engine] = Field(default_factory=dict)
    files: dict[BundlePath, FileRecord] = Field(default_factory=dict)
    tools: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _check_schema_version(cls, values: Any) -> Any:
        if isinstance(values, dict):
            _require_same_major(
                values.get("schema_version", SCHEMA_VERSION), values.get("written_by", "unknown")
            )
        return values

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        for name, variant in self.variants.items():
            if variant.name != name:
                raise ValueError(f"variant {name!r} calls itself {variant.name!r}")
            if variant.graph not in self.files:
                raise ValueError(f"variant {name!r} needs {variant.graph!r}, which files does not list")
        for name, calibration in self.calibrations.items():
            if calibration.name != name:
                raise ValueError(f"calibration {name!r} calls itself {calibration.name!r}")
            missing = sorted(set(calibration.files) - set(self.files))
            if missing:
                raise ValueError(
                    f"calibration {name!r} needs {', '.join(missing)}, which files does not list"
                )
        return self

    @model_validator(mode="after")
    def _check_engines(self) -> Self:
        for name, engine in self.engines.items():
            if engine.name != name:
                raise ValueError(f"engine {name!r} calls itself {engine.name!r}")
            if engine.variant not in self.variants:
                raise ValueError(f"engine {name!r} is of variant {engine.variant!r}, which does not exist")
            missing = sorted(set(engine.files) - set(self.files))
            if missing:
                raise ValueError(f"engine {name!r} needs {', '.join(missing)}, which files does not list")
            file = self.files[engine.file]
            if engine.engine_sha256 != file.sha256:
                raise ValueError(f"engine {name!r} has sha256 {engine.engine_sha256}, its file {file.sha256}")
            if engine.size_bytes != file.size_bytes:
                raise ValueError(f"engine {name!r} has {engine.size_bytes} bytes, its file {file.size_bytes}")
        return self

    @classmethod
    def from_json(cls, text: bytes, *, source: str) -> Self:
        """Read a manifest; `source` names it in messages.

        Raises:
            BundleError: It is not JSON (for example cut short), of another schema version, or has a field
                that is missing, of the wrong type, or a path that leaves the bundle.
        """
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BundleError(
                f"{source} is not valid JSON ({error}); it may be cut short: copy the bundle again, or export it again"
            ) from error
        if not isinstance(values, dict) or "schema_version" not in values:
            raise BundleError(
                f"{source} is not the manifest of a bundle: it has no schema_version; export again"
            )
        try:
            return cls.parse(values, source=source)
        except ConfigError as error:
            raise BundleError(f"{error}; copy the bundle again, or export it again") from error
        except BundleError as error:
            raise BundleError(f"{source}: {error}") from error

    def to_json(self) -> bytes:
        """Text of the manifest: the same for the same content, unknown fields included.

        Raises:
            BundleError: A number is not finite.
        """
        try:
            text = json.dumps(
                self.model_dump(mode="json"), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False
            )
        except ValueError as error:
            raise BundleError(f"the manifest cannot be written: {error}; numbers must be finite") from error
        return text.encode() + b"\n"

    def files_of(self, graph: str) -> tuple[str, ...]:
        """List the files of a graph: itself, then the weights beside it (`<graph>.data`)."""
        return (graph, *sorted(path for path in self.files if path.startswith(f"{graph}.")))

    def graph_sha256(self, graph: str) -> str:
        """Hash a graph and its weights together: what an engine was built from."""
        return recipe_sha256({path: self.files[path].sha256 for path in self.files_of(graph)})

    def merged(
        self,
        *,
        variants: Iterable[Variant] = (),
        calibrations: Iterable[Calibration] = (),
        engines: Iterable[Engine] = (),
        files: Mapping[str, FileRecord] | None = None,
        tools: Mapping[str, str] | None = None,
        without: Iterable[str] = (),
    ) -> Manifest:
        """Return a copy with entries added or replaced, as written by this version of pargo-export.

        Args:
            variants: Variants to add or replace, by their names.
            calibrations: Calibrations to add or replace, by their names.
            engines: Engines to add or replace, by their names.
            files: Files to add or replace.
            tools: Tool versions to add or replace.
            without: Files to drop; an engine whose file is among them is dropped too.

        Raises:
            BundleError: A path may leave the bundle.
            ConfigError: The result contradicts itself.
        """
        dropped = set(without)
        kept = {path: record for path, record in self.files.items() if path not in dropped}
        changes = {
            "schema_version": max(self.schema_version, SCHEMA_VERSION, key=_minor_version),
            "written_by": __version__,
            "variants": self.variants | {variant.name: variant for variant in variants},
            "calibrations": self.calibrations | {item.name: item for item in calibrations},
            "engines": {name: engine for name, engine in self.engines.items() if engine.file not in dropped}
            | {engine.name: engine for engine in engines},
            "files": kept | dict(files or {}),
            "tools": self.tools | dict(tools or {}),
        }
        return Manifest.parse(self.model_copy(update=changes).model_dump(), source="manifest")


def _require_same_major(version: object, writer: object) -> None:
    major, _, minor = str(version).partition(".")
    own_major = SCHEMA_VERSION.partition(".")[0]
    if not (major.isdecimal() and minor.isdecimal()):
        raise BundleError(f"schema_version {version!r} is not MAJOR.MINOR, for example {SCHEMA_VERSION!r}")
    if major != own_major:
        raise BundleError(
            f"the bundle has schema {version}, written by pargo-export {writer}; this is pargo-export {__version__}, "
            f"which reads schema {own_major}.x: install the version that wrote it, or export again with this one"
        )


def _minor_version(version: str) -> int:
    return int(version.partition(".")[2])


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
