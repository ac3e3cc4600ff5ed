"""From files to a sorted, finite float32 state dict and a report of what was left out."""

from __future__ import annotations

import hashlib

import pytest
import torch
from checkpoint_samples import golden_tensors, save_safetensors, save_torch, with_language_model
from golden_cases import golden_case

from pargo_export.checkpoint.reader import open_checkpoint, read_checkpoint
from pargo_export.errors import CheckpointError, StateDictError

CASE = golden_case("pargo_w2")
TENSORS = golden_tensors("pargo_w2")


def read(path):
    """Read with the configuration of the golden case."""
    return read_checkpoint(path, CASE.config)


def test_report_of_a_plain_checkpoint():
    """The report counts weights, parameters and buffers and hashes the file."""
    report = read(CASE.checkpoint).report
    assert report.files[0].sha256 == hashlib.sha256(CASE.checkpoint.read_bytes()).hexdigest()
    assert report.files[0].size_bytes == CASE.checkpoint.stat().st_size
    assert (report.num_tensors, report.num_buffers) == (183, 9)
    assert (
        report.num_parameters
        == sum(value.numel() for key, value in TENSORS.items() if "rope" not in key) - 64
    )
    assert report.stored_dtypes == {"float32": 183}
    assert report.ignored == ()


@pytest.mark.parametrize("prefix", ["", "module.", "_forward_module.module."])
@pytest.mark.parametrize("container", [None, "state_dict", "module"])
def test_wrapped_checkpoints(tmp_path, prefix, container):
    """Prefixes of DeepSpeed and of data parallelism come off, in every container."""
    content = {prefix + key: value for key, value in TENSORS.items()}
    loaded = read(save_torch(tmp_path / "weights.pt", {container: content} if container else content))
    assert loaded.report.num_tensors == 183
    assert loaded.report.container == (container or "state dict")


def test_minigpt4_container(tmp_path):
    """Under `model` the projection is called after llama."""
    content = {key.replace("llm_", "llama_"): value for key, value in with_language_model(TENSORS).items()}
    loaded = read(save_torch(tmp_path / "weights.pth", {"model": content}))
    assert torch.equal(loaded.state_dict["projector.llm_projection.weight"], TENSORS["llm_proj.weight"])
    assert [group.name for group in loaded.report.ignored] == [
        "language model",
        "LoRA adapters of the language model",
    ]


def test_other_parts_are_counted(tmp_path):
    """Language model, LoRA and text branch are left out, with tensors and parameters counted."""
    text = {
        "ParGo.cls.predictions.bias": torch.ones(40),
        "ParGo.bert.encoder.layer.0.output.dense.bias": torch.ones(48),
    }
    report = read(save_torch(tmp_path / "weights.pt", with_language_model(TENSORS) | text)).report
    found = {group.name: (group.num_tensors, group.num_parameters) for group in report.ignored}
    assert found == {
        "language model": (2, 96),
        "LoRA adapters of the language model": (2, 32),
        "text branch of the query layers": (2, 88),
    }


def test_tensors_of_other_parts_are_not_read(tmp_path):
    """A language model may be stored in a dtype, and with values, that no weight of the front-end may have."""
    extra = {
        "llm_model.weight": torch.ones(4, dtype=torch.int8),
        "llm_model.bias": torch.full((3,), torch.nan),
    }
    assert read(save_safetensors(tmp_path / "weights.safetensors", TENSORS | extra)).report.num_tensors == 183


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float_dtypes_become_float32(tmp_path, dtype):
    """Half, bfloat16 and double weights are converted and the report says what was stored."""
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in TENSORS.items()}
    loaded = read(save_safetensors(tmp_path / "weights.safetensors", stored))
    assert {weight.dtype for weight in loaded.state_dict.values()} == {torch.float32}
    assert torch.equal(loaded.state_dict["output_norm.weight"], TENSORS["ln_vision.weight"].to(dtype).float())
    assert loaded.report.stored_dtypes == {str(dtype).removeprefix("torch."): 183}


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.complex64]
)
@pytest.mark.parametrize("save", [save_safetensors, save_torch])
def test_other_dtypes_are_refused(tmp_path, dtype, save):
    """Quantized and other weights are refused, all of them by name and dtype."""
    stored = TENSORS | {key: TENSORS[key].to(dtype) for key in ("ln_vision.bias", "llm_proj.bias")}
    path = save(tmp_path / f"weights.{'pt' if save is save_torch else 'safetensors'}", stored)
    message = (
        rf"2 weights .*(ln_vision|llm_proj)\.bias \({str(dtype)[6:].lower()}\), .*bias \({str(dtype)[6:]}\)"
    )
    with pytest.raises(StateDictError, match=f"(?i){message}"):
        read(path)


def test_sparse_tensors_are_refused(tmp_path):
    """A sparse weight is named with its layout."""
    stored = TENSORS | {"llm_proj.weight": TENSORS["llm_proj.weight"].to_sparse()}
    with pytest.raises(StateDictError, match=r"llm_proj\.weight \(float32 \(sparse_coo\)\)"):
        read(save_torch(tmp_path / "weights.pt", stored))


def test_values_that_are_not_finite_are_refused(tmp_path):
    """NaN, infinity and doubles that overflow float32 are listed in full, with counts; large sums are not."""
    broken = TENSORS | {
        "ln_vision.bias": torch.tensor([torch.nan] * 3 + [0.0] * 61),
        "query_tokens": torch.full_like(TENSORS["query_tokens"], -torch.inf),
        "llm_proj.bias": torch.full((80,), 1e300, dtype=torch.float64),
        "llm_proj.weight": torch.full((80, 48), 3e38),
    }
    with pytest.raises(StateDictError, match="3 weights are not finite") as caught:
        read(save_torch(tmp_path / "weights.pt", broken))
    for wanted in (
        "ln_vision.bias (3 NaN, 0 infinite of 64)",
        "query_tokens (0 NaN, 1056",
        "llm_proj.bias (0 NaN, 80",
    ):
        assert wanted in str(caught.value)


def test_two_keys_for_one_tensor(tmp_path):
    """A checkpoint that holds a tensor twice under two prefixes is refused with both keys."""
    with pytest.raises(StateDictError, match=r"query_tokens and module\.query_tokens both mean query_tokens"):
        read(save_torch(tmp_path / "weights.pt", TENSORS | {"module.query_tokens": TENSORS["query_tokens"]}))


def test_strided_and_shared_tensors(tmp_path):
    """Views of one storage are read as what they show."""
    base = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    stored = TENSORS | {"ln_vision.weight": base[:, 0], "ln_vision.bias": base[:, 1]}
    loaded = read(save_torch(tmp_path / "weights.pt", stored)).state_dict
    assert torch.equal(loaded["output_norm.bias"], base[:, 1])
    assert loaded["output_norm.bias"].is_contiguous()


def split_tower():
    """Split a golden state dict into an EVA-CLIP file and the rest."""
    prefix = "visual_encoder."
    clip = {
        "visual." + key.removeprefix(prefix): value
        for key, value in TENSORS.items()
        if key.startswith(prefix)
    }
    clip |= {"text.ln_final.weight": torch.ones(8), "logit_scale": torch.ones(())}
    return clip, {key: value for key, value in TENSORS.items() if not key.startswith(prefix)}


def test_vision_checkpoint_completes_the_main_one(tmp_path):
    """A tower from an EVA-CLIP file and the rest from a fusion-only file are the whole model."""
    clip, rest = split_tower()
    vision = save_torch(tmp_path / "EVA02_CLIP.pt", clip)
    loaded = read_checkpoint(save_torch(tmp_path / "fusion.pt", rest), CASE.config, vision)
    whole = read(CASE.checkpoint)
    assert loaded.state_dict.keys() == whole.state_dict.keys()
    assert all(torch.equal(loaded.state_dict[name], weight) for name, weight in whole.state_dict.items())
    assert [record.name for record in loaded.report.files] == ["fusion.pt", "EVA02_CLIP.pt"]
    assert [(group.name, group.num_tensors) for group in loaded.report.ignored] == [("text tower of CLIP", 2)]
    assert loaded.report.num_buffers == 9
    assert "71 tower weights come from the vision checkpoint" in loaded.report.notes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_same_tower_in_both_checkpoints(tmp_path, dtype):
    """A tower that both hold is noted if it is the same, up to the narrower dtype."""
    vision = save_torch(
        tmp_path / "vision.pt", {key: value.to(dtype) for key, value in split_tower()[0].items()}
    )
    loaded = read_checkpoint(CASE.checkpoint, CASE.config, vision)
    assert "71 tower weights are in both checkpoints and the same" in loaded.report.notes
    assert torch.equal(loaded.state_dict["tower.head.bias"], TENSORS["visual_encoder.head.bias"])


def test_different_towers(tmp_path):
    """Two towers that differ are refused with the first keys."""
    clip = split_tower()[0]
    clip["visual.head.bias"] = clip["visual.head.bias"] + 1
    vision = save_torch(tmp_path / "vision.pt", clip)
    with pytest.raises(
        StateDictError, match=r"1 of its weights differ, the first ones: visual_encoder\.head\.bias"
    ):
        read_checkpoint(CASE.checkpoint, CASE.config, vision)


def test_vision_checkpoint_without_tower(tmp_path):
    """A vision checkpoint must hold a tower."""
    vision = save_torch(tmp_path / "vision.pt", split_tower()[1])
    with pytest.raises(StateDictError, match="holds no weights of a vision tower"):
        read_checkpoint(CASE.checkpoint, CASE.config, vision)


def test_other_weights_of_the_vision_checkpoint(tmp_path):
    """A whole model given for its tower lends its tower alone; the rest is counted."""
    rest = save_torch(tmp_path / "fusion.pt", split_tower()[1])
    report = read_checkpoint(rest, CASE.config, CASE.checkpoint).report
    assert report.ignored[0].name == "other weights of the vision checkpoint"
    assert report.num_tensors == 183


def test_file_that_vanishes(tmp_path):
    """A file that is removed between opening and loading is a checkpoint error."""
    path = save_safetensors(tmp_path / "weights.safetensors", TENSORS)
    opened = open_checkpoint(path, CASE.config)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        opened.load()
