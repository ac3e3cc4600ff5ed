"""One TensorRT engine of a bundle: what it was built from, for which device, and what was found in it.

An engine is code for one kind of GPU and one version of TensorRT. The record says all that decides whether it
may be loaded; it stands in the manifest, and beside the engine as its sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pargo_export.bundle.fields import BundlePath, Count, Positive, Sha256
from pargo_export.bundle.variant import VARIANT_NAME, Evidence
from pargo_export.config import Record

__all__ = [
    "BatchProfile",
    "BuiltAsAsked",
    "Engine",
    "EngineDevice",
    "EngineTiming",
    "Flavor",
    "PluginRequirement",
    "default_engine_name",
]

Flavor = Literal["tensorrt", "rtx"]
Capability = Annotated[str, Field(pattern=r"^\d+\.\d+$")]  # "8.7"
Version = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+")]  # "10.13.3.9"


class BatchProfile(Record):
    """The batch sizes of one optimization profile.

    Attributes:
        min_batch: Smallest batch.
        opt_batch: The batch that kernels are chosen for.
        max_batch: Largest batch.
    """

    min_batch: Positive
    opt_batch: Positive
    max_batch: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            raise ValueError(
                f"batch sizes {self.min_batch}, {self.opt_batch}, {self.max_batch} are not in ascending order"
            )
        return self

    def __str__(self) -> str:
        return f"{self.min_batch}-{self.opt_batch}-{self.max_batch}"


class EngineDevice(Record):
    """The machine that an engine was built on; empty texts are unknown.

    Attributes:
        name: Name of the GPU.
        compute_capability: For example `"8.7"` (Orin).
        memory_bytes: Its memory.
        platform: Operating system and processor, for example `"linux-aarch64"`.
        driver: Version of the NVIDIA driver.
        cuda: Newest CUDA that the driver runs, for example `"12.6"`.
        jetson: Model of the Jetson; empty on other machines.
        l4t: Release of Jetson Linux, for example `"36.4.3"`.
        jetpack: JetPack of that release, for example `"6.2"`.
    """

    name: str = ""
    compute_capability: Capability | Literal[""] = ""
    memory_bytes: Count = 0
    platform: str
    driver: str = ""
    cuda: str = ""
    jetson: str = ""
    l4t: str = ""
    jetpack: str = ""

    @property
    def is_jetson(self) -> bool:
        """Whether it is a Jetson."""
        return bool(self.jetson)

    def __str__(self) -> str:
        gpu = self.name or ("GPU" if self.compute_capability else "no GPU")
        capability = f"compute capability {self.compute_capability}" if self.compute_capability else ""
        jetpack = f"JetPack {self.jetpack}" if self.jetpack else ""
        l4t = f"Jetson Linux {self.l4t}" if self.l4t and not jetpack else ""
        return ", ".join(filter(None, (gpu, capability, self.platform, jetpack, l4t)))


class PluginRequirement(Record):
    """Code beyond TensorRT that an engine needs to be loaded.

    Attributes:
        operators: Nodes that it takes over, for example `("pargo::PartialGlobalAttention",)`.
        kind: `library`: a shared library, carried in the bundle; `python`: creators registered by a Python package.
        file: The shared library in the bundle; `None` for `python`.
        sha256: Hash of the library, or of the Python package's sources and kernels that the engine relies on.
        package: For `python`: `"pargo_kernels 0.4.0"`, else empty.
    """

    operators: tuple[str, ...]
    kind: Literal["library", "python"]
    file: BundlePath | None = None
    sha256: Sha256
    package: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "library") != (self.file is not None):
            raise ValueError(
                f"a plugin of kind {self.kind!r} has file {self.file!r}; a library has one, a package none"
            )
        return self


class BuiltAsAsked(Record):
    """What the built engine computes in, held against what was asked for.

    Attributes:
        source: Where it was read: `inspector` (kernels of the engine), `network` (the typed network that was handed
            to the builder; the engine could not be loaded on this machine).
        asked: Precision of the variant.
        linears: Products with a weight, by the precision that they are computed in.
        flops: Their floating-point operations for one image, by precision; a multiply-add is two.
        share: Part of the operations of the linears that were to be in the precision asked for, and are.
        limit: Smallest share that was accepted.
        attention: How the attention of the query layers is computed: `plugin`, `fused kernel`, `decomposed`, `unknown`.
        casts: Unexpected conversions, by layer name.
        passed: Whether the share is within the limit.
        notes: Remarks for the reader.
    """

    source: Literal["inspector", "network"]
    asked: str
    linears: dict[str, Count]
    flops: dict[str, float]
    share: float
    limit: float
    attention: str = "unknown"
    casts: tuple[str, ...] = ()
    passed: bool
    notes: tuple[str, ...] = ()


class EngineTiming(Record):
    """A short measurement after the build, to compare engines of one bundle on one device.

    Attributes:
        batch: Images at once.
        median_ms: Median time of one run, milliseconds: from pixels in the memory of the host to visual tokens there.
        num_runs: Runs measured.
    """

    batch: Positive
    median_ms: float
    num_runs: Positive


class Engine(Record):
    """One serialized engine.

    Attributes:
        name: Name in the bundle, for example `"fp16-sm87"`.
        variant: The variant that it was built from.
        file: The serialized engine in the bundle.
        sidecar: This record as a file beside the engine.
        flavor: `tensorrt` or `rtx` (TensorRT for RTX).
        tensorrt_version: Version that built it, and that can load it.
        compute_capabilities: GPUs that it was built for, for example `("8.7",)`; empty: what TensorRT for RTX builds
            for by default, every GPU from 8.0 on that it serves.
        device: The machine that built it.
        profiles: Batch sizes, one profile each.
        graph_sha256: Hash of the variant's graph and weights (`Manifest.graph_sha256`) when it was built.
        engine_sha256: Hash of the serialized engine.
        size_bytes: Its size.
        attention: Attention form that was built: that of the variant, `"structured"` if its functions had to be inlined.
        plugins: Code that it needs beyond TensorRT.
        settings: Builder settings that were used, for people and for the rebuild command.
        built_as_asked: What was found in it.
        evidence: Agreement with the float32 variant on the device; `None` if it was not run.
        timing: How long it takes on the device; `None` if it was not run.
        build_seconds: Duration of the build.
        peak_memory_bytes: Peak memory of the process during the build.
        recipe_sha256: Hash of everything that decides it; a different hash means that it is stale.
    """

    name: Annotated[str, Field(pattern=VARIANT_NAME)]
    variant: str
    file: BundlePath
    sidecar: BundlePath
    flavor: Flavor
    tensorrt_version: Version
    compute_capabilities: tuple[Capability, ...]
    device: EngineDevice
    profiles: tuple[BatchProfile, ...] = Field(min_length=1)
    graph_sha256: Sha256
    engine_sha256: Sha256
    size_bytes: Positive
    attention: str
    plugins: tuple[PluginRequirement, ...] = ()
    settings: dict[str, str | int | float | bool] = Field(default_factory=dict)
    built_as_asked: BuiltAsAsked
    evidence: Evidence | None = None
    timing: EngineTiming | None = None
    build_seconds: float
    peak_memory_bytes: Count
    recipe_sha256: Sha256

    @property
    def max_batch(self) -> int:
        """Largest batch of all profiles."""
        return max(profile.max_batch for profile in self.profiles)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is made of and needs, as paths in the bundle."""
        return (self.file, self.sidecar, *(item.file for item in self.plugins if item.file is not None))


def default_engine_name(variant: str, flavor: Flavor, capabilities: Iterable[str]) -> str:
    """Name of an engine that was given none: `fp16-sm87`, `int8-rtx`, `fp16-rtx-sm86-sm89`.

    Args:
        variant: Name of the variant.
        flavor: What builds it.
        capabilities: GPUs that it is built for; none for the default of `rtx`.
    """
    words = [f"sm{item.replace('.', '')}" for item in capabilities]
    if flavor == "rtx":
        words.insert(0, "rtx")
        variant = variant.removesuffix("-rtx")  # a variant made for that target says so already
    return "-".join([variant, *words])
