"""The rotation kernel agrees with the reference and with the module of the rewrite."""

from __future__ import annotations

import math

import pytest
import torch
from fusion_cases import DEVICE, HALF_AND_FLOAT, assert_same, poison_empty, random

from pargo_export.config import VisionConfig
from pargo_export.model.tower import RotaryEmbedding
from pargo_export.rewrite.half_rotation_rope import HalfRotationEmbedding
from pargo_kernels import reference_fusions

pytest.importorskip("triton")

from pargo_kernels import triton_rotate
from pargo_kernels.triton_common import Launch

BATCH, TOKENS = 2, 5
HEADS = ((3, 12), (2, 8), (1, 2))  # number, dimension


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    poison_empty(monkeypatch)


def tables(dim, dtype=torch.float32, tokens=TOKENS):
    """Return cosines and signed sines; the halves differ, so that mixing them up is found out."""
    return random(tokens, dim, dtype=dtype, seed=8), random(tokens, dim, dtype=dtype, seed=9)


def both(qkv, dim, num_heads, table_dtype=torch.float32, **options):
    """Return the result by the kernel and by the reference."""
    cos, signed_sin = tables(dim, table_dtype, qkv.shape[1])
    found = triton_rotate.rotate_heads(qkv, cos, signed_sin, num_heads=num_heads, **options)
    options.pop("launch", None)
    return found, reference_fusions.rotate_heads(qkv, cos, signed_sin, num_heads=num_heads, **options)


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
@pytest.mark.parametrize(("num_heads", "dim"), HEADS)
def test_kernel_is_the_reference(num_heads, dim, dtype):
    """Query and key turn, the value does not."""
    qkv = random(BATCH, TOKENS, 3 * num_heads * dim, dtype=dtype)
    found, expected = both(qkv, dim, num_heads, dtype)
    assert_same(found, expected)
    assert torch.equal(found[..., 2 * num_heads * dim :], qkv[..., 2 * num_heads * dim :])


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
@pytest.mark.parametrize("source", ["float", "int32"])
def test_pending_factor_and_bias(source, dtype):
    """Factor and bias of every channel apply before the rotation, to the value too."""
    channels = 3 * 3 * 12
    qkv = random(BATCH, TOKENS, channels, dtype=dtype if source == "float" else torch.int32)
    factor = random(channels, seed=1) / (1 if source == "float" else 3000)
    bias = random(channels, dtype=dtype, seed=2)
    for pending in ({"x_scale": factor, "x_bias": bias}, {"x_scale": factor}, {"x_bias": bias}):
        if source == "int32" and "x_scale" not in pending:
            continue
        assert_same(*both(qkv, 12, 3, dtype, dtype=dtype, **pending))


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
def test_in_place_leaves_the_value_and_its_neighbours_alone(dtype):
    """A strided view turns in place; nothing else of the tensor that it is a view of changes."""
    wide = random(BATCH, TOKENS + 1, 4 * 36, dtype=dtype)
    qkv = wide[:, 1:, : 3 * 36]
    before = wide.clone()
    cos, signed_sin = tables(12, dtype)
    expected = reference_fusions.rotate_heads(qkv, cos, signed_sin, num_heads=3)
    found = triton_rotate.rotate_heads(qkv, cos, signed_sin, num_heads=3, in_place=True)
    assert found is qkv
    assert_same(found.contiguous(), expected)
    assert torch.equal(wide[:, :1], before[:, :1])
    assert torch.equal(wide[..., 2 * 36 :], before[..., 2 * 36 :])


@pytest.mark.parametrize("dtype", HALF_AND_FLOAT)
def test_in_place_factor_and_bias_stay_pending_for_the_value(dtype):
    """Query and key get factor and bias while they turn; the value channels keep what they hold."""
    qkv = random(BATCH, TOKENS, 3 * 36, dtype=dtype)
    cos, signed_sin = tables(12, dtype)
    pending = {"x_scale": random(108, seed=1), "x_bias": random(108, dtype=dtype, seed=2)}
    apart = reference_fusions.rotate_heads(qkv, cos, signed_sin, num_heads=3, **pending)
    expected = torch.cat([apart[..., :72], qkv[..., 72:]], dim=-1)
    for rotate in (triton_rotate.rotate_heads, reference_fusions.rotate_heads):
        found = rotate(qkv.clone(), cos, signed_sin, num_heads=3, in_place=True, **pending)
        assert_same(found, expected)


def test_in_place_reads_no_value_channels():
    """In place, two thirds of the heads are launched."""
    qkv, (cos, signed_sin) = random(BATCH, TOKENS, 3 * 36), tables(12)
    in_place = triton_rotate.launch_rotate_heads(qkv, cos, signed_sin, qkv, num_heads=3)
    apart = triton_rotate.launch_rotate_heads(qkv, cos, signed_sin, torch.empty_like(qkv), num_heads=3)
    assert (in_place.options["HEADS"], apart.options["HEADS"]) == (6, 9)


@pytest.mark.parametrize("launch", [Launch(1, 1), Launch(4, 2), Launch(32, 4), Launch(64, 1)])
def test_strided_rows_and_every_launch(launch):
    """Heads per program need not divide the heads of a row."""
    qkv = random(BATCH, TOKENS + 1, 130, dtype=torch.float16)[:, 1:, 8:116]
    assert_same(*both(qkv, 12, 3, launch=launch))


def test_kernel_is_the_module_of_the_rewrite():
    """The kernel stands for `HalfRotationEmbedding`; the class token's row does not turn."""
    config = VisionConfig(image_size=6, patch_size=3, width=16, num_layers=1, head_width=8, hidden_width=24)
    module = HalfRotationEmbedding(RotaryEmbedding(config)).to(DEVICE)
    tokens, dim = module.cos.shape
    qkv = random(BATCH, tokens, 3 * 2 * dim)
    parts = qkv.unflatten(-1, (3, 2, dim)).permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    expected = torch.stack([module(parts[0]), module(parts[1]), parts[2]])
    found = triton_rotate.rotate_heads(qkv, module.cos, module.signed_sin, num_heads=2)
    assert_same(found, expected.permute(1, 3, 0, 2, 4).flatten(2))
    assert torch.equal(found[:, 0], qkv[:, 0])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, in the interpreter
def test_an_infinite_value_stays_infinite():
    """Value channels are copied, not multiplied by 1 and 0."""
    qkv = random(1, TOKENS, 36)
    qkv[..., 24:] = math.inf
    found, expected = both(qkv, 4, 3)
    assert (found[..., 24:] == math.inf).all()
    assert_same(found[..., :24], expected[..., :24])


def test_large_batches_take_more_heads_a_program():
    """Small programs at batch 1, larger ones where many waves follow each other."""
    assert triton_rotate.choose_launch(577 * 32, 32) == Launch(16, 2)
    assert triton_rotate.choose_launch(8 * 577 * 32, 32) == Launch(32, 4)


def test_refusals_say_why():
    """What the kernel cannot take is named."""
    qkv, cos = random(1, 2, 24), random(2, 8)
    with pytest.raises(ValueError, match=r"must be contiguous: call \.contiguous\(\)"):
        triton_rotate.rotate_heads(qkv, cos[:, ::2], cos[:, ::2], num_heads=2)
    with pytest.raises(ValueError, match="pass in_place=False"):
        triton_rotate.rotate_heads(
            qkv, cos[:, :4], cos[:, :4], num_heads=2, in_place=True, dtype=torch.float16
        )
