"""Where a graph comes from."""

from __future__ import annotations

import pytest
import torch
from golden_cases import golden_model
from graph.exports import MICRO, source_model

from pargo_export.config import ModelConfig
from pargo_export.graph import provenance
from pargo_export.graph.options import ExportOptions
from pargo_export.graph.provenance import checkpoint_source, export_recipe, tool_versions, weights_sha256
from pargo_export.preprocessing import PreprocessSpec
from pargo_export.rewrite.rewrite import set_parameter

SPEC = PreprocessSpec.parse({"mode": "pad", "height": 24, "width": 24}, source="test")


def recipe(digest="00", config=MICRO, options=None, spec=SPEC, rewrites=("merge-qkv",)):
    """Return the hash of a recipe."""
    return export_recipe(digest, config, options or ExportOptions(), spec, list(rewrites))


def test_equal_weights_have_equal_hashes():
    """The hash depends on what the weights are, not on where they lie."""
    first, second = source_model("micro"), source_model("micro")
    assert weights_sha256(first) == weights_sha256(second)
    weight = first.projector.llm_projection.weight
    set_parameter(first.projector.llm_projection, "weight", weight.t().contiguous().t())
    assert not first.projector.llm_projection.weight.is_contiguous()
    assert weights_sha256(first) == weights_sha256(second)


@pytest.mark.parametrize("change", ["one_bit", "dtype", "swapped", "renamed"])
def test_other_weights_have_another_hash(change):
    """A single bit, another dtype and the same tensors under other names are all told apart."""
    model, other = source_model("micro"), source_model("micro")
    projection = other.projector.llm_projection
    if change == "one_bit":
        bits = projection.bias.clone().view(torch.int32)
        bits[-1] ^= 1
        set_parameter(projection, "bias", bits.view(torch.float32))
    elif change == "dtype":
        set_parameter(projection, "bias", projection.bias.half())
    elif change == "renamed":
        weights = {name.replace("norm", "nprm"): weight for name, weight in model.state_dict().items()}
        other.state_dict = lambda: weights
    else:
        norm = other.output_norm
        gain, offset = norm.weight, norm.bias
        set_parameter(norm, "weight", offset)
        set_parameter(norm, "bias", gain)
    assert weights_sha256(model) != weights_sha256(other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_can_be_hashed(dtype):
    """Also those that NumPy lacks, and tensors without axes or elements."""
    model = source_model("micro").to(dtype)
    assert len(weights_sha256(model)) == 64


def test_everything_that_decides_the_bytes_is_in_the_recipe(monkeypatch):
    """Another model, option, preprocessing, list of rewrites or tool is another recipe."""
    values = MICRO.model_dump() | {"tile_columns": 2}
    hashes = [
        recipe(),
        recipe(digest="01"),
        recipe(config=ModelConfig.parse(values, source="test")),
        recipe(options=ExportOptions(max_batch=3)),
        recipe(spec=PreprocessSpec.parse(SPEC.model_dump() | {"mode": "resize"}, source="test")),
        recipe(rewrites=("merge-swiglu",)),
        recipe(rewrites=()),
    ]
    before = recipe()
    monkeypatch.setattr(provenance, "tool_versions", lambda: {"torch": "0.0"})
    hashes.append(recipe())
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == before


def test_tools_that_decide_the_bytes_are_recorded():
    """With the versions that are installed."""
    versions = tool_versions()
    assert set(versions) >= {"torch", "onnx", "onnxscript", "onnxruntime", "numpy"}
    assert versions["onnx"] == __import__("onnx").__version__


def test_source_of_a_loaded_checkpoint():
    """File names without their folders, and what was read from them."""
    model = golden_model("pargo_w2")
    source = checkpoint_source(model, "ab" * 32)
    assert source.files == ("pargo_w2.safetensors",)
    assert source.sha256 == "ab" * 32
    assert source.dtypes == ("float32",)
    assert source.num_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_source_of_a_model_made_in_memory():
    """No file is named."""
    model = source_model("micro")
    source = checkpoint_source(model, "ab" * 32)
    assert source.files == ()
    assert source.dtypes == ("float32",)
    assert source.num_parameters == sum(parameter.numel() for parameter in model.parameters())
