from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, golden_model
from rewrite.random_models import random_model
from torch.utils.flop_counter import FlopCounterMode
from vit_cases import KINDS, vit_config

from pargo_export.checkpoint.presets import preset
from pargo_export.inspect import estimate_cost
from pargo_export.inspect.parameters import count_parameters
from pargo_export.inspect.walk import SWIGLU_ALIGNMENT
from pargo_export.rewrite.apply import deploy_module
from pargo_export.rewrite.pad_swiglu import ALIGNMENT
from pargo_export.rewrite.registry import REWRITES, select_rewrites

FULL = preset("eva02-l-336-internlm2-7b")


@pytest.fixture(scope="module", params=[*CASES, *KINDS])
def model(request):
    """Return the reference of every golden case in turn, then those with the towers of CLIP and SigLIP."""
    return golden_model(request.param) if request.param in CASES else random_model(vit_config(request.param))


def _count_flops(module, pixel_values):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(pixel_values)
    return counter.get_total_flops()


def _images(model, batch):
    return torch.zeros(batch, 3, *model.config.input_size)


@pytest.mark.parametrize("batch", [1, 3])
def test_reference_flops(model, batch):
    """The operations of the reference are exactly those that PyTorch counts."""
    expected = _count_flops(model, _images(model, batch))
    assert estimate_cost(model.config, batch=batch).total().flops == expected


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("attention", ["structured", "dense"])
def test_rewritten_flops(model, batch, target, attention):
    """The operations of the rewritten model are exactly those that PyTorch counts."""
    deploy, results = deploy_module(model, select_rewrites(target), attention)
    table = estimate_cost(
        model.config,
        batch=batch,
        attention=attention,
        rewrites=[result.name for result in results if result.count],
    )
    assert table.total().flops == _count_flops(deploy, _images(model, batch))


@pytest.mark.parametrize("name", sorted(REWRITES))
def test_every_rewrite_alone(name):
    """Each rewrite changes the count of operations as it changes the model, or not at all."""
    reference = golden_model("pargo_w4_freq2")
    deploy, _ = deploy_module(reference, [REWRITES[name]], "structured")
    table = estimate_cost(reference.config, batch=2, attention="structured", rewrites=[name])
    assert table.total().flops == _count_flops(deploy, _images(reference, 2))


def test_parameters(model):
    """The parameters are those of the reference, block by block and together."""
    found = count_parameters(model.config)
    assert sum(found.values()) == sum(parameter.numel() for parameter in model.parameters())
    for layer, block in enumerate(model.tower.blocks):
        assert found[f"tower_block_{layer}"] == sum(parameter.numel() for parameter in block.parameters())
    for layer, block in enumerate(getattr(model.projector, "layers", ())):
        assert found[f"query_layer_{layer}"] == sum(parameter.numel() for parameter in block.parameters())


def test_tiles():
    """More tiles cost the tower in proportion, and the counts stay those of PyTorch."""
    reference = golden_model("pargo_w2")
    one_tile = estimate_cost(reference.config)
    reference.config = reference.config.with_tiles(1, 2)
    table = estimate_cost(reference.config)
    assert table.total().flops == _count_flops(reference, _images(reference, 1))
    assert table.total("encoder").flops == 2 * one_tile.total("encoder").flops


def test_full_size():
    """The official size costs 191 GMAC in the tower, and 17.22 or, mask-free, 15.79 GFLOP in the projector."""
    dense, structured = estimate_cost(FULL), estimate_cost(FULL, attention="structured")
    assert round(dense.total("encoder").flops / 2e9) == 191
    assert round(dense.total("projector").flops / 1e9, 2) == 17.22
    assert round(structured.total("projector").flops / 1e9, 2) == 15.79
    assert dense.total().parameters == 304_434_880 + 21_433_344


def test_weight_bytes_are_the_parameters_that_are_read(model):
    """The weights of a block are its parameters, but for the rows of tables that are never read."""
    config = model.config
    for block in estimate_cost(config, element_bytes=1).blocks:
        unread = {"unused_tower_weights": block.parameters}
        if config.projector.has_queries:
            rows = config.projector.max_position_embeddings - config.projector.num_query_tokens
            unread["query_embedding"] = rows * config.projector.hidden_size
        assert block.weight_bytes == block.parameters - unread.get(block.name, 0), block.name


def test_bytes_follow_the_element_size():
    """Half the bytes of an element are half the bytes of everything, and no other operations."""
    single, half = estimate_cost(FULL, element_bytes=4), estimate_cost(FULL, element_bytes=2)
    assert half.total().weight_bytes * 2 == single.total().weight_bytes
    assert half.total().activation_bytes * 2 == single.total().activation_bytes
    assert half.total().flops == single.total().flops


def test_components():
    """Encoder and projector together are the whole."""
    encoder, projector = (estimate_cost(FULL, component=name) for name in ("encoder", "projector"))
    assert encoder.blocks + projector.blocks == estimate_cost(FULL).blocks
    assert encoder.total("projector").flops == 0


def test_alignment_is_that_of_the_rewrite():
    """The padding that is counted is the padding that the rewrite makes."""
    assert SWIGLU_ALIGNMENT == ALIGNMENT


def _linears(model, target, without=()):
    """Return the cost table's rewrites and the quantizable linears of a rewritten model, with their sizes."""
    rewrites = [rewrite for rewrite in select_rewrites(target) if rewrite.name not in without]
    deploy, results = deploy_module(model, rewrites, "structured")
    found = {
        path: module.weight.numel()
        for path, module in deploy.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    return [result.name for result in results if result.count], found


@pytest.mark.parametrize("without", [(), ("merge-qkv", "merge-cross-kv", "merge-swiglu")])
@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_quantized_weights_have_one_byte(model, target, without):
    """Of every linear alone, and of all together, exactly the weights shrink from four bytes to one."""
    rewrites, linears = _linears(model, target, without)

    def weight_bytes(quantized):
        table = estimate_cost(model.config, attention="structured", rewrites=rewrites, quantized=quantized)
        return table.total().weight_bytes

    before = weight_bytes(())
    for path, num_weights in linears.items():
        assert before - weight_bytes([path]) == 3 * num_weights, path
    assert before - weight_bytes(linears) == 3 * sum(linears.values())


def test_quantized_inputs_have_one_byte():
    """What a quantized linear reads shrinks too, unless only weights are quantized; operations stay."""
    path, rows = "projector.llm_projection", FULL.num_visual_tokens
    before, after = estimate_cost(FULL, batch=3), estimate_cost(FULL, batch=3, quantized=[path])
    weights_only = estimate_cost(FULL, batch=3, quantized=[path], quantizes_activations=False)
    inputs = 3 * rows * FULL.projector.hidden_size
    assert before.total().activation_bytes - after.total().activation_bytes == 3 * inputs
    assert weights_only.total().activation_bytes == before.total().activation_bytes
    assert weights_only.total().weight_bytes == after.total().weight_bytes
    assert after.total().flops == before.total().flops
    assert after.blocks[:-1] == before.blocks[:-1]


def test_a_merged_input_is_read_once():
    """Of a merged linear the input counts once, with one byte, however many parts it has."""
    path, width = "tower.blocks.0.attention.qkv.merged", FULL.vision.width
    rewrites = ("merge-qkv",)
    before = estimate_cost(FULL, rewrites=rewrites).total().activation_bytes
    after = estimate_cost(FULL, rewrites=rewrites, quantized=[path]).total().activation_bytes
    assert before - after == 3 * (1 + FULL.vision.num_patches) * width


def test_half_precision_beside_eight_bits():
    """What is not quantized keeps the float precision."""
    path = "projector.llm_projection"
    before = estimate_cost(FULL, element_bytes=2)
    after = estimate_cost(FULL, element_bytes=2, quantized=[path])
    num_weights = FULL.projector.hidden_size * FULL.projector.llm_hidden_size
    assert before.total().weight_bytes - after.total().weight_bytes == num_weights
