"""Rewriting a copy of the reference."""

from __future__ import annotations

import random

import pytest
import torch
from golden_cases import CASES, golden_case, golden_model
from rewrite.exactness import assert_same_function, exact_case
from rewrite.random_models import ODD_CONFIGS, random_images, random_model
from tolerances import TOLERANCES

from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.attention_forms import ATTENTION_FORMS
from pargo_export.rewrite.registry import REWRITES
from pargo_export.rewrite.rewrite import RewriteResult

EVERYTHING = list(REWRITES.values())


def random_subsets(count):
    """Return subsets of all rewrites, each in the order of the registry."""
    generator = random.Random(11)  # noqa: S311 (nothing secret)
    return [[each for each in EVERYTHING if generator.random() < 0.5] for _ in range(count)]


SUBSETS = random_subsets(40)


@pytest.mark.parametrize("attention", ATTENTION_FORMS)
@pytest.mark.parametrize("index", range(len(SUBSETS)), ids=lambda index: f"subset{index}")
def test_any_subset_with_any_form_is_exact(index, attention):
    """Rewrites do not rely on each other: 40 random subsets, the golden case in turn, in float64."""
    case = exact_case(CASES[index % len(CASES)])
    deployed, _ = deploy_module(case.model, SUBSETS[index], attention, torch.float64)
    found = deployed.encode_images(case.images, return_intermediates=True)
    assert_same_function(found, case.expected)


@pytest.mark.parametrize("name", ["cascaded", "no_global", "tiles_2x2", "sparse_cross", "linear_tiles_1x2"])
def test_any_subset_is_exact_on_odd_models(name):
    """Twenty subsets on models that the golden cases do not have."""
    config = ODD_CONFIGS[name]
    model, images = random_model(config).double(), random_images(config).double()
    expected = model.encode_images(images, return_intermediates=True)
    for index, subset in enumerate(SUBSETS[:20]):
        deployed, _ = deploy_module(model, subset, ATTENTION_FORMS[index % 4], torch.float64)
        assert_same_function(deployed.encode_images(images, return_intermediates=True), expected)


@pytest.mark.parametrize("name", CASES)
def test_all_rewrites_in_float32_match_the_official_outputs(name):
    """The deploy module meets the tolerance of the reference itself."""
    case = golden_case(name)
    deployed, _ = deploy_module(golden_model(name), EVERYTHING, "fused")
    error = (deployed(case.images) - case.io["projected"]).abs().max().item()
    assert error <= TOLERANCES["golden-reference"].value


def test_results_name_every_rewrite_in_order():
    """Also those that found nothing to change."""
    _, results = deploy_module(golden_model("linear"), EVERYTHING, "fused")
    assert [result.name for result in results] == list(REWRITES)
    assert RewriteResult("merge-cross-kv", 0) in results
    assert RewriteResult("half-rotation-rope", 2) in results


def storages(model):
    """Return the size in bytes of every storage, by address."""
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


def test_without_rewrites_no_weight_is_copied():
    """Every parameter and table is the reference's own tensor."""
    model = golden_model("pargo_w2")
    deployed, _ = deploy_module(model, [], "fused")
    assert deployed is not model
    assert storages(deployed) == storages(model)
    own = dict(model.named_parameters())
    assert all(parameter is own[name] for name, parameter in deployed.named_parameters())


@pytest.mark.parametrize("rewrite", EVERYTHING, ids=list(REWRITES))
def test_memory_grows_by_what_was_rewritten_only(rewrite):
    """What is new is no larger than what it replaces, but for padding and one table of positions."""
    model = golden_model("pargo_w2")
    deployed, _ = deploy_module(model, [rewrite], "fused")
    before, after = storages(model), storages(deployed)
    new = sum(size for address, size in after.items() if address not in before)
    replaced = sum(size for address, size in before.items() if address not in after)
    padding = {"pad-swiglu": 1.2, "merge-qkv": 1.1, "half-rotation-rope": 1.2}.get(rewrite.name, 1.0)
    assert new <= padding * replaced
    assert len(set(after) & set(before)) >= len(before) * 0.4, "most weights are shared"


def test_tables_shared_by_blocks_are_shared_by_the_copy():
    """All blocks of the reference read one rotary table; a copy without rewrites reads the same one."""
    model = golden_model("pargo_w2")
    deployed, _ = deploy_module(model, [], "fused")
    tables = {block.attention.rope.cos.data_ptr() for block in deployed.tower.blocks}
    assert tables == {model.tower.blocks[0].attention.rope.cos.data_ptr()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_a_cast_leaves_the_reference_in_float32(dtype):
    """Weights and tables of the copy have the new dtype, those of the reference neither dtype nor bits changed."""
    model = golden_model("pargo_w2")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = model.tower.blocks[0].attention.rope.cos.clone()
    deployed, _ = deploy_module(model, EVERYTHING, "dense", dtype)
    assert {tensor.dtype for tensor in (*deployed.parameters(), *deployed.buffers())} == {dtype}
    assert {tensor.dtype for tensor in (*model.parameters(), *model.buffers())} == {torch.float32}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.tower.blocks[0].attention.rope.cos, table)


def test_a_rewrite_before_the_cast_is_rounded_once():
    """Rewrites compute in the dtype of the reference, so a merged weight is the rounded float32 product."""
    model = golden_model("pargo_w2")
    exact, _ = deploy_module(model, EVERYTHING, "fused")
    half, _ = deploy_module(model, EVERYTHING, "fused", torch.float16)
    rounded = {name: tensor.half() for name, tensor in exact.state_dict().items()}
    assert all(torch.equal(tensor, rounded[name]) for name, tensor in half.state_dict().items())


def test_the_copy_is_ready_for_inference():
    """It is in evaluation mode, needs no gradients and keeps the configuration."""
    model = golden_model("pargo_w2")
    deployed, _ = deploy_module(model, EVERYTHING, "fused")
    assert not deployed.training
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    assert deployed.config == model.config
