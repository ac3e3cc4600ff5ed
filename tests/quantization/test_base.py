"""Which variant is observed, which one is quantized, and which calibration fits it."""

from __future__ import annotations

import pytest
from bundle.samples import SHA256, make_calibration, make_manifest, make_variant

from pargo_export.bundle import Bundle, FileRecord, Quantization
from pargo_export.errors import BundleError, CalibrationError, QuantizationError
from pargo_export.preprocessing import PreprocessSpec
from pargo_export.quantization.base import find_base, find_calibration_base, find_reference, require_match

OTHER = "f" * 64
QUANTIZED = Quantization(base="fp32", float_precision="float32", quantized=("tower.blocks.0.mlp.down",))
VARIANTS = (
    make_variant("fp32"),
    make_variant("fp32-cuda", target="cuda"),
    make_variant("fp16", precision="float16", target="cuda"),
    make_variant("bf16", precision="bfloat16", target="cuda"),
    make_variant("fp16-orin", precision="float16", target="orin"),
    make_variant("fp32-uint8", input="uint8"),
    make_variant("fp32-encoder", component="encoder"),
    make_variant("fp32-projector", component="projector"),
    make_variant("int8-cpu", precision="int8", quantization=QUANTIZED),
    make_variant(
        "converted",
        precision="float16",
        target="rtx",
        quantization=Quantization(base="fp32", float_precision="float16"),
    ),
)


def bundle_of(tmp_path, *variants, **changes):
    """Return a bundle, not on disk, with some variants, or all."""
    chosen = [item for item in VARIANTS if item.name in variants or not variants]
    record = FileRecord(sha256=SHA256, size_bytes=1, stage="graph")
    files = {item.graph: record for item in chosen}
    return Bundle(tmp_path, make_manifest(files, variants={item.name: item for item in chosen}, **changes))


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        ((), "fp32"),
        (("fp32-cuda", "fp32-encoder", "fp16"), "fp32-cuda"),
        (("fp32-encoder", "fp32-projector"), "fp32-encoder"),
    ],
)
def test_calibration_observes_the_whole_model_on_the_cpu(tmp_path, variants, expected):
    """Else what comes nearest and takes pixels."""
    assert find_calibration_base(bundle_of(tmp_path, *variants), None).name == expected


@pytest.mark.parametrize("name", ["fp16", "fp32-uint8", "fp32-projector", "int8-cpu"])
def test_what_calibration_cannot_observe_is_refused(tmp_path, name):
    """Named or the only one: the message says what it is and how to get another."""
    with pytest.raises(
        CalibrationError, match=rf"found {name} \(.*expected a float32 variant.*pargo-export onnx"
    ):
        find_calibration_base(bundle_of(tmp_path), name)
    with pytest.raises(CalibrationError, match=rf"found {name} \("):
        find_calibration_base(bundle_of(tmp_path, name), None)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"target": "cpu", "float_precision": "float32"}, "fp32"),
        ({"target": "cuda", "float_precision": "float32"}, "fp32-cuda"),
        ({"target": "cuda", "float_precision": "float16"}, "fp16"),
        ({"target": "orin", "float_precision": "float16"}, "fp16-orin"),
        ({"target": "thor", "float_precision": "bfloat16"}, "bf16"),
        ({"target": "rtx", "float_precision": "float16"}, "converted"),
        ({"target": "orin", "float_precision": "float32"}, "fp32-cuda"),
        ({"target": "cuda", "float_precision": "float16", "convert": True}, "fp32-cuda"),
        ({"target": "cpu", "float_precision": "float16", "convert": True}, "fp32"),
    ],
)
def test_base_suits_the_target(tmp_path, choices, expected):
    """The target's own export in the wanted precision, else one for tensor cores, else what can be converted."""
    assert find_base(bundle_of(tmp_path), None, **choices).name == expected


def test_named_base_is_taken(tmp_path):
    """Even if another one would suit better."""
    found = find_base(bundle_of(tmp_path), "fp32-uint8", target="cuda", float_precision="float16")
    assert found.name == "fp32-uint8"


def test_quantizing_twice_is_refused(tmp_path):
    """The message names the float variant that the quantized one was made from."""
    with pytest.raises(QuantizationError, match=r"'int8-cpu' is quantized already \(int8\).*quantize 'fp32'"):
        find_base(bundle_of(tmp_path), "int8-cpu", target="cpu", float_precision="float32")
    with pytest.raises(QuantizationError, match=r"found int8-cpu .*export one into the bundle"):
        find_base(bundle_of(tmp_path, "int8-cpu"), None, target="cpu", float_precision="float32")


def test_precision_that_does_not_fit_is_refused(tmp_path):
    """bfloat16 weights cannot become float16 ones, and half ones not float32."""
    with pytest.raises(QuantizationError, match=r"found bf16 \(.*in float16 or float32"):
        find_base(bundle_of(tmp_path), "bf16", target="cuda", float_precision="float16")
    with pytest.raises(QuantizationError, match=r"found fp16 \(.*in float32: export"):
        find_base(bundle_of(tmp_path), "fp16", target="cpu", float_precision="float32")


def test_unknown_names_are_refused(tmp_path):
    """The message lists the variants."""
    with pytest.raises(BundleError, match="no variant 'fp64'; choose one of bf16"):
        find_base(bundle_of(tmp_path), "fp64", target="cpu", float_precision="float32")
    with pytest.raises(BundleError, match="no variant 'fp64'"):
        find_calibration_base(bundle_of(tmp_path), "fp64")


@pytest.mark.parametrize(
    ("base", "expected"),
    [("fp32", "fp32"), ("fp16", "fp32-cuda"), ("fp16-orin", "fp32"), ("fp32-encoder", "fp32-encoder")],
)
def test_reference_is_float32_of_the_same_part(tmp_path, base, expected):
    """The base itself if it is float32, else one of its target, else any."""
    bundle = bundle_of(tmp_path)
    assert find_reference(bundle, bundle.variant(base)).name == expected


def test_missing_reference_is_refused(tmp_path):
    """Without a float32 variant of the same input there is nothing to measure against."""
    bundle = bundle_of(tmp_path, "fp32", "fp16")
    uint8 = make_variant("u8", precision="float16", input="uint8")
    with pytest.raises(QuantizationError, match=r"component 'all' and input 'uint8'.*export one"):
        find_reference(bundle, uint8)


def test_calibration_of_the_same_graph_fits(tmp_path):
    """Padding and folded normalisation leave the activations of the linears as they are."""
    bundle = bundle_of(tmp_path)
    require_match(make_calibration(), bundle.variant("fp32"), bundle)
    require_match(make_calibration(), bundle.variant("fp16"), bundle)
    padded = make_variant("padded", rewrites=("merge_qkv", "pad-swiglu"))
    require_match(make_calibration(), padded, bundle)
    require_match(make_calibration(rewrites=("pad-swiglu", "merge_qkv")), bundle.variant("fp32"), bundle)
    folded = make_variant("folded", rewrites=("fold-normalization", "merge_qkv"), input="uint8")
    require_match(make_calibration(), folded, bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_sha256": OTHER}, "weights (sha256 ffffffffffff, the bundle has 0123456789ab)"),
        ({"component": "encoder"}, "component encoder (the variant: all)"),
        (
            {"preprocessing": PreprocessSpec(mode="resize", height=28, width=28)},
            "preprocessing resize (the bundle: pad)",
        ),
        ({"rewrites": ()}, "rewrites (only one of the two has merge_qkv)"),
        ({"rewrites": ("merge_qkv", "merge-swiglu")}, "only one of the two has merge-swiglu"),
    ],
)
def test_calibration_of_another_graph_is_refused(tmp_path, changes, message):
    """The message names exactly what differs, and how to mend it."""
    bundle = bundle_of(tmp_path)
    with pytest.raises(CalibrationError) as caught:
        require_match(make_calibration(**changes), bundle.variant("fp32"), bundle)
    text = str(caught.value)
    assert f"another graph than variant 'fp32': {message}" in text or message in text
    assert "calibrate again" in text
    assert text.count(";") == 1  # nothing else is said to differ


def test_everything_that_differs_is_named(tmp_path):
    """Not only the first thing."""
    bundle = bundle_of(tmp_path)
    other = make_calibration(weights_sha256=OTHER, component="encoder", rewrites=("x",))
    with pytest.raises(CalibrationError, match=r"weights .*; component .*; rewrites .* merge_qkv, x\)"):
        require_match(other, bundle.variant("fp32"), bundle)
