"""Four ways to write the projector's attention."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES
from rewrite.exactness import assert_same_function, deploy, exact_case
from rewrite.random_models import ODD_CONFIGS, random_images, random_model
from tolerances import TOLERANCES

from pargo_export.model.projector import CrossCore, SelfCore
from pargo_export.model.tower import TowerCore
from pargo_export.rewrite.attention_forms import (
    ATTENTION_FORMS,
    DenseCore,
    FusedCross,
    FusedSelf,
    StructuredCross,
    StructuredSelf,
    set_attention_form,
)
from pargo_export.rewrite.attention_op import OperatorCross, OperatorSelf, OperatorTower
from pargo_export.rewrite.registry import REWRITES

CORES = {
    "fused": {FusedCross, FusedSelf, TowerCore},
    "structured": {StructuredCross, StructuredSelf, TowerCore},
    "dense": {DenseCore, TowerCore},
    "attention_op": {OperatorCross, OperatorSelf, OperatorTower},
}


def test_forms():
    """The forms and their order, as the command line shows them."""
    assert ATTENTION_FORMS == ("fused", "structured", "dense", "attention_op")
    assert set(CORES) == set(ATTENTION_FORMS)


@pytest.mark.parametrize("attention", ATTENTION_FORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_form_computes_the_reference_on_the_golden_cases(name, attention):
    """Without any rewrite, in float64."""
    case = exact_case(name)
    found = deploy(case.model, attention=attention).encode_images(case.images, return_intermediates=True)
    assert_same_function(found, case.expected)


@pytest.mark.parametrize("rewritten", [False, True], ids=["plain", "rewritten"])
@pytest.mark.parametrize("attention", ATTENTION_FORMS)
@pytest.mark.parametrize("name", ODD_CONFIGS)
def test_every_form_computes_the_reference_on_odd_models(name, attention, rewritten):
    """Cascaded windows, no or one global token, tiles, sparse cross-attention, with and without all rewrites."""
    config = ODD_CONFIGS[name]
    model, images = random_model(config).double(), random_images(config).double()
    rewrites = REWRITES.values() if rewritten else ()
    found = deploy(model, *rewrites, attention=attention).encode_images(images, return_intermediates=True)
    assert_same_function(found, model.encode_images(images, return_intermediates=True))


@pytest.mark.parametrize("attention", ATTENTION_FORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_core_is_replaced(name, attention):
    """No core of the reference is left in the projector, and the tower's only where the form leaves it."""
    model = exact_case(name).model
    deployed = deploy(model, attention=attention)
    cores = {type(module) for path, module in deployed.named_modules() if path.endswith(".core")}
    assert not cores & {SelfCore, CrossCore}
    assert cores <= CORES[attention]
    config = model.config
    layers = config.projector.num_layers if config.projector.has_queries else 0
    crosses = sum(config.projector.has_cross_attention(layer) for layer in range(layers))
    towers = config.vision.num_layers if attention == "attention_op" else 0
    assert set_attention_form(deploy_reference(model), attention) == layers + crosses + towers
    assert set_attention_form(deployed, attention) == 0


def deploy_reference(model):
    """Return a copy whose attention is still the reference's."""
    deployed = deploy(model)
    for copied, original in zip(deployed.modules(), model.modules(), strict=True):
        if hasattr(original, "core"):
            copied.core = original.core
    return deployed


def test_masks_are_constants_of_the_dense_form_only():
    """One additive mask an attention in `dense`, none where nothing masked is computed."""
    model = exact_case("pargo_w2").model
    masks = {
        attention: [name for name, _ in deploy(model, attention=attention).named_buffers() if "mask" in name]
        for attention in ATTENTION_FORMS
    }
    assert len(masks.pop("dense")) == 8
    assert not any(masks.values())


def test_only_a_cascaded_layer_has_a_mask_in_the_operator_form():
    """A window that all partial tokens share needs none."""
    model = random_model(ODD_CONFIGS["cascaded"])
    names = [name for name, _ in deploy(model, attention="attention_op").named_buffers() if "mask" in name]
    assert names == [f"projector.layers.{layer}.self_attention.core.mask" for layer in (0, 2)]


@pytest.mark.parametrize("attention", ATTENTION_FORMS)
def test_masks_take_the_dtype_of_the_model(attention):
    """A float16 copy computes in float16 throughout, close to the float64 reference."""
    model, images = random_model(ODD_CONFIGS["cascaded"]), random_images(ODD_CONFIGS["cascaded"])
    deployed = deploy(model, attention=attention)
    expected = deployed(images)
    half = deploy(model.half(), attention=attention)
    assert {buffer.dtype for buffer in half.buffers()} == {torch.float16}
    found = half(images.half())
    assert found.dtype == torch.float16
    error = (found.double() - expected.double()).abs().max().item()
    assert error <= TOLERANCES["float16-model"].value
