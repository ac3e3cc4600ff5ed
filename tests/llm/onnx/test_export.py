from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

from pargo_export.bundle import Limits
from pargo_export.errors import AccuracyError, ConfigError, ExportError, ParityError
from pargo_export.llm.onnx import export_language_model, open_onnx_language_model, parity, read_record
from pargo_export.llm.onnx.decoder import Decoder
from pargo_export.llm.onnx.translate import find_caches

EXPORTED = {
    "decoder.onnx",
    "decoder.onnx.data",
    "embeddings.safetensors",
    "language_model.json",
    "tokenizer.json",
}


@pytest.fixture
def options(adapters):
    """Return the arguments with which the graph of `translated` was made."""
    return {"adapters": adapters, "lora_alpha": 8.0}


def scale_a_weight(model: onnx_ir.Model, factor: float) -> None:
    """Change one value of one matrix."""
    value = next(item for item in model.graph.initializers.values() if len(item.shape) == 2)
    weight = value.const_value.numpy().copy()
    weight[0, 0] *= factor
    value.const_value = onnx_ir.tensor(weight, name=value.name)


def test_the_record_says_what_was_made(exported):
    """Files, sizes, caches, special tokens and evidence stand in the record."""
    record = read_record(exported)
    assert {path.name for path in exported.iterdir()} == EXPORTED
    assert set(record.files) == EXPORTED - {"language_model.json"}
    assert record.size_bytes == sum((exported / name).stat().st_size for name in record.files)
    assert [(cache.heads, cache.width) for cache in (*record.keys, *record.values)] == [(2, 20)] * 4
    assert (record.bos_token_id, record.end_token_ids, record.precision) == (0, (1,), "fp32")
    assert record.adapters_sha256 is not None
    assert record.evidence.passed
    assert len(record.evidence.stages) == 8  # two prompts, three further tokens each
    assert max(item.max_abs for item in record.evidence.stages) < 1e-4


def test_the_graph_is_plain_onnx(exported):
    """Only standard operators, attention and rotation whole, and axes with names."""
    model = onnx_ir.load(exported / "decoder.onnx")
    assert {node.domain for node in model.graph} == {""}
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Attention") == 2
    shapes = {value.name: str(value.shape) for value in (*model.graph.inputs, *model.graph.outputs)}
    assert shapes["inputs_embeds"] == "[batch,length,80]"
    assert shapes["past_key_values.1.value"] == "[batch,2,past,20]"
    assert shapes["present.0.key"] == "[batch,2,past + length,20]"
    assert shapes["logits"].startswith("[batch,")
    assert not any(node.metadata_props for node in model.graph)


def test_reading_at_once_is_reading_step_by_step(onnx_model):
    """The caches hold what was read: tokens one by one give the logits of all at once."""
    record = onnx_model.record
    caches = [shape for pair in zip(record.keys, record.values, strict=True) for shape in pair]
    decoder = Decoder(Path(onnx_model.directory) / record.graph, caches, threads=1)
    embeddings = onnx_model.embed(range(3, 11)).reshape(2, 4, 80)
    mask = np.array([[0, 1, 1, 1], [1, 1, 1, 1]])
    whole, present = decoder.run(embeddings, mask, decoder.empty_caches(2))
    logits, kept = decoder.run(embeddings[:, :2], mask[:, :2], decoder.empty_caches(2))
    for place in (2, 3):
        logits, kept = decoder.run(embeddings[:, place : place + 1], mask[:, : place + 1], kept)
    np.testing.assert_allclose(logits, whole, atol=1e-4)
    assert [cache.shape for cache in kept] == [cache.shape for cache in present]


@pytest.mark.parametrize(("precision", "lowest"), [("int8", 0.99), ("int4", 0.3)])
def test_weights_of_fewer_bits(
    llama_directory, translated, options, tmp_path, precision, lowest, monkeypatch
):
    """The graph becomes smaller, how close its logits stay is recorded, and the root logger stays as it is."""
    monkeypatch.setitem(parity.LIMITS, precision, Limits(cosine=lowest))  # random weights bear little
    before = logging.getLogger().level, logging.getLogger().handlers[:]
    record = export_language_model(llama_directory, tmp_path / "llm", precision=precision, **options)
    assert (logging.getLogger().level, logging.getLogger().handlers) == before
    assert record == read_record(tmp_path / "llm")
    worst = min(item.cosine for item in record.evidence.stages)
    assert lowest <= worst < 0.999999
    floats = sum(item.const_value.nbytes for item in translated.graph.initializers.values())
    assert record.files["decoder.onnx.data"].size_bytes < floats / (
        2 if precision == "int8" else 4
    )  # blocks of inputs are filled up
    with open_onnx_language_model(tmp_path / "llm", threads=1) as model:
        assert model.record.precision == precision


def test_a_wrong_graph_is_not_written(llama_directory, translated, options, tmp_path):
    """One wrong value among the weights misses the gate; nothing is left behind."""
    scale_a_weight(translated, 50)
    with pytest.raises(ParityError, match="does not compute what the reference computes"):
        export_language_model(llama_directory, tmp_path / "llm", **options)
    assert not list(tmp_path.iterdir())


def test_a_graph_without_the_adapters_is_not_written(llama_directory, translated, tmp_path):  # noqa: ARG001
    """The gate holds the graph against the very model that was asked for."""
    with pytest.raises(ParityError):
        export_language_model(llama_directory, tmp_path / "llm")


def test_too_few_bits_are_refused(llama_directory, translated, options, tmp_path):  # noqa: ARG001
    """Weights that change the logits past the limit are an error of accuracy."""
    with pytest.raises(AccuracyError, match=r"int4 weights .* expected at least 0\.9"):
        export_language_model(llama_directory, tmp_path / "llm", precision="int4", **options)
    assert not list(tmp_path.iterdir())


def test_what_exists_is_replaced_only_when_asked(llama_directory, translated, options, tmp_path):  # noqa: ARG001
    """An export is replaced with `force`, anything else never; an empty directory is filled."""
    other, output = tmp_path / "other", tmp_path / "llm"
    other.mkdir()
    (other / "file").write_text("mine")
    with pytest.raises(ExportError, match="no exported language model"):
        export_language_model(llama_directory, other, force=True)
    output.mkdir()
    export_language_model(llama_directory, output, **options)
    with pytest.raises(ExportError, match="--force"):
        export_language_model(llama_directory, output, **options)
    export_language_model(llama_directory, output, force=True, **options)
    assert {path.name for path in output.iterdir()} == EXPORTED
    assert {path.name for path in tmp_path.iterdir()} == {"other", "llm"}


def test_options_are_checked_first(llama_directory, tmp_path):
    """An unknown precision and a missing parent are refused before anything is loaded."""
    with pytest.raises(ConfigError, match="'fp8'"):
        export_language_model(llama_directory, tmp_path / "llm", precision="fp8")
    with pytest.raises(ExportError, match="create it first"):
        export_language_model(llama_directory, tmp_path / "missing" / "llm")


def test_a_model_without_keys_and_values_is_refused():
    """A model that keeps a state of another kind cannot be exported, and the message says so."""
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, state_size=4))
    with pytest.raises(ExportError, match="MambaForCausalLM cannot be exported"):
        find_caches(model.eval(), 8)


def test_the_command(run_cli, llama_directory, translated, adapters, tmp_path):  # noqa: ARG001
    """`pargo-export llm` writes the directory and shows the agreement."""
    output = tmp_path / "llm"
    result = run_cli(
        "llm", llama_directory, "-o", output, "--adapters", adapters, "--lora-alpha", 8, "--int8"
    )
    assert result.exit_code == 0, result.output
    assert "int8" in result.stdout
    assert "lowest cosine" in result.stdout
    assert {path.name for path in output.iterdir()} == EXPORTED
    again = run_cli("llm", llama_directory, "-o", output)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    assert run_cli("llm", llama_directory, "-o", output, "--int8", "--int4").exit_code == 2
