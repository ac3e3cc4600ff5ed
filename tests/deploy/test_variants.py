"""Which variant of a bundle fits a target."""

from __future__ import annotations

import pytest

from pargo_export.bundle import Bundle
from pargo_export.deploy.variants import describe_fit, find_variant

INT8 = {"precision": "int8", "dialect": "tensorrt"}


def find(path, precision, target):
    """Return the name of the variant, `None` if there is none."""
    found = find_variant(Bundle.open(path).manifest, precision, target)
    return found and found.name


def test_the_one_made_for_the_target_comes_first(bundle, add_variants):
    """Else one for another GPU, and of several of those the first name."""
    add_variants(bundle, b_orin={**INT8, "target": "orin"}, a_cuda=INT8, c_thor={**INT8, "target": "thor"})
    assert find(bundle, "int8", "orin") == "b-orin"
    assert find(bundle, "int8", "thor") == "c-thor"
    assert find(bundle, "int8", "rtx") == "a-cuda"


def test_orin_prefers_an_attention_without_functions(bundle, add_variants):
    """JetPack 6 reads it for certain; elsewhere the form does not count."""
    add_variants(bundle, a_fused=INT8, b_structured={**INT8, "attention": "structured"})
    assert find(bundle, "int8", "orin") == "b-structured"
    assert find(bundle, "int8", "thor") == "a-fused"


def test_float_graphs_for_cpus_are_the_last_choice(bundle, add_variants):
    """They compute the same, without the padding that tensor cores want."""
    assert find(bundle, "float32", "cuda") == "fp32"
    add_variants(bundle, z_fp32={"target": "rtx"})
    assert find(bundle, "float32", "cuda") == "z-fp32"


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "int8", "dialect": "cpu"},
        {**INT8, "failed": True},
        {**INT8, "component": "projector"},
        {**INT8, "attention": "attention_op"},
        {"precision": "fp8", "dialect": "tensorrt"},
    ],
    ids=["dialect", "evidence", "component", "attention", "precision"],
)
def test_what_does_not_fit(bundle, add_variants, changes):
    """The dialect of CPUs, failed evidence, a part of the model, an operator for another target, another precision."""
    add_variants(bundle, candidate=changes)
    assert find(bundle, "int8", "orin") is None


def test_the_attention_operator_fits_the_target_it_was_made_for(bundle, add_variants):
    """Who exported it for that target knows its TensorRT."""
    add_variants(bundle, op={**INT8, "attention": "attention_op", "target": "thor"})
    assert find(bundle, "int8", "thor") == "op"


def test_float16_around_and_normalised_pixels_are_preferred(bundle, add_variants):
    """What is not quantized runs faster in float16."""
    add_variants(bundle, a={"precision": "float16", "input": "uint8"}, b={"precision": "float16"})
    assert find(bundle, "float16", "cuda") == "b"


def test_remarks_say_what_does_not_suit(bundle, add_variants):
    """A graph for CPUs, one for another GPU, functions on Orin; nothing about one that suits."""
    add_variants(bundle, mine={"target": "thor"}, orin={"target": "orin", "attention": "structured"})
    opened = Bundle.open(bundle)
    (remark,) = describe_fit(opened.variant("fp32"), "rtx")
    assert "was made for CPUs" in remark
    assert "pargo-export trt CHECKPOINT -o BUNDLE --target rtx" in remark
    made_for, functions = describe_fit(opened.variant("mine"), "orin")
    assert "was made for thor, it serves orin as well" in made_for
    assert "writes its attention as functions" in functions
    assert describe_fit(opened.variant("mine"), "thor") == ()
    assert describe_fit(opened.variant("orin"), "orin") == ()


def test_failed_evidence_can_be_allowed(bundle, add_variants):
    """As the last choice, however well the rest suits."""
    add_variants(bundle, a={**INT8, "failed": True, "target": "orin"})
    manifest = Bundle.open(bundle).manifest
    assert find_variant(manifest, "int8", "orin", allow_failed=True).name == "a"
    add_variants(bundle, b=INT8)
    assert find_variant(Bundle.open(bundle).manifest, "int8", "orin", allow_failed=True).name == "b"
