"""The arithmetic of GPU memory, by hand for one small model and by order of magnitude for the official one."""

from __future__ import annotations

import pytest

from pargo_export.bundle import Bundle
from pargo_export.checkpoint.presets import preset
from pargo_export.runtime.cuda.memory import ALLOWANCE_BYTES, MemoryNeed, estimate_need

MIB = 2**20


def test_largest_batch_is_what_fits():
    """The largest batch fits, one more does not; nothing fits beside weights that do not."""
    need = MemoryNeed(weights_bytes=100 * MIB, image_bytes=10 * MIB, streams=2)
    free = 100 * MIB + ALLOWANCE_BYTES + 7 * 2 * 10 * MIB + 5
    assert need.largest_batch(free) == 7
    assert need.total_bytes(7) <= free < need.total_bytes(8)
    assert need.largest_batch(90 * MIB) == 0


def test_message_says_need_free_memory_and_what_fits():
    """All three, and the option that makes it fit."""
    need = MemoryNeed(weights_bytes=100 * MIB, image_bytes=10 * MIB)
    text = need.explain("fp16", 32, 100 * MIB + ALLOWANCE_BYTES + 45 * MIB)
    for part in ("'fp16' needs about 676 MiB", "100 MiB weights", "32 images of 10 MiB", "401 MiB are free"):
        assert part in text
    assert text.endswith("the largest batch that fits is 4: make the variant again with --max-batch 4")
    assert "not even one image fits: free memory of other processes" in need.explain("fp16", 1, 50 * MIB)
    assert "on each of 3 streams" in MemoryNeed(1, 1, 3).explain("fp16", 1, 0)


@pytest.mark.parametrize(("precision", "raw"), [("float16", 2), ("int8", 4)])
def test_estimate_by_hand(bundle_path, precision, raw):
    """Every term of the formula, for the golden model `pargo_w2`."""
    bundle = Bundle.open(bundle_path)
    variant = bundle.variant("fp32").model_copy(update={"precision": precision})
    need = estimate_need(bundle.manifest, variant, streams=2)
    attention, swiglu = raw * 3 * 64 + 2 * 2 * 64, raw * 2 * 192 + 2 * 192
    tile = 37 * (2 * 3 * 64 + max(attention, swiglu))
    projector = 36 * (2 * 64 + raw * 2 * 4 * 48) + 22 * (6 * 2 * 48 + (raw + 2) * 96) + 2 * 22 * 80
    buffers = 5 * 3 * 84 * 84 + 4 * 22 * 80
    assert need.image_bytes == tile + projector + buffers
    assert need.weights_bytes == bundle.manifest.files[variant.graph].size_bytes
    assert need.streams == 2


def test_components_need_less(bundle_path):
    """The parts of a model need no more than the whole."""
    bundle = Bundle.open(bundle_path)
    whole, encoder, projector = (
        estimate_need(bundle.manifest, bundle.variant(name)).image_bytes
        for name in ("fp32", "fp32-encoder", "fp32-projector")
    )
    assert projector < encoder < whole


def test_official_model_fits_a_small_gpu(bundle_path):
    """About 30 MB an image, so that 8 GB hold the weights (0.7 GB) and far more than 32 images."""
    bundle = Bundle.open(bundle_path)
    config = preset("eva02-l-336-internlm2-7b")
    template = bundle.variant("fp32").signature
    pixels = template.inputs[0].model_copy(update={"shape": ("batch", 3, 336, 336)})
    tokens = template.outputs[0].model_copy(update={"shape": ("batch", 304, 4096)})
    signature = template.model_copy(update={"inputs": (pixels,), "outputs": (tokens,)})
    variant = bundle.variant("fp32").model_copy(update={"precision": "float16", "signature": signature})
    manifest = bundle.manifest.model_copy(update={"model": config})
    need = estimate_need(manifest, variant)
    assert 20e6 < need.image_bytes < 50e6
    assert need.largest_batch(8 * 1024 * MIB) > 100
