"""Records of the machine that a benchmark ran on."""

from __future__ import annotations

from pydantic import Field

from pargo_export.config import Record

__all__ = ["CpuState", "Environment", "GpuState", "JetsonState"]


class CpuState(Record):
    """The processor, as it was set while the benchmark ran.

    Attributes:
        model: Its name.
        num_usable_cores: Physical cores that the process may use.
        num_logical_cores: Logical cores of the machine.
        features: Instruction sets that matter.
        governor: Frequency governor; `None` if the machine does not tell.
        turbo: Whether it may exceed its base clock; `None` if unknown.
        clock_mhz: Mean clock of its cores when the benchmark began; `None` if unknown.
        load_average: Of the last minute, when the benchmark began.
        is_virtual: Whether a hypervisor runs below; `None` if unknown.
    """

    model: str
    num_usable_cores: int
    num_logical_cores: int
    features: tuple[str, ...]
    governor: str | None = None
    turbo: bool | None = None
    clock_mhz: float | None = None
    load_average: float | None = None
    is_virtual: bool | None = None


class GpuState(Record):
    """A GPU.

    Attributes:
        name: For example `"NVIDIA H100 80GB HBM3"`.
        compute_capability: For example `"9.0"`.
        memory_bytes: Its memory.
        clock_mhz: Clock of its cores when the benchmark began; `None` if unknown.
        max_clock_mhz: Largest clock; `None` if unknown.
        memory_clock_mhz: Clock of its memory; `None` if unknown.
        power_limit_w: Power limit; `None` if unknown.
        temperature_c: When the benchmark began; `None` if unknown.
        persistence_mode: Whether the driver stays loaded; `None` if unknown.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    clock_mhz: float | None = None
    max_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    persistence_mode: bool | None = None


class JetsonState(Record):
    """A Jetson.

    Attributes:
        model: Its name.
        l4t: Release of Jetson Linux.
        jetpack: JetPack of that release; `None` if unknown.
        power_mode: Name of the nvpmodel mode, for example `"MAXN"`; `None` if unknown.
        jetson_clocks: Whether the clocks are fixed at their largest; `None` if unknown.
    """

    model: str
    l4t: str
    jetpack: str | None = None
    power_mode: str | None = None
    jetson_clocks: bool | None = None


class Environment(Record):
    """The machine and the software.

    Attributes:
        platform: Operating system.
        python: Version of the interpreter.
        cpu: The processor.
        memory_bytes: Memory that the process may use.
        gpus: GPUs that the process may use; empty without any.
        jetson: `None` elsewhere.
        driver: Version of the NVIDIA driver; `None` without one.
        cuda: Newest CUDA that the driver runs; `None` without one.
        packages: Versions of what computes: `{"onnxruntime": "1.32.0"}`; only what is installed.
        variables: Environment variables that change speed and are set: `{"OMP_NUM_THREADS": "2"}`.
        git_commit: Commit of the working directory, `-dirty` if it was changed; `None` outside of a repository.
        container: Whether the process runs in a container; `None` if unknown.
    """

    platform: str
    python: str
    cpu: CpuState
    memory_bytes: int
    gpus: tuple[GpuState, ...] = ()
    jetson: JetsonState | None = None
    driver: str | None = None
    cuda: str | None = None
    packages: dict[str, str]
    variables: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    container: bool | None = None
