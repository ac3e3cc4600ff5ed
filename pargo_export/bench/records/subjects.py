"""Records of what was measured, on what input, and how."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pargo_export.bundle import Evidence
from pargo_export.config import Record

__all__ = ["BundleFacts", "InputFacts", "MemoryUse", "Settings", "Subject", "SubjectKind"]

SubjectKind: TypeAlias = Literal["runtime", "torch", "torch-compile", "onnxruntime"]


class BundleFacts(Record):
    """The bundle that was measured.

    Attributes:
        path: Where it lay, as it was given.
        manifest_sha256: Hash of its manifest, which has the hashes of all files.
        model: Summary of the model, for people: preset or sizes.
        num_parameters: Weights of the whole model.
        image_size: Height and width of the input, pixels.
        num_visual_tokens: Query tokens, Q.
    """

    path: str
    manifest_sha256: str
    model: str
    num_parameters: int
    image_size: tuple[int, int]
    num_visual_tokens: int


class InputFacts(Record):
    """The pictures.

    Attributes:
        num_pictures: How many; batches go through them in turns.
        sha256: Hash over their contents, in order.
        names: Their file names.
        median_megapixels: Median size of a picture.
    """

    num_pictures: int
    sha256: str
    names: tuple[str, ...]
    median_megapixels: float


class Settings(Record):
    """How it was measured.

    Attributes:
        batches: Batch sizes.
        concurrencies: Callers at the same time, in a closed loop.
        num_rounds: Rounds; in each, every subject is measured at every batch size in turn.
        iterations: Timed runs of each subject, batch size and boundary; `None` if `duration_s` decided.
        duration_s: Seconds of timed runs of each; `None` if `iterations` decided.
        num_warmup: Untimed runs before the first round.
        threads: CPU threads of a run; `None` for every physical core.
        seed: Of the bootstrap and of the arrivals.
        command: The command line; empty if it was called from Python.
    """

    batches: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    num_rounds: int
    iterations: int | None
    duration_s: float | None
    num_warmup: int
    threads: int | None
    seed: int
    command: str = ""


class MemoryUse(Record):
    """Memory of the process of one subject.

    Attributes:
        peak_rss_bytes: Largest resident memory (VmHWM), libraries included; `None` where it cannot be read.
        loaded_rss_bytes: Resident memory after loading and warm-up, before the measurement.
        gpu_peak_bytes: Largest memory that the process held on the GPU; `None` without one, or if the driver does not
            tell.
        is_unified: Whether CPU and GPU share one memory (Jetson): then the two numbers count the same bytes twice.
    """

    peak_rss_bytes: int | None = None
    loaded_rss_bytes: int | None = None
    gpu_peak_bytes: int | None = None
    is_unified: bool = False


class Subject(Record):
    """One thing that was measured, in a process of its own.

    Attributes:
        name: Unique in the result, for example `"int8-cpu on openvino"`.
        kind: What ran: `Runtime` on a bundle, or a baseline.
        is_baseline: Whether it was asked for as a baseline, which ratios are taken against; without any, they are
            taken against the first subject.
        bundle: Path of its bundle.
        variant: Variant of the bundle; `None` for PyTorch.
        precision: Of the variant, or `"float32"`.
        backend: Backend of the runtime, or the library.
        engine: TensorRT engine; `None` elsewhere.
        device: Where it ran, for example `"CPU"` or the name of the GPU.
        description: What the backend says of itself.
        graph_sha256: Hash of the graph or engine that ran; `None` for PyTorch.
        load_s: Seconds from nothing to ready, warm-up included, imports not.
        evidence: How far its output is from the float32 variant's, on this machine; `None` if it could not be compared.
        failure: Why there are no times: it could not be loaded, failed, or missed the limits of `evidence`; or why its
            load or long run is missing, if it failed only then. `None` if all is well.
        memory: Of its process.
    """

    name: str
    kind: SubjectKind
    is_baseline: bool = False
    bundle: str
    variant: str | None = None
    precision: str
    backend: str
    engine: str | None = None
    device: str = ""
    description: str = ""
    graph_sha256: str | None = None
    load_s: float | None = None
    evidence: Evidence | None = None
    failure: str | None = None
    memory: MemoryUse = MemoryUse()
