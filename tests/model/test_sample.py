"""Sample checkpoints: the official layout, the same bytes every time, weights that behave."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from golden_cases import GOLDEN
from safetensors import safe_open

from pargo_export.checkpoint.presets import PRESETS, preset
from pargo_export.errors import CheckpointError, ConfigError
from pargo_export.model.loading import load_checkpoint
from pargo_export.model.sample import sample_tensors, write_sample


def test_full_size_has_exactly_the_official_entries():
    """The full-size preset has the 675 official keys with their shapes and dtypes."""
    official = json.loads((GOLDEN / "official_full_keys.json").read_text("utf-8"))
    expected = {key: (tuple(entry["shape"]), entry["dtype"]) for key, entry in official["state_dict"].items()}
    tensors = list(sample_tensors(preset("eva02-l-336-internlm2-7b")))
    found = {tensor.name: (tensor.shape, str(tensor.dtype).removeprefix("torch.")) for tensor in tensors}
    assert len(tensors) == len(found) == official["num_keys"] == 675
    assert found == expected


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("tiny")])
def test_samples_load(tmp_path, name, suffix):
    """Every small preset loads strictly, without a configuration beside it."""
    model = load_checkpoint(write_sample(tmp_path / f"sample.{suffix}", name))
    assert model.config == preset(name)


def test_formats_hold_the_same_weights(tmp_path):
    """Both formats load to the same model."""
    models = [
        load_checkpoint(write_sample(tmp_path / name, "tiny", seed=3)) for name in ("a.pt", "a.safetensors")
    ]
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_bytes_depend_on_the_seed_alone(tmp_path, suffix):
    """The same seed gives the same bytes, another seed others."""
    paths = [write_sample(tmp_path / f"{index}.{suffix}", seed=seed) for index, seed in enumerate((0, 0, 1))]
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second != other


def test_configuration_travels_with_the_file(tmp_path):
    """The metadata of a safetensors file carries any configuration, so that nothing else is needed."""
    values = preset("tiny").model_dump()
    values["projector"] |= {"num_partial_tokens": 12, "partial_attention_windows": (1, 3, 5, None)}
    config = type(preset("tiny")).model_validate(values | {"tile_columns": 2})
    path = write_sample(tmp_path / "sample.safetensors", config)
    with safe_open(path, framework="pt") as file:
        assert "pargo_export.config" in file.metadata()
    assert load_checkpoint(path).config == config


def test_language_model_is_recognised(tmp_path):
    """The optional language model is reported as left out."""
    report = load_checkpoint(write_sample(tmp_path / "sample.safetensors", llm=True)).report
    assert [(group.name, group.num_tensors) for group in report.ignored] == [
        ("language model", 3),
        ("LoRA adapters of the language model", 2),
    ]


def test_activations_stay_of_order_one(tmp_path):
    """No stage explodes or vanishes, and images matter."""
    model = load_checkpoint(write_sample(tmp_path / "sample.safetensors"))
    images = torch.randn(2, 3, 84, 84, generator=torch.Generator().manual_seed(0))
    stages = model.encode_images(images, return_intermediates=True)
    for stage in (stages.image_features, *stages.layers, stages.visual_tokens):
        assert 0.3 < stage.std() < 3
    assert (stages.visual_tokens[0] - stages.visual_tokens[1]).abs().mean() > 0.1


def test_outliers_give_activations_heavy_tails(tmp_path):
    """With outliers a few channels of every normalised activation are far larger than the rest; without, none."""
    ratios = {}
    for outliers in (False, True):
        model = load_checkpoint(write_sample(tmp_path / f"{outliers}.safetensors", outliers=outliers))
        pixels = torch.randn(1, 3, *model.config.input_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            tokens = model.tower.embedding(model.tower.patch_embedding(pixels).flatten(2).transpose(1, 2))
            for block in model.tower.blocks:
                largest = block.norm2(tokens).abs().amax(dim=(0, 1))
                tokens = block(tokens)
        ratios[outliers] = float(largest.max() / largest.median())
    assert ratios[False] < 4
    assert ratios[True] > 4


def test_existing_file_is_kept(tmp_path):
    """An existing file is replaced only on request, and a failure leaves nothing behind."""
    path = tmp_path / "sample.safetensors"
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(CheckpointError, match="exists already"):
        write_sample(path)
    assert path.read_text("utf-8") == "precious"
    write_sample(path, overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["sample.safetensors"]


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    """A write that fails in the middle leaves neither the file nor a temporary one."""

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left"):
        write_sample(tmp_path / "sample.pt")
    assert not list(tmp_path.iterdir())


def test_wrong_requests(tmp_path):
    """An unknown suffix, preset or directory says what is possible."""
    with pytest.raises(CheckpointError, match=r"suffix '\.onnx', expected \.safetensors, \.pt"):
        write_sample(tmp_path / "sample.onnx")
    with pytest.raises(ConfigError, match="unknown preset 'huge'; the presets are"):
        write_sample(tmp_path / "sample.pt", "huge")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_sample(tmp_path / "absent" / "sample.pt")


@pytest.mark.slow
def test_full_size_needs_one_copy_of_the_weights(tmp_path):
    """Writing and loading the full size stays below 1.5 copies of its 1.3 GB, PyTorch itself included."""
    path = tmp_path / "full.safetensors"
    for command in (
        f"write_sample({str(path)!r}, 'eva02-l-336-internlm2-7b')",
        f"load_checkpoint({str(path)!r})",
    ):
        code = (
            "import resource\n"
            "from pargo_export.model.loading import load_checkpoint\n"
            "from pargo_export.model.sample import write_sample\n"
            f"{command}\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(done.stdout) * 1024 < 1.5 * path.stat().st_size
