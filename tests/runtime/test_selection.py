"""Which variant runs on which backend, and why the others do not."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from pargo_export.bundle import Bundle, Evidence, Limits, Quantization
from pargo_export.errors import BackendError, BundleError, IntegrityError
from pargo_export.runtime import BACKENDS, Backend, Runner, RunnerOptions, Runtime, select
from pargo_export.runtime.backends.cuda import CUDA
from pargo_export.runtime.backends.onnxruntime import ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA
from pargo_export.runtime.backends.openvino import OPENVINO, OPENVINO_BF16
from pargo_export.runtime.preferences import PREFERENCES, kind_of
from pargo_export.runtime.selection import open_runner

KERNELS = dataclasses.replace(CUDA, find_obstacle=lambda: None)
NO_KERNELS = dataclasses.replace(CUDA, find_obstacle=lambda: "no GPU; use the backend 'onnxruntime'")
CPU = dataclasses.replace(ONNXRUNTIME_CPU, find_obstacle=lambda: None)
GPU = dataclasses.replace(ONNXRUNTIME_CUDA, find_obstacle=lambda: None)
NO_GPU = dataclasses.replace(ONNXRUNTIME_CUDA, find_obstacle=lambda: "no NVIDIA driver is installed")
OV = dataclasses.replace(OPENVINO, find_obstacle=lambda: None)
OV_BF16 = dataclasses.replace(OPENVINO_BF16, find_obstacle=lambda: None)
FAILED = Evidence(stages=(), limits=Limits(), passed=False, reference="PyTorch float32")
PASSED = FAILED.model_copy(update={"passed": True})
FOR_CPUS = Quantization(base="fp32", float_precision="float32", dialect="cpu")
INT8_CPU = {"precision": "int8", "quantization": FOR_CPUS, "evidence": PASSED}
FOR_GPUS = {
    "precision": "int8",
    "quantization": Quantization(base="fp16", float_precision="float16", dialect="tensorrt"),
    "evidence": PASSED,
    "target": "orin",
}


FP8 = FOR_GPUS | {"precision": "fp8", "target": "thor"}


@pytest.fixture
def make_bundle(bundle_path):
    """Return a function that gives the bundle other variants: all with the graph of fp32, with other records."""
    bundle = Bundle.open(bundle_path)
    template = bundle.variant("fp32")

    def make(**changes: dict) -> Bundle:
        variants = {
            name: template.model_copy(update={"name": name, **fields}) for name, fields in changes.items()
        }
        return Bundle(bundle.path, bundle.manifest.model_copy(update={"variants": variants}))

    return make


def _best(bundle, backends, **options):
    return str(select(bundle, backends=backends, **options).candidates[0])


def test_real_bundle_opens_its_whole_float32_graph(bundle_path):
    """Among whole, encoder, projector and uint8 graphs the whole one that takes every input is the default."""
    with Runtime.open(bundle_path, backend="onnxruntime") as runtime:
        assert (runtime.variant.name, runtime.backend) == ("fp32", "onnxruntime")


def test_preferred_precision_depends_on_the_backend(make_bundle):
    """A CPU computes float16 in float32, so float32 is the better choice there; a GPU prefers float16."""
    bundle = make_bundle(
        a16={"precision": "float16"},
        b32={"precision": "float32"},
        c16={"precision": "bfloat16"},
        d8={"precision": "int8"},
    )
    assert _best(bundle, [CPU]) == "b32 on onnxruntime"
    assert _best(bundle, [GPU, CPU]) == "a16 on onnxruntime-cuda"
    assert _best(bundle, [NO_GPU, CPU]) == "b32 on onnxruntime"
    assert _best(bundle, [GPU, CPU], backend="onnxruntime") == "b32 on onnxruntime"
    assert _best(bundle, [GPU, CPU], variant="d8") == "d8 on onnxruntime-cuda"


def test_int8_for_cpus_is_preferred_on_cpus(make_bundle):
    """The quantized variant comes before float32 on both CPU backends, OpenVINO first; a GPU prefers floats."""
    bundle = make_bundle(a={}, b=INT8_CPU)
    assert [str(choice) for choice in select(bundle, backends=[NO_GPU, CPU, OV]).candidates] == [
        "b on openvino",
        "b on onnxruntime",
        "a on onnxruntime",
        "a on openvino",
    ]
    assert _best(bundle, [CPU, OV], backend="onnxruntime") == "b on onnxruntime"
    assert _best(bundle, [GPU, CPU, OV]) == "a on onnxruntime-cuda"
    assert _best(make_bundle(a={}), [CPU, OV]) == "a on onnxruntime"
    assert _best(make_bundle(a={"precision": "float16"}), [CPU, OV]) == "a on openvino"


@pytest.mark.parametrize(
    "other",
    [
        FOR_GPUS,
        INT8_CPU | {"evidence": None},
        INT8_CPU | {"quantization": None},
        INT8_CPU | {"quantization": FOR_CPUS.model_copy(update={"float_precision": "float16"})},
        {"precision": "int8_weight_only", "evidence": PASSED},
    ],
    ids=["for GPUs", "not measured", "unknown dialect", "float16 around", "weight only"],
)
def test_other_quantized_variants_come_after_floats(make_bundle, other):
    """What was made for a GPU, or to save memory, or was not measured, gives way to float32 and float16 on a CPU."""
    for first in ({}, {"precision": "float16"}):
        bundle = make_bundle(a=other, z=first)
        for backends in ([CPU], [OV], [CPU, OV]):
            assert select(bundle, backends=backends).candidates[0].variant.name == "z"
    assert _best(make_bundle(a=other), [CPU, OV]) == "a on openvino"


def test_kernels_of_this_project_come_first_on_a_gpu(make_bundle):
    """FP8 that was measured, then halves, then INT8, then FP8 of unknown accuracy; after them ONNX Runtime."""
    halves = {"a16": {"precision": "float16"}, "b16": {"precision": "bfloat16"}}
    bundle = make_bundle(x8=FOR_GPUS, y8=FP8 | {"evidence": None}, z8=FP8, c32={}, **halves)
    found = [str(choice) for choice in select(bundle, backends=[CPU, GPU, KERNELS]).candidates]
    assert found[:6] == [
        "z8 on cuda",
        "a16 on cuda",
        "b16 on cuda",
        "x8 on cuda",
        "y8 on cuda",
        "a16 on onnxruntime-cuda",
    ]
    assert _best(bundle, [NO_KERNELS, GPU, CPU]) == "a16 on onnxruntime-cuda"
    failed = make_bundle(z8=FP8 | {"evidence": FAILED}, **halves)
    assert _best(failed, [KERNELS, CPU]) == "a16 on cuda"


def test_obstacle_of_the_kernels_names_another_backend(make_bundle):
    """Asked for by name on a machine without a GPU, the message says what to use."""
    bundle = make_bundle(a={"precision": "float16"})
    selection = select(bundle, backend="cuda", backends=[NO_KERNELS, CPU])
    with pytest.raises(BackendError, match="cuda: no GPU; use the backend 'onnxruntime'"):
        open_runner(bundle, selection, RunnerOptions())


def test_failed_int8_for_cpus_is_not_taken(make_bundle):
    """Being fast is no excuse for a failed parity."""
    bundle = make_bundle(a={}, b=INT8_CPU | {"evidence": FAILED})
    assert _best(bundle, [CPU, OV]) == "a on onnxruntime"


def test_backend_that_is_not_automatic_needs_its_name(make_bundle):
    """`auto` never takes it, not even alone; by its name it is taken, with the best variant for it."""
    bundle = make_bundle(a={}, b=INT8_CPU, c=FOR_GPUS)
    assert select(bundle, backends=[OV_BF16]).candidates == ()
    assert {choice.backend.name for choice in select(bundle, backends=[OV_BF16, CPU]).candidates} == {
        "onnxruntime"
    }
    assert _best(bundle, [CPU, OV_BF16], backend="openvino-bf16") == "b on openvino-bf16"


def test_every_combination_has_its_preference(make_bundle):
    """No backend runs a kind of variant that the list of preferences does not rank, and no entry is idle."""
    kinds = [{"precision": name} for backend in BACKENDS for name in backend.precisions]
    kinds += [INT8_CPU, FOR_GPUS, FP8, FP8 | {"evidence": None}]
    bundle = make_bundle(**{f"v{index}": fields for index, fields in enumerate(kinds)})
    runs = {
        (backend.name, kind_of(variant))
        for backend in BACKENDS
        for variant in bundle.manifest.variants.values()
        if backend.find_refusal(variant) is None
    }
    assert runs == set(PREFERENCES)
    assert len(PREFERENCES) == len(set(PREFERENCES))


def test_variant_made_for_the_device_is_preferred(make_bundle):
    """Among equal precisions the target decides, then the input, then the name."""
    bundle = make_bundle(
        a={"target": "orin"}, b={"target": "cpu", "input": "uint8"}, d={"target": "cpu"}, c={"target": "cpu"}
    )
    names = [choice.variant.name for choice in select(bundle, backends=[CPU]).candidates]
    assert names == ["c", "d", "b", "a"]


def test_component_is_never_exchanged(make_bundle):
    """If the whole model cannot run, its encoder is not run in its place; alone in a bundle it is the default."""
    bundle = make_bundle(whole={"precision": "bfloat16"}, part={"component": "encoder"})
    assert select(bundle, backends=[CPU]).candidates == ()
    assert _best(bundle, [CPU], variant="part") == "part on onnxruntime"
    parts = make_bundle(p={"component": "projector"}, q={"component": "encoder"})
    assert _best(parts, [CPU]) == "q on onnxruntime"


@pytest.mark.parametrize(
    ("precision", "reason"), [("bfloat16", "no bfloat16"), ("fp8", "float8"), ("int3", "not know")]
)
def test_precision_that_cannot_run_is_refused_with_the_reason(make_bundle, precision, reason):
    """The refusal comes before anything is loaded."""
    bundle = make_bundle(odd={"precision": precision})
    with pytest.raises(
        BackendError, match=rf"odd on onnxruntime: {precision} graphs do not run there: .*{reason}"
    ):
        Runtime.open(bundle, backend="onnxruntime")


def test_every_refusal_is_reported(make_bundle):
    """The error lists each backend and each variant with its own reason."""
    bundle = make_bundle(a={"precision": "bfloat16"}, b={"precision": "fp8"})
    with pytest.raises(BackendError) as caught:
        open_runner(bundle, select(bundle, backends=[NO_GPU, CPU]), RunnerOptions())
    text = str(caught.value)
    for part in ("onnxruntime-cuda: no NVIDIA driver", "a on onnxruntime: bfloat16", "b on onnxruntime: fp8"):
        assert part in text


def test_failed_evidence_needs_a_name(make_bundle):
    """A variant that failed its parity runs only when it is asked for by name."""
    bundle = make_bundle(bad={"evidence": FAILED}, good={"precision": "int8"})
    assert _best(bundle, [CPU]) == "good on onnxruntime"
    assert "bad on onnxruntime: its parity" in select(bundle, backends=[CPU]).refusals[0]
    assert _best(bundle, [CPU], variant="bad") == "bad on onnxruntime"


def test_unknown_names_list_the_choices(bundle_path):
    """A wrong backend or variant is answered with the right ones."""
    with pytest.raises(
        BackendError,
        match="unknown backend 'tpu'; choose one of auto, cuda, onnxruntime, onnxruntime-cuda, openvino, openvino-bf16",
    ):
        Runtime.open(bundle_path, backend="tpu")
    with pytest.raises(BundleError, match="no variant 'fp4'; choose one of fp32, fp32-encoder"):
        Runtime.open(bundle_path, variant="fp4")


def test_bundle_without_variants_says_so(make_bundle):
    """There is nothing to choose from."""
    with pytest.raises(BundleError, match="no variants"):
        select(make_bundle())


def _failing(error):
    def fail(*_):
        raise error

    return fail


def test_automatic_choice_falls_back_and_says_so(bundle_path, caplog):
    """If the best candidate does not open, the next one does, with a warning."""
    broken = dataclasses.replace(GPU, open=_failing(BackendError("out of GPU memory")))
    bundle = Bundle.open(bundle_path)
    with caplog.at_level(logging.WARNING, "pargo_export.runtime"):
        choice, runner = open_runner(
            bundle, select(bundle, variant="fp32", backends=[broken, CPU]), RunnerOptions()
        )
    runner.close()
    assert str(choice) == "fp32 on onnxruntime"
    assert "fp32 on onnxruntime-cuda: out of GPU memory" in caplog.text


class _RunnerThatCannotRun(Runner):
    """Opens, but has no kernels for this GPU."""

    closed = 0

    def _execute(self, feed):
        raise BackendError(f"no kernel image is available for {sorted(feed)}")

    def _release(self):
        type(self).closed += 1


def test_warm_up_takes_part_in_the_choice(bundle_path):
    """A backend that opens but fails its first run is closed and left for the next one; unless not warmed up."""
    gpu = dataclasses.replace(
        GPU, open=lambda _, variant, __: _RunnerThatCannotRun(variant.signature, "GPU 0")
    )
    bundle = Bundle.open(bundle_path)
    selection = select(bundle, variant="fp32", backends=[gpu, CPU])
    choice, runner = open_runner(bundle, selection, RunnerOptions())
    runner.close()
    assert (str(choice), _RunnerThatCannotRun.closed) == ("fp32 on onnxruntime", 1)
    choice, _ = open_runner(bundle, selection, RunnerOptions(warmup=False))
    assert str(choice) == "fp32 on onnxruntime-cuda"


def test_integrity_is_no_reason_to_fall_back(bundle_path):
    """A changed file is an error, not a reason to try another backend."""
    broken = dataclasses.replace(GPU, open=_failing(IntegrityError("changed")))
    bundle = Bundle.open(bundle_path)
    with pytest.raises(IntegrityError, match="changed"):
        open_runner(bundle, select(bundle, backends=[broken, CPU]), RunnerOptions())


def test_variant_that_does_not_load_is_not_exchanged(make_bundle):
    """On one backend a graph that fails is reported, with the refusals of the others, not replaced."""
    broken = dataclasses.replace(CPU, open=_failing(BackendError("no such luck")))
    bundle = make_bundle(a={}, b={})
    with pytest.raises(
        BackendError, match=r"(?s)onnxruntime-cuda: no NVIDIA.*a on onnxruntime: no such luck$"
    ):
        open_runner(bundle, select(bundle, backends=[NO_GPU, broken]), RunnerOptions())


def test_backends_have_distinct_names():
    """A name picks one backend, and `auto` picks none."""
    names = [backend.name for backend in BACKENDS]
    assert all(isinstance(backend, Backend) for backend in BACKENDS)
    assert len({*names, "auto"}) == len(names) + 1
