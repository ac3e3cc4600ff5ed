"""Results of benchmarks, written by hand with seeded numbers, for the tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from pargo_export.bench.records import (
    BenchResult,
    Boundary,
    BundleFacts,
    Comparison,
    CpuState,
    Energy,
    Environment,
    GpuState,
    InputFacts,
    Interval,
    LoadPoint,
    LoadSweep,
    Measurement,
    MemoryUse,
    Settings,
    Steadiness,
    Subject,
    Summary,
    SustainedRun,
    Window,
)
from pargo_export.bundle import Bundle, Evidence, Limits, Quantization, StageEvidence, Variant, sha256_file

__all__ = ["HOSTILE", "full_result", "minimal_result", "summary", "with_quantized_variant"]

HOSTILE = (
    '<a href="//x.y">z</a><script>document.title="pwned"</script><img src=x onerror="document.title=1">&%{x}'
)
_ROUNDS, _RUNS = 6, 20
# Name -> kind, precision, backend, median at batch 1 end to end.
_SUBJECTS: dict[str, tuple[Any, str, str, float]] = {
    "fp32 on onnxruntime": ("runtime", "float32", "onnxruntime", 610.0),
    "int8-cpu on openvino": ("runtime", "int8", "openvino", 268.0),
    "PyTorch eager": ("torch", "float32", "torch", 905.0),
    "torch.compile": ("torch-compile", "float32", "torch", 770.0),
}
_BASELINES = ("PyTorch eager", "torch.compile")
_SHARES: dict[Boundary, float] = {
    "preprocess": 0.04,
    "host_to_device": 0.01,
    "compute": 0.92,
    "device_to_host": 0.01,
    "run": 0.95,
    "end_to_end": 1.0,
}


def summary(samples: np.ndarray) -> Summary:
    """Summarize times as the benchmark does, but with an interval that is quick to compute."""
    low, middle, high, p90, p95, p99 = np.percentile(samples, [25, 50, 75, 90, 95, 99])
    reach, error = 1.5 * (high - low), 1.57 * (high - low) / len(samples) ** 0.5
    return Summary(
        num_samples=len(samples),
        min_ms=samples.min(),
        mean_ms=samples.mean(),
        median_ms=middle,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=samples.max(),
        std_ms=samples.std(ddof=1) if len(samples) > 1 else 0.0,
        median_interval=_interval(middle - error, middle + error) if len(samples) > 4 else None,
        num_outliers=int(((samples < low - reach) | (samples > high + reach)).sum()),
    )


def full_result(bundle: Bundle | None = None) -> BenchResult:
    """A result with something in every section; of `bundle`, so that its hash fits."""
    random = np.random.default_rng(7)
    measurements = [
        _measure(random, name, batch, boundary)
        for name in _SUBJECTS
        for batch in (1, 2, 4)
        for boundary in _boundaries(name)
    ]
    measurements += [_measure(random, "int8-cpu on openvino", 1, "end_to_end", concurrency=2)]
    return BenchResult(
        created="2026-11-23T12:00:00Z",
        settings=_settings(),
        environment=_environment(),
        bundle=_bundle_facts(bundle),
        inputs=InputFacts(num_pictures=2, sha256="b" * 64, names=("a.jpg", "b.png"), median_megapixels=12.2),
        subjects=tuple(_subject(name) for name in _SUBJECTS),
        measurements=tuple(measurements),
        comparisons=tuple(
            _compare(baseline, candidate, batch)
            for baseline in _BASELINES
            for candidate in _SUBJECTS
            for batch in (1, 2, 4)
            if candidate not in _BASELINES
        ),
        loads=(_sweep(random, "poisson", 500.0), _sweep(random, "fixed", None)),
        sustained=(_sustain(random),),
        unavailable={"GPU memory": "NVML answered: not supported"},
        warnings=("CPU 1 was busy with another process for 12% of the time",),
    )


def minimal_result(name: str = "fp32 on onnxruntime") -> BenchResult:
    """A result with one subject that missed the gate, and nothing else."""
    evidence = Evidence(
        stages=(_stage("visual_tokens", 3.0),), limits=Limits(sqnr_db=20.0), passed=False, reference="fp32"
    )
    return BenchResult(
        created="2026-11-23T12:00:00Z",
        settings=_settings(),
        environment=Environment(
            platform="Linux",
            python="3.11.9",
            cpu=CpuState(model="CPU", num_usable_cores=2, num_logical_cores=2, features=()),
            memory_bytes=8_000_000_000,
            packages={},
        ),
        bundle=_bundle_facts(None),
        inputs=InputFacts(num_pictures=1, sha256="b" * 64, names=("a.jpg",), median_megapixels=0.3),
        subjects=(
            Subject(
                name=name,
                kind="runtime",
                bundle="bundle",
                precision="float32",
                backend="onnxruntime",
                evidence=evidence,
                failure="SQNR 3.0 dB, limit 20 dB",
            ),
        ),
        measurements=(),
        unavailable={"energy": "no power sensor: RAPL is not readable"},
    )


def with_quantized_variant(bundle: Bundle) -> Bundle:
    """The same bundle with a further variant, which is quantized; in memory only."""
    base = bundle.variant("fp32")
    blocks = [f"tower.blocks.{index}" for index in range(bundle.manifest.model.vision.num_layers)]
    linears = ("attention.qkv.merged", "attention.output", "mlp.gate_up.merged", "mlp.down")
    quantization = Quantization(
        base="fp32",
        float_precision="float32",
        recipe="int8",
        dialect="cpu",
        quantized=tuple(f"{block}.{linear}" for block in blocks for linear in linears[:3]),
        kept={"tower.patch_embedding": "It reads pixels."}
        | {f"{block}.mlp.down": "The budget." for block in blocks},
    )
    evidence = Evidence(
        stages=tuple(
            _stage(stage, ratio) for stage, ratio in (("image_features", 31.0), ("visual_tokens", 28.0))
        ),
        limits=Limits(),
        passed=True,
        reference="fp32",
    )
    changes: dict[str, Any] = {
        "name": "int8-cpu",
        "precision": "int8",
        "quantization": quantization,
        "evidence": evidence,
    }
    variant = Variant.model_validate(base.model_dump() | changes)
    return Bundle(bundle.path, bundle.manifest.merged(variants=[variant]))


def _boundaries(name: str) -> tuple[Boundary, ...]:
    if name == "fp32 on onnxruntime":
        return tuple(_SHARES)
    return ("preprocess", "run", "end_to_end")


def _measure(
    random: np.random.Generator, name: str, batch: int, boundary: Boundary, concurrency: int = 1
) -> Measurement:
    level = _SUBJECTS[name][3] * _SHARES[boundary] * batch**0.93 * concurrency**0.9
    samples = level * (1 + random.gamma(2.0, 0.012, _ROUNDS * _RUNS))
    samples[random.integers(0, len(samples), 3)] *= random.uniform(1.3, 2.2, 3)
    is_steady = not (name == "torch.compile" and batch == 4 and boundary == "end_to_end")
    energy = None
    if boundary == "end_to_end":
        power = 31.0 if "int8" in name else 34.0
        energy = Energy(
            source="RAPL package",
            mean_power_w=power,
            idle_power_w=9.0,
            energy_per_image_j=power * level / 1000 / batch,
            num_samples=80,
        )
    return Measurement(
        subject=name,
        batch=batch,
        concurrency=concurrency,
        boundary=boundary,
        clock="cuda-events" if boundary in {"host_to_device", "compute", "device_to_host"} else "host",
        samples_ms=tuple(samples.tolist()),
        rounds=tuple(np.repeat(np.arange(_ROUNDS), _RUNS).tolist()),
        summary=summary(samples),
        images_per_s=1000 * batch * concurrency / samples.mean(),
        steadiness=Steadiness(
            is_steady=is_steady,
            first_steady=0 if is_steady else None,
            drift=1.01,
            reason="steady" if is_steady else "rising",
        ),
        energy=energy,
    )


def _subject(name: str) -> Subject:
    kind, precision, backend, _ = _SUBJECTS[name]
    return Subject(
        name=name,
        kind=kind,
        is_baseline=name in _BASELINES,
        bundle="bundle",
        variant="int8-cpu" if "int8" in name else "fp32" if kind == "runtime" else None,
        precision=precision,
        backend=backend,
        device="CPU",
        description=f"{backend}, 2 threads",
        graph_sha256="c" * 64 if kind == "runtime" else None,
        load_s=3.4,
        evidence=Evidence(
            stages=(_stage("visual_tokens", 29.0 if "int8" in name else 96.0),),
            limits=Limits(sqnr_db=20.0),
            passed=True,
            reference="fp32 in onnxruntime",
        ),
        memory=MemoryUse(peak_rss_bytes=1_900_000_000, loaded_rss_bytes=1_600_000_000),
    )


def _stage(stage: str, sqnr_db: float) -> StageEvidence:
    noise = 10 ** (-sqnr_db / 10)
    return StageEvidence(
        stage=stage,
        batch=1,
        source="photograph",
        max_abs=4 * noise**0.5,
        cosine=1 - noise,
        reference_std=1.0,
        mean_cosine=1 - noise / 2,
        sqnr_db=sqnr_db,
    )


def _compare(baseline: str, candidate: str, batch: int) -> Comparison:
    ratio = _SUBJECTS[candidate][3] / _SUBJECTS[baseline][3]
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        batch=batch,
        boundary="end_to_end",
        ratio=ratio,
        interval=_interval(ratio * 0.98, ratio * 1.03),
        num_rounds=_ROUNDS,
        verdict="faster",
    )


def _sweep(random: np.random.Generator, arrivals: Any, deadline_ms: float | None) -> LoadSweep:
    points = []
    for offered in (0.5, 1.0, 2.0, 3.0, 3.5, 4.2):
        is_saturated = offered > 3.5
        level = 270 / (1 - min(offered / 3.8, 0.93)) if arrivals == "poisson" else 275 + 40 * offered
        samples = level * (1 + random.gamma(1.5, 0.2, 40)) * (4 if is_saturated else 1)
        points.append(
            LoadPoint(
                offered_per_s=offered,
                achieved_per_s=min(offered, 3.72),
                duration_s=40 / offered,
                num_requests=44,
                num_missed=None if deadline_ms is None else int((samples > deadline_ms).sum()) + 4,
                num_refused=4 if is_saturated else 0,
                samples_ms=tuple(samples.tolist()),
                summary=summary(samples),
                is_saturated=is_saturated,
                mean_batch=1 + 0.3 * offered,
            )
        )
    return LoadSweep(
        subject="int8-cpu on openvino",
        arrivals=arrivals,
        deadline_ms=deadline_ms,
        max_batch=4,
        max_wait_ms=2.0,
        points=tuple(points),
        capacity_per_s=3.5,
    )


def _sustain(random: np.random.Generator) -> SustainedRun:
    windows = []
    for index in range(60):
        warm = 1 - np.exp(-index / 18)
        median = 268 * (1 + 0.07 * warm) * random.normal(1, 0.004)
        windows.append(
            Window(
                start_s=10.0 * index,
                median_ms=median,
                p99_ms=median * random.uniform(1.04, 1.12),
                num_runs=37,
                clock_mhz=3500 - 260 * warm,
                temperature_c=52 + 31 * warm,
                power_w=None if index == 7 else 31.0,
            )
        )
    return SustainedRun(
        subject="int8-cpu on openvino",
        batch=1,
        duration_s=600.0,
        windows=tuple(windows),
        slowdown=1.062,
        interval=_interval(1.058, 1.066),
        throttled=("thermal",),
    )


def _interval(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, level=0.95, method="percentile bootstrap over rounds, 2000 resamples")


def _settings() -> Settings:
    return Settings(
        batches=(1, 2, 4),
        concurrencies=(1, 2),
        num_rounds=_ROUNDS,
        iterations=_ROUNDS * _RUNS,
        duration_s=None,
        num_warmup=5,
        threads=2,
        seed=0,
        command="pargo-export bench bundle --baseline torch",
    )


def _environment() -> Environment:
    return Environment(
        platform="Linux 6.8, x86_64",
        python="3.11.9",
        cpu=CpuState(
            model="Example CPU 9000",
            num_usable_cores=2,
            num_logical_cores=4,
            features=("avx2", "avx512f", "avx512_vnni"),
            governor="performance",
            turbo=True,
            clock_mhz=3500.0,
            load_average=0.2,
            is_virtual=True,
        ),
        memory_bytes=24_000_000_000,
        gpus=(
            GpuState(
                name="NVIDIA Example",
                compute_capability="9.0",
                memory_bytes=80_000_000_000,
                power_limit_w=700.0,
            ),
        ),
        driver="580.159.04",
        cuda="13.0",
        packages={"onnxruntime": "1.32.0", "openvino": "2026.1"},
        variables={"OMP_NUM_THREADS": "2"},
        git_commit="0123abc-dirty",
        container=True,
    )


def _bundle_facts(bundle: Bundle | None) -> BundleFacts:
    return BundleFacts(
        path="bundle",
        manifest_sha256=sha256_file(bundle.path / "manifest.json") if bundle else "a" * 64,
        model="ParGo, EVA-02 of 2 blocks, 18 partial and 4 global tokens",
        num_parameters=321_120,
        image_size=(84, 84),
        num_visual_tokens=22,
    )
