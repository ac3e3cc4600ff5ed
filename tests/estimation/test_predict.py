"""Estimates as a whole: sums, properties, refusals."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pargo_export
from pargo_export.checkpoint.presets import preset
from pargo_export.errors import ConfigError
from pargo_export.estimation import PRECISIONS, Device, estimate, find_device, list_devices, predict
from pargo_export.estimation.fractions import load_fractions
from pargo_export.estimation.precisions import price
from pargo_export.estimation.subject import GPU_REWRITES, Subject
from pargo_export.inspect import estimate_cost
from pargo_export.inspect.walk import Form

FULL = "eva02-l-336-internlm2-7b"
ORIN = find_device("orin-agx-64")
FACTORS = st.sampled_from([1.1, 2.0, 10.0])
RANGE = ("low_ms", "central_ms", "high_ms")


def _ends(found):
    return [getattr(found.time, name) for name in RANGE]


def test_a_linear_projector_by_hand():
    """Two products and two kernels each: computing or memory, the output twice more, four launches."""
    config = preset("tiny-mlp").model_copy()
    device = Device.model_validate(
        ORIN.model_dump() | {"fp16": 1.0, "bandwidth": 1000.0, "validated": "measured"}
    )
    found = {block.name: block for block in estimate(config, device, "fp16", batch=2).blocks}[
        "llm_projection"
    ]
    reached = load_fractions().reached
    rows, inputs, outputs = 2 * 9, 256, 80
    seconds = 0.0
    for channels in (inputs, outputs):
        computing = 2 * rows * channels * outputs / (reached.compute * 1e12)
        moving = 2 * (outputs * (channels + 1) + rows * (channels + outputs)) / (reached.bandwidth * 1e12)
        seconds += max(computing, moving) + 4 * rows * outputs / (reached.bandwidth * 1e12)
    seconds += 4 * reached.launch_us * 1e-6
    assert found.time.central_ms == pytest.approx(1e3 * seconds)
    spread = load_fractions().spread["validated"]
    assert found.time.low_ms == pytest.approx(1e3 * seconds * spread.low)
    assert found.time.high_ms == pytest.approx(1e3 * seconds * spread.high)
    assert (found.time.limit, found.kernels) == ("launches", 4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_blocks_add_up(precision):
    """The ends of the whole are the sums of the ends of the blocks, and the operations those of inspect."""
    device = find_device("h100")
    found = estimate("tiny", device, precision, batch=3)
    for name in ("low_ms", "high_ms"):
        total = sum(getattr(block.time, name) for block in found.blocks)
        assert getattr(found.time, name) == pytest.approx(total)
    low, middle, high = _ends(found)
    assert 0 < low < middle < high
    cost = estimate_cost(
        preset("tiny"),
        batch=3,
        attention="fused",
        rewrites=GPU_REWRITES,
    )
    assert sum(block.flops for block in found.blocks) == cost.total().flops


@pytest.mark.parametrize("device", list_devices(), ids=lambda device: device.name)
def test_ranges_say_how_much_is_known(device):
    """A validated FP16 range is the narrowest; INT8 and FP32 ones are wide and say why."""
    widths = {}
    known = {"fp16": device.fp16, "int8": device.int8, "fp32": device.fp32}
    for precision in (name for name, peak in known.items() if peak):
        found = estimate("tiny", device, precision)
        widths[precision] = math.log(found.time.high_ms / found.time.low_ms)
        if precision == "fp16":
            assert (found.evidence == "validated") == bool(device.validated)
        else:
            assert found.evidence == "unproven"
            assert found.notes
    assert all(width > widths["fp16"] for name, width in widths.items() if name != "fp16")


def test_int8_may_be_slower_than_fp16():
    """The slow end of INT8 is beyond FP16's, the fast end before it: whether it pays was not measured."""
    half, eight = estimate(FULL, ORIN, "fp16"), estimate(FULL, ORIN, "int8")
    assert eight.time.high_ms > 1.25 * half.time.high_ms
    assert eight.time.low_ms < half.time.low_ms
    assert "measure it on the device" in eight.notes[0]


def test_fp32_lies_between_tf32_and_the_float32_cores():
    """The fast end computes at half the FP16 rate, the slow one outside the tensor cores; a T4 has no TF32."""
    reached = load_fractions().reached.compute * 1e12
    for name, fast in (("a100", 312.0 / 2), ("t4", 8.1)):
        device = find_device(name)
        pricing = price(device, "fp32")
        assert pricing.fast.flops_per_s == pytest.approx(reached * fast)
        assert pricing.slow.flops_per_s == pytest.approx(reached * device.fp32)


@settings(max_examples=25, deadline=None)
@given(
    field=st.sampled_from(["fp16", "bandwidth"]),
    factor=FACTORS,
    batch=st.integers(1, 9),
    precision=st.sampled_from(["fp16", "int8", "int8-weight-only"]),
)
def test_a_better_device_is_never_slower(field, factor, batch, precision):
    """More operations or bytes a second: no end of the range moves up."""
    better = ORIN.model_copy(update={field: factor * getattr(ORIN, field)})
    if field == "fp16" and precision == "int8":
        better = better.model_copy(update={"int8": factor * ORIN.int8})
    before, after = (estimate("tiny", device, precision, batch) for device in (ORIN, better))
    for slow, fast in zip(_ends(before), _ends(after), strict=True):
        assert fast <= slow * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 12),
    more=st.integers(1, 5),
    precision=st.sampled_from(["fp16", "int8", "fp32"]),
)
def test_a_larger_batch_is_never_faster_and_never_worse_an_image(batch, more, precision):
    """The total grows, the time an image does not."""
    small, large = (estimate("tiny", ORIN, precision, size) for size in (batch, batch + more))
    for before, after in zip(_ends(small), _ends(large), strict=True):
        assert before <= after
        assert after / (batch + more) <= before / batch * (1 + 1e-12)


def test_dense_attention_is_slower(monkeypatch):
    """The official masks send the projector's scores through memory."""
    times = {}
    for attention in ("fused", "dense"):
        subject = Subject(preset(FULL), Form(attention, GPU_REWRITES))
        monkeypatch.setattr(predict, "read_subject", lambda *_, subject=subject: subject)
        times[attention] = {block.name: block.time.high_ms for block in estimate(FULL, ORIN).blocks}
    assert times["dense"]["query_layer_1"] > 1.2 * times["fused"]["query_layer_1"]
    assert times["dense"]["tower_block_0"] == times["fused"]["tower_block_0"]


def test_an_unpadded_hidden_width_is_pointed_out(exported_bundle):
    """A variant for a CPU keeps 170 hidden channels; the estimate says what to do, the padded one does not."""
    assert "no multiple of 8" in estimate(exported_bundle, ORIN, "fp32").notes[-1]
    assert not estimate(exported_bundle, ORIN, "bf16").notes


def test_memory():
    """Weights as they are stored; what does not fit is said, and shared memory keeps more free."""
    fits = estimate(FULL, "orin-nano-8").memory
    parameters = estimate_cost(preset(FULL), element_bytes=2).total().parameters
    assert fits.fits
    assert fits.weight_bytes == pytest.approx(2 * parameters, rel=0.02)
    assert fits.left_bytes == find_device("orin-nano-8").memory_bytes - fits.total_bytes
    assert estimate(FULL, "orin-nano-8", "int8").memory.weight_bytes < 0.6 * fits.weight_bytes
    much = estimate(FULL, "orin-nano-8", batch=600).memory
    assert not much.fits
    own = ORIN.model_copy(update={"memory": 5.0, "is_memory_shared": False})
    shared = own.model_copy(update={"is_memory_shared": True})
    assert estimate(FULL, own, batch=150).memory.fits
    assert not estimate(FULL, shared, batch=150).memory.fits


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        (
            "orin-agx-64",
            "fp8",
            "has no fp8: its compute capability is 8.7, fp8 needs 8.9; choose one of fp32, fp16",
        ),
        ("t4", "bf16", "has no bf16.*choose one of fp32, fp16, int8, int8-weight-only"),
        ("thor", "int8", "no int8 peak with a source"),
        ("orin-nano-8", "fp32", "no fp32 peak with a source.*choose one of fp16, bf16, int8"),
        ("l4", "fp4", "unknown precision 'fp4'; the precisions are fp32, fp16"),
    ],
)
def test_what_a_device_cannot_do(device, precision, message):
    """It is refused with the reason and the choices."""
    with pytest.raises(ConfigError, match=message):
        estimate("tiny", device, precision)


def test_no_images():
    """A batch has at least one image."""
    with pytest.raises(ConfigError, match="batch is 0"):
        estimate("tiny", ORIN, batch=0)


def test_the_public_function_is_the_same():
    """`pargo_export.estimate` is the function, also after the stage was imported."""
    assert pargo_export.estimate is estimate
    assert pargo_export.Estimate.__name__ == "Estimate"


def test_json():
    """The result says that it is an estimate, and goes through JSON."""
    found = estimate("tiny", "thor", "fp8", 2).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert (found["kind"], found["batch"], found["device"]["name"]) == ("estimate", 2, "thor")
    assert found["blocks"][0]["moved_bytes"] > 0


def test_it_needs_no_pytorch():
    """Where PyTorch, onnx and ONNX Runtime are missing, estimates are made all the same."""
    code = """
import sys
for name in ("torch", "onnx", "onnxruntime", "onnx_ir"):
    sys.modules[name] = None
import pargo_export
print(pargo_export.estimate("tiny", "thor", "fp8").evidence)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "other\n", done.stderr
